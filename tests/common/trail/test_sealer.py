"""Every row of the trail is sealed once, whoever writes at the same time."""

import base64
import json
import subprocess
import threading
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, transaction

from deployments.notifications.outbox import send_due
from deployments.services.receivers import create_webhook
from hotswap.common import audit, locks
from hotswap.common.api.audit_chain import public_key_pem
from hotswap.common.models import AuditAnchor, AuditEvent, AuditPending, AuditSeal
from hotswap.common.tasks import seal_audit_trail
from hotswap.common.trail import sealer
from hotswap.common.trail.verifier import chain_state, verify
from tests.common.factories import PersonFactory
from tests.common.trail.conftest import Trail
from tests.deployments.receivers import Receiver, serving, verified


def sealed_rows() -> list[int]:
    return list(
        AuditSeal.objects.order_by("position").values_list("event_id", flat=True)
    )


def test_rows_are_sealed_in_their_order_and_once(trail: Trail) -> None:
    rows = trail.add(5)

    assert chain_state().waiting == 5
    assert trail.seal() == 5
    assert trail.seal() == 0

    assert sealed_rows() == [row.pk for row in rows]
    assert not AuditPending.objects.exists()
    state = chain_state()
    assert (state.position, state.sealed_at, state.waiting) == (5, trail.now, 0)
    assert verify(start=1).is_intact


def test_rows_that_are_copied_in_are_sealed_as_well(trail: Trail) -> None:
    audit.record_each(
        actor=None,
        verb="device.created",
        object_kind="device",
        details={uuid4(): {"n": number} for number in range(sealer.BATCH + 5)},
    )

    assert trail.seal() == sealer.BATCH + 5

    assert verify(start=1).last == sealer.BATCH + 5
    assert verify(start=1).is_intact


def test_a_check_goes_in_parts(trail: Trail) -> None:
    trail.add(10)
    trail.seal()

    part = verify(start=1, limit=4)
    rest = verify(start=part.next, limit=400)

    assert (part.first, part.last, part.next) == (1, 4, 5)
    assert (rest.first, rest.last, rest.next) == (5, 10, None)
    assert part.is_intact
    assert rest.is_intact


def test_a_check_begins_behind_the_last_anchor(trail: Trail) -> None:
    trail.add(4)
    trail.seal()
    trail.add(3)
    trail.seal()

    found = verify()

    assert (found.first, found.last, found.is_intact) == (5, 7, True)
    assert found.anchors == 3


def test_an_empty_trail_is_intact(trail: Trail) -> None:
    trail.seal()

    found = verify()

    assert found.is_intact
    assert (found.state.position, found.first, found.last) == (0, 1, 0)
    assert not AuditAnchor.objects.exists()


def test_the_chain_is_anchored_once_a_day(trail: Trail, audit_dir: Path) -> None:
    trail.add(1)
    trail.seal()
    trail.add(1)
    trail.now += timedelta(hours=23)
    trail.seal()
    before = len(list(audit_dir.glob("anchor-*")))

    trail.now += timedelta(hours=2)
    trail.seal()

    assert (before, len(list(audit_dir.glob("anchor-*")))) == (1, 2)
    assert AuditAnchor.objects.count() == 2
    assert json.loads((audit_dir / "head.json").read_text())["position"] == 2


def test_an_anchor_of_a_time_to_come_puts_off_none(trail: Trail) -> None:
    trail.add(1)
    anchors_before = trail.now
    trail.now += timedelta(days=300)
    trail.seal()
    trail.now = anchors_before
    trail.add(1)

    trail.seal()

    assert AuditAnchor.objects.count() == 2


def test_an_anchor_arrives_at_who_listens_and_openssl_verifies_it(
    trail: Trail, settings: Any, tmp_path: Path
) -> None:
    receiver = Receiver()
    server = serving(receiver)
    settings.WEBHOOK_ALLOWED_NETWORKS = [ip_network("127.0.0.0/8")]
    _, secret = create_webhook(
        actor=PersonFactory.create(admin=True),
        url=f"{receiver.url}/anchors",
        events=["audit.anchored"],
    )
    written = AuditEvent.objects.count()

    trail.seal()
    send_due(clock=lambda: trail.now)
    server.shutdown()
    server.server_close()

    ((headers, body),) = receiver.got
    assert verified(headers, body, secret)
    told = json.loads(body)["data"]
    assert told["message"].endswith(f"position {written}")
    anchor = told["anchor"]
    assert anchor["position"] == written
    signature = base64.b64decode(anchor.pop("signature"))
    (tmp_path / "key.pem").write_text(public_key_pem())
    (tmp_path / "anchor.sig").write_bytes(signature)
    assert verified_by_openssl(tmp_path, anchor)
    assert not verified_by_openssl(tmp_path, {**anchor, "position": written + 1})


def verified_by_openssl(folder: Path, anchor: dict[str, Any]) -> bool:
    """Verify the signature of an anchor as docs/operate/audit.md says."""
    content = json.dumps(anchor, sort_keys=True, separators=(",", ":"))
    (folder / "anchor.json").write_text(content)
    done = subprocess.run(
        [
            *("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem"),
            *("-rawin", "-in", "anchor.json", "-sigfile", "anchor.sig"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Verified Successfully" in done.stdout or "Failure" in done.stdout, done
    return done.returncode == 0


@pytest.mark.django_db(transaction=True)
def test_a_row_that_commits_late_is_sealed_late_and_holds_up_nobody(
    audit_dir: Path,
) -> None:
    written, go_on = threading.Event(), threading.Event()

    def write_slowly() -> None:
        try:
            with transaction.atomic():
                record("test.slow")
                written.set()
                go_on.wait(60)
        finally:
            connection.close()

    writer = threading.Thread(target=write_slowly)
    writer.start()
    assert written.wait(60)
    record("test.quick")

    sealer.seal_all(now=quick().at)
    first = sealed_verbs()
    go_on.set()
    writer.join()
    sealer.seal_all(now=quick().at)

    assert first == ["test.quick"]
    assert sealed_verbs() == ["test.quick", "test.slow"]
    assert slow().pk < quick().pk
    assert verify(start=1).is_intact


@pytest.mark.django_db(transaction=True)
def test_while_one_server_seals_the_others_do_not(audit_dir: Path) -> None:
    record("test.quick")
    locked, go_on = threading.Event(), threading.Event()

    def seal_slowly() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [locks.AUDIT_CHAIN])
                locked.set()
                go_on.wait(60)
        finally:
            connection.close()

    other = threading.Thread(target=seal_slowly)
    other.start()
    assert locked.wait(60)

    meanwhile = sealer.seal_all(now=quick().at)
    go_on.set()
    other.join()

    assert meanwhile == 0
    assert sealer.seal_all(now=quick().at) > 0
    assert sealed_verbs() == ["test.quick"]


def test_the_task_seals(trail: Trail) -> None:
    trail.add(1)

    seal_audit_trail()

    assert chain_state().position == 1


def record(verb: str) -> None:
    audit.record(actor=None, verb=verb, object_kind="test", object_id="1")


def row(verb: str) -> Any:
    return AuditEvent.objects.get(verb=verb)


def quick() -> Any:
    return row("test.quick")


def slow() -> Any:
    return row("test.slow")


def sealed_verbs() -> list[str]:
    verbs = dict(AuditEvent.objects.values_list("pk", "verb"))
    return [verbs[pk] for pk in sealed_rows() if verbs[pk].startswith("test.")]
