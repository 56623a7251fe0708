"""The hosts of an installation: their heartbeats, and what must be the same on all."""

import logging
import secrets
import shutil
import threading
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test import Client
from django.utils import timezone

from deployments.services.ticked import TickRecord, record
from firmware.services.cleanup import tidy_store
from hotswap.common import keyring
from hotswap.common.models import ServerProcess
from hotswap.common.services import ensure_keys, require_own_keys
from hotswap.monitoring import hosts
from hotswap.monitoring.doctor import Verdict, examine
from hotswap.monitoring.hosts import Membership, differ, require_same_stores, store_ids
from hotswap.stack.folder import StackFolder
from hotswap.stack.postgres import PostgresServer
from tests.callers import PersonCaller, viewer  # noqa: F401
from tests.deployments.world import World
from tests.live import LiveStack
from tests.s3 import S3Server, use_bucket
from tests.waiting import wait_until


def other_host(**fields: Any) -> ServerProcess:
    """Write the row of a worker of another host."""
    now = timezone.now()
    values = {
        "host": "host-b",
        "role": "worker",
        "pid": 7,
        "version": "0.1.0",
        "started_at": now,
        "seen_at": now,
        "stores": store_ids(),
    }
    row: ServerProcess = ServerProcess.objects.create(**{**values, **fields})
    return row


def test_process_has_one_row_that_it_renews(db: None) -> None:
    process = Membership("worker", "k" * 64)
    process.renew()
    first = ServerProcess.objects.get()
    process.renew()

    row = ServerProcess.objects.get()

    assert (row.pk, row.started_at) == (first.pk, first.started_at)
    assert row.seen_at > first.seen_at


def test_process_replaces_its_silent_predecessor_and_no_other(
    db: None, settings: Any
) -> None:
    old = timezone.now() - timedelta(minutes=1)
    own = {"host": settings.HOST_NAME, "role": "web"}
    other_host(**own, seen_at=old)
    other_host(**own, pid=8)
    other_host(host="host-c", role="web", seen_at=old)
    other_host(host="host-d", seen_at=old - timedelta(days=2))

    Membership("web", "").renew()

    left = ServerProcess.objects.values_list("host", "pid")
    assert {(host, pid) for host, pid in left if host != settings.HOST_NAME} == {
        ("host-c", 7)
    }
    assert ServerProcess.objects.filter(**own).count() == 2
    assert ServerProcess.objects.filter(pid=8).exists()


def test_ticks_are_noted_with_their_deployments(db: None) -> None:
    world = World()
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(2, old)
    deployment = world.launch(new)
    before = record.snapshot(world.now).ticks

    world.tick(1)

    after = record.snapshot(world.now)
    assert after.ticks == before + 1
    assert deployment.pk in after.deployments


def test_ticks_of_more_than_a_minute_ago_are_forgotten() -> None:
    noted = TickRecord()
    now = timezone.now()
    deployment = uuid.uuid4()
    noted.note_deployment(deployment, now)

    assert deployment in noted.snapshot(now + timedelta(seconds=59)).deployments
    assert not noted.snapshot(now + timedelta(seconds=61)).deployments


def test_last_tick_is_that_of_the_worker_that_came_last(db: None) -> None:
    early, late = timezone.now() - timedelta(seconds=9), timezone.now()
    other_host(host="host-b", ticked={"d1": late.isoformat(), "d2": early.isoformat()})
    other_host(host="host-c", ticked={"d1": early.isoformat(), "d2": late.isoformat()})

    found = {
        each.deployment_id: each.host for each in hosts.last_ticks(hosts.processes())
    }

    assert found == {"d1": "host-b", "d2": "host-c"}


@pytest.mark.parametrize(
    ("own", "other", "is_another"),
    [
        ({"folder": "a"}, {"folder": "a"}, False),
        ({"folder": "a"}, {"folder": "b"}, True),
        ({"folder": "a"}, {"main": "a"}, True),
        ({"main": "a"}, {"main": "a", "eu": "b"}, False),
        ({"main": "a", "eu": "c"}, {"main": "a", "eu": "b"}, True),
        ({}, {"main": "a"}, False),
        ({"main": "a"}, {}, False),
    ],
)
def test_stores_differ_where_they_share_no_place_or_one_is_another(
    own: dict[str, str], other: dict[str, str], is_another: bool
) -> None:
    assert differ(own, other) is is_another
    assert differ(other, own) is is_another


class Heart:
    """Renews the row of another host until the block ends."""

    def __init__(self, row: ServerProcess) -> None:
        self.row = row
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._beat)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _beat(self) -> None:
        while not self.over.wait(0.2):
            ServerProcess.objects.filter(pk=self.row.pk).update(seen_at=timezone.now())
        connection.close()


@pytest.mark.django_db(transaction=True)
def test_host_with_another_folder_than_a_living_one_is_refused(
    settings: Any, tmp_path: Path
) -> None:
    row = other_host()
    settings.FIRMWARE_DIR = tmp_path / "of-this-host"

    with Heart(row), pytest.raises(ImproperlyConfigured, match="host-b in folder"):
        require_same_stores()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("role", ["web", "worker", "beat"])
def test_program_started_without_prepare_does_not_start_with_another_folder(
    settings: Any, tmp_path: Path, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    row = other_host()
    settings.FIRMWARE_DIR = tmp_path / "of-this-host"

    with Heart(row), pytest.raises(SystemExit):
        hosts.join(role)

    assert "does not start: this host keeps images in folder" in caplog.text
    assert not ServerProcess.objects.exclude(pk=row.pk).exists()


@pytest.mark.django_db(transaction=True)
def test_host_with_the_same_folder_is_let_in(settings: Any) -> None:
    with Heart(other_host()):
        require_same_stores(silent_seconds=0)


def test_host_that_has_just_ended_holds_nobody_up(
    db: None, settings: Any, tmp_path: Path
) -> None:
    other_host()
    settings.FIRMWARE_DIR = tmp_path / "of-this-host"

    require_same_stores(silent_seconds=1)


@pytest.fixture
def bucket(settings: Any, rclone_s3: S3Server) -> str:
    name = rclone_s3.make_bucket(f"identity-{secrets.token_hex(4)}")
    use_bucket(settings, rclone_s3, name)
    return name


def test_bucket_gets_its_identity_once_and_keeps_it(
    db: None, settings: Any, bucket: str, rclone_s3: S3Server
) -> None:
    assert store_ids() == {}
    made = store_ids(make=True)

    tidy_store(now=timezone.now() + timedelta(days=1))

    assert store_ids(make=True) == store_ids() == made
    assert len(made["main"]) == 32
    use_bucket(settings, rclone_s3, rclone_s3.make_bucket(f"{bucket}-2"))
    assert store_ids(make=True) != made


def test_bucket_that_does_not_answer_says_nothing_of_itself(
    db: None, settings: Any, bucket: str
) -> None:
    settings.S3_ENDPOINT = "http://127.0.0.1:1"

    assert store_ids(make=True) == {}


def test_process_with_the_keys_of_another_installation_ends_with_one_line(
    db: None,
    settings: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ensure_keys()
    assert require_own_keys()
    # The connection is that of this test.
    monkeypatch.setattr(connection, "close", lambda: None)
    own_folder, settings.KEYS_DIR = settings.KEYS_DIR, tmp_path / "keys"
    keyring.create_key_files()
    try:
        with caplog.at_level(logging.CRITICAL), pytest.raises(SystemExit):
            hosts.join("worker")
    finally:
        settings.KEYS_DIR = own_folder
        keyring.forget_keys()

    (line,) = [each.getMessage() for each in caplog.records]
    assert "HotSwap does not start: the key file" in line
    assert "is not the one this database was made with" in line


def test_doctor_names_versions_and_what_differs(
    db: None, settings: Any, tmp_path: Path
) -> None:
    other_host(host="host-a", keys="1" * 64)
    other_host(
        host="host-b",
        role="web",
        version="0.2.0",
        keys="2" * 64,
        stores={"folder": "another"},
    )
    other_host(host="host-c", seen_at=timezone.now() - timedelta(minutes=1))

    found = [each for each in examine() if each.name == "hosts"]

    said = " ".join(each.says for each in found)
    assert [each.verdict for each in found] == [
        *(Verdict.PROBLEM, Verdict.WARNING, Verdict.WARNING, Verdict.WARNING),
        Verdict.OK,
    ]
    assert "different stores: host-a, host-b" in said
    assert "key files differ" in said
    assert "different versions" in said
    assert "worker 7 on host-c" in said
    assert "host-a (worker 0.1.0); host-b (web 0.2.0); host-c (silent)" in said


def test_page_shows_hosts_and_who_ticked_what(viewer: PersonCaller) -> None:  # noqa: F811
    world = World()
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(2, old)
    deployment = world.launch(new)
    now = timezone.now()
    other_host(host="host-a", ticked={str(deployment.pk): now.isoformat()}, ticks=1234)
    other_host(host="host-b", stores={"folder": "another"})
    client = Client()
    client.force_login(viewer.person)

    text = client.get("/admin/system/").content.decode()

    assert "Hosts keep images in different stores: host-a, host-b." in text
    assert "1,234" in text
    assert f"/admin/deployments/deployment/{deployment.pk}/change/" in text


@pytest.mark.stack
def test_programs_of_a_stack_send_heartbeats(live_stack: LiveStack) -> None:
    address = live_stack.state()["database_url"]

    def roles() -> set[tuple[str, bool, bool]]:
        with psycopg.connect(address) as database:
            rows = database.execute(
                "SELECT role, keys <> '', stores <> '{}' FROM common_serverprocess"
                " WHERE seen_at > clock_timestamp() - interval '30 seconds'"
            )
            return {(role, keys, stores) for role, keys, stores in rows}

    wanted = {("web", True, True), ("worker", True, True), ("beat", True, True)}
    wait_until(lambda: roles() == wanted, what="web, worker and beat")


@pytest.mark.stack
def test_host_with_a_folder_of_its_own_does_not_start(
    live_stack: LiveStack, tmp_path: Path
) -> None:
    shutil.copytree(live_stack.data_dir / "keys", tmp_path / "data" / "keys")
    second = LiveStack(
        data_dir=tmp_path / "data",
        environment={
            "HOTSWAP_HOST_NAME": "second",
            "HOTSWAP_DATABASE_URL": live_stack.state()["database_url"],
            "HOTSWAP_DATABASE_OWNER_URL": PostgresServer(
                StackFolder(live_stack.data_dir)
            ).url,
            "HOTSWAP_REDIS_URL": live_stack.state()["redis_url"],
        },
        is_prepared=False,
    )
    second.start()
    try:
        wait_until(second.has_ended, what="the second host ends")
    finally:
        second.stop()

    assert "HotSwap does not start: this host keeps images in folder" in second.said()
