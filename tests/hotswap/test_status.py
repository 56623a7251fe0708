"""How the parts of the server fare, over HTTP and in the console."""

import json
import logging
import re
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
from django.test import Client

from hotswap.monitoring import status
from hotswap.monitoring.caching import cached
from hotswap.monitoring.certificate import certificate_end
from hotswap.monitoring.exposition import StatusCollector
from hotswap.monitoring.status import QUEUE, State, server_status
from hotswap.monitoring.tasks import SENT_AT
from hotswap.operations import SWEEP_JOB, TICK_JOB
from tests.callers import PersonCaller, admin, operator, viewer  # noqa: F401
from tests.devices.pki import Authority
from tests.hotswap.job_runs import run_ago

NOBODY = "redis://127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def nothing_remembered(settings: Any) -> Iterator[None]:
    cached.forget()
    # Other tests send tasks that nobody works on here.
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.delete(QUEUE)
    yield
    cached.forget()


def run_at(*, tick: float = 1, sweep: float = 1) -> None:
    for name, age in ((TICK_JOB, tick), (SWEEP_JOB, sweep)):
        run_ago(name, age)


def part(name: str) -> status.Part:
    return next(each for each in server_status().parts if each.name == name)


def test_everything_works(viewer: PersonCaller) -> None:  # noqa: F811
    run_at()

    answer = viewer.get("/health/status")

    assert answer.status_code == 200
    said = answer.json()
    assert [each["name"] for each in said["parts"]] == [
        *("database", "keys", "redis", "store", "disk", "tick", "sweep", "queue"),
        *("outbox", "copies"),
    ]
    states = {each["name"]: each["state"] for each in said["parts"]}
    # The disk is that of whatever machine this runs on.
    assert {states[name] for name in states if name != "disk"} == {"ok"}
    tick = next(each for each in said["parts"] if each["name"] == "tick")
    assert 1 <= tick["ageSeconds"] < 30
    assert said["version"]


@pytest.mark.parametrize("ages", [{"tick": 31}, {"sweep": 31}])
def test_standstill_is_a_503(
    viewer: PersonCaller,  # noqa: F811
    ages: dict[str, float],
) -> None:
    run_at(**ages)

    answer = viewer.get("/health/status")

    assert answer.status_code == 503
    assert answer.json()["status"] == "down"


def test_full_store_folder_is_down(
    db: None, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.FIRMWARE_DIR = tmp_path / "gone" / "firmware"

    assert part("store").state == State.DOWN
    assert not server_status().is_serving


def test_redis_that_is_away_is_said_and_serves_on(db: None, settings: Any) -> None:
    run_at()
    settings.REDIS_URL = NOBODY

    assert part("redis").state == State.DOWN
    assert part("queue").state == State.DOWN
    assert server_status().is_serving
    assert server_status().word == "degraded"


def test_queue_tells_how_long_its_oldest_has_waited(db: None, settings: Any) -> None:
    message = {"headers": {SENT_AT: time.time() - 100}}
    newer = {"headers": {SENT_AT: time.time()}}
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.delete(QUEUE)
        client.rpush(QUEUE, json.dumps(message))
        client.lpush(QUEUE, json.dumps(newer))
        try:
            found = part("queue")
        finally:
            client.delete(QUEUE)

    assert (found.state, found.figure) == (State.WARNING, 2)
    assert found.age is not None
    assert 100 <= found.age.total_seconds() < 200


def test_status_at_any_host_leaves_no_line(
    db: None, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.METRICS_TOKEN = "a-token-for-whoever-scrapes"
    headers = {
        "host": "10.1.2.3",
        "authorization": "Bearer a-token-for-whoever-scrapes",
    }

    with caplog.at_level(logging.DEBUG, logger="django.request"):
        answer = Client(headers=headers).get("/health/status")

    assert answer.status_code == 503
    assert caplog.records == []


def test_certificate_is_looked_at_where_there_is_one() -> None:
    assert certificate_end("http://127.0.0.1:1") is None
    assert certificate_end("https://127.0.0.1:1") is None


@pytest.fixture
def public_address(tmp_path: Path) -> Iterator[str]:
    """An https address whose certificate ends in six days and a half."""
    credential = Authority().issue("public", ends_in=timedelta(days=6, hours=12))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*credential.write(tmp_path, "public"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_certificate_of_the_public_address_that_ends_is_a_figure(
    db: None, settings: Any, public_address: str
) -> None:
    settings.PUBLIC_URL = public_address

    found = part("certificate")

    assert found.state == State.WARNING
    assert found.figure == pytest.approx(6.5, abs=0.1)
    cached.forget()
    figures = next(
        family
        for family in StatusCollector().collect()
        if family.name == "hotswap_part_figure"
    )
    assert {
        sample.labels["unit"]: sample.value
        for sample in figures.samples
        if sample.labels["part"] == "certificate"
    } == {"days left": pytest.approx(6.5, abs=0.1)}


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_page_shows_the_same(request: pytest.FixtureRequest, role: str) -> None:
    person = request.getfixturevalue(role).person
    run_at(tick=7 * 3600)
    client = Client()
    client.force_login(person)

    answer = client.get("/admin/system/")

    text = answer.content.decode()
    assert answer.status_code == 200
    assert "The fleet is not being served." in text
    assert "Down: Last tick." in text
    assert 'href="/admin/help/operate/runbooks.md"' in text
    assert client.get("/admin/help/operate/runbooks.md").status_code == 200
    assert "7 h" in text
    assert re.search(r"\d % used", text)
    assert status.VERSION in text


def test_page_is_for_people_who_have_logged_in(db: None) -> None:
    answer = Client().get("/admin/system/")

    assert (answer.status_code, "login" in answer["Location"]) == (302, True)
