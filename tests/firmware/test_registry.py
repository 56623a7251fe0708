"""Signing, approving and retiring firmware, and what the database itself refuses."""

import base64
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from firmware.choices import FIRMWARE_MOVES, FirmwareStatus
from firmware.encrypted_format import FRAME_BYTES
from firmware.exceptions import (
    ImageChangedError,
    ImageUnavailableError,
    OwnUploadError,
    WrongStatusError,
)
from firmware.models import Firmware, Manifest, SigningKey
from firmware.services.approval import approve_firmware
from firmware.services.cleanup import tidy_store
from firmware.services.delivery import stored_bytes
from firmware.services.key_rotation import create_signing_key
from firmware.services.manifests import manifest_for
from firmware.storage import image_store, incoming_folder
from hotswap.common.models import AuditEvent
from tests.api import Caller, pointers, problem_of
from tests.callers import PersonCaller
from tests.common.factories import PersonFactory
from tests.firmware.factories import DeviceModelFactory, FirmwareFactory

Damage = Callable[[Path], None]


def stored_file(firmware: Firmware) -> Path:
    return Path(image_store().path(firmware.storage_name))


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def erase_header(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(b"\0" * 93 + data[93:])


def rename_key(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8:24] = b"f" * 16
    path.write_bytes(data)


DAMAGES = [flip_a_byte, cut_short, erase_header, rename_key, Path.unlink]


def read(firmware: Firmware) -> bytes:
    return b"".join(stored_bytes(firmware, 0, firmware.size))


# --- Signatures ------------------------------------------------------------------


def test_the_signature_verifies_with_the_published_key(
    anonymous: Caller, admin: PersonCaller
) -> None:
    content = secrets.token_bytes(5000)
    firmware = FirmwareFactory.create(content=content)

    shown = admin.get(f"/firmware/{firmware.pk}").json()
    keys = {key["keyId"]: key for key in anonymous.get("/signing-keys").json()}

    key = keys[shown["keyId"]]
    assert key["algorithm"] == shown["signatureAlgorithm"]
    assert key["status"] == "Active"
    public = serialization.load_pem_public_key(key["publicKey"].encode())
    assert isinstance(public, rsa.RSAPublicKey)
    assert public.key_size == 2048
    signature = base64.b64decode(shown["signature"], validate=True)
    public.verify(signature, content, padding.PKCS1v15(), hashes.SHA256())
    with pytest.raises(InvalidSignature):
        public.verify(signature, content + b"!", padding.PKCS1v15(), hashes.SHA256())


def test_openssl_verifies_the_signature_too(
    anonymous: Caller, db: None, tmp_path: Path
) -> None:
    openssl = shutil.which("openssl")
    content = secrets.token_bytes(5000)
    firmware = FirmwareFactory.create(content=content)
    (key,) = anonymous.get("/signing-keys").json()
    (tmp_path / "key.pem").write_text(key["publicKey"])
    (tmp_path / "image.sig").write_bytes(base64.b64decode(firmware.signature))
    (tmp_path / "image.bin").write_bytes(content)

    if openssl is None:
        return
    done = subprocess.run(
        [
            *(openssl, "dgst", "-sha256", "-verify", "key.pem"),
            *("-signature", "image.sig", "image.bin"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.strip() == "Verified OK", done.stderr


def test_the_published_keys_hold_nothing_private(anonymous: Caller, db: None) -> None:
    (key,) = anonymous.get("/signing-keys").json()

    assert set(key) == {
        *("keyId", "algorithm", "publicKey", "status", "notBefore", "notAfter"),
    }
    assert "PRIVATE" not in key["publicKey"]
    assert b"PRIVATE" not in bytes(SigningKey.objects.get().sealed_private_key)


def test_a_manifest_serves_until_a_device_has_seen_a_higher_one(db: None) -> None:
    firmware, other = FirmwareFactory.create(), FirmwareFactory.create()

    first = manifest_for(firmware, above=0)
    again = manifest_for(firmware, above=first.sequence - 1)
    higher = manifest_for(other, above=0)
    back = manifest_for(firmware, above=higher.sequence)

    assert first == again
    assert first.sequence < higher.sequence < back.sequence
    assert Manifest.objects.count() == 3


# --- Approval --------------------------------------------------------------------


def act(caller: Caller, firmware: Firmware, verb: str) -> Any:
    body = {"reason": "replaced"} if verb == "deprecate" else {"comment": "seen"}
    return caller.post(f"/firmware/{firmware.pk}/{verb}", body)


@pytest.mark.parametrize(
    ("state", "verb", "expected"),
    [
        ("draft", "approve", "Approved"),
        ("draft", "reject", "Rejected"),
        ("draft", "deprecate", None),
        ("approved", "approve", None),
        ("approved", "reject", None),
        ("approved", "deprecate", "Deprecated"),
        ("rejected", "approve", None),
        ("rejected", "reject", None),
        ("rejected", "deprecate", None),
        ("deprecated", "approve", None),
        ("deprecated", "reject", None),
        ("deprecated", "deprecate", None),
    ],
)
def test_each_verb_works_from_its_status_alone(
    admin: PersonCaller, state: str, verb: str, expected: str | None
) -> None:
    traits = {} if state == "draft" else {state: True}
    firmware = FirmwareFactory.create(**traits)
    events = AuditEvent.objects.count()

    response = act(admin, firmware, verb)

    if expected is None:
        problem_of(response, 409, "wrong_status")
        assert AuditEvent.objects.count() == events
        return
    body = response.json()
    assert response.status_code == 200
    assert body["status"] == expected
    assert body["statusComment"] == ("replaced" if verb == "deprecate" else "seen")
    assert AuditEvent.objects.count() == events + 1


def test_an_approval_names_its_author_and_binds_the_checksum(
    admin: PersonCaller,
) -> None:
    firmware = FirmwareFactory.create()

    body = act(admin, firmware, "approve").json()

    firmware.refresh_from_db()
    assert body["approvedBy"] == admin.person.username
    assert body["approvedAt"]
    assert firmware.approved_sha256 == firmware.sha256
    event = AuditEvent.objects.get(verb="firmware.approved")
    assert event.actor == admin.person.pseudonym
    assert event.details["sha256"] == firmware.sha256


@pytest.mark.parametrize("body", [{}, {"comment": ""}, {"comment": " "}])
def test_a_rejection_needs_a_comment(admin: PersonCaller, body: dict) -> None:
    firmware = FirmwareFactory.create()

    response = admin.post(f"/firmware/{firmware.pk}/reject", body)

    assert set(pointers(problem_of(response, 400))) == {"/comment"}


def test_under_four_eyes_the_uploader_may_not_approve(
    admin: PersonCaller, settings: Any
) -> None:
    settings.FOUR_EYES = True
    own = FirmwareFactory.create(actor=admin.person)
    foreign = FirmwareFactory.create()

    problem_of(act(admin, own, "approve"), 403, "four_eyes")

    assert act(admin, foreign, "approve").status_code == 200
    assert Firmware.objects.get(pk=own.pk).status == "Draft"


def test_without_four_eyes_the_uploader_may_approve(
    admin: PersonCaller, settings: Any
) -> None:
    settings.FOUR_EYES = False

    response = act(admin, FirmwareFactory.create(actor=admin.person), "approve")

    assert response.status_code == 200


def test_four_eyes_are_asked_for_before_the_image_is_read(
    admin: PersonCaller, settings: Any
) -> None:
    settings.FOUR_EYES = True
    firmware = FirmwareFactory.create(actor=admin.person)
    stored_file(firmware).unlink()

    with pytest.raises(OwnUploadError):
        approve_firmware(actor=admin.person, firmware_id=firmware.pk)


# --- Damage ----------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_image_is_never_given_out_and_is_noted_once(
    db: None, damage: Damage
) -> None:
    firmware = FirmwareFactory.create(approved=True)
    damage(stored_file(firmware))

    for _ in range(2):
        with pytest.raises(ImageUnavailableError):
            read(firmware)

    firmware.refresh_from_db()
    assert firmware.damaged_at is not None
    assert firmware.damage
    event = AuditEvent.objects.get(verb="firmware.damaged")
    assert event.actor is None
    assert not Firmware.objects.deployable().filter(pk=firmware.pk).exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_image_is_not_approved(db: None, damage: Damage) -> None:
    firmware = FirmwareFactory.create()
    damage(stored_file(firmware))

    with pytest.raises(ImageChangedError):
        approve_firmware(
            actor=PersonFactory.create(admin=True), firmware_id=firmware.pk
        )

    firmware.refresh_from_db()
    assert firmware.status == "Draft"
    assert firmware.damaged_at is not None


def test_the_damage_shows_on_the_firmware(admin: PersonCaller) -> None:
    firmware = FirmwareFactory.create()
    flip_a_byte(stored_file(firmware))

    problem_of(act(admin, firmware, "approve"), 409, "image_changed")

    shown = admin.get(f"/firmware/{firmware.pk}").json()
    assert shown["damagedAt"]
    assert "does not verify" in shown["damage"]


def test_what_lies_before_the_damage_is_still_read(db: None) -> None:
    content = secrets.token_bytes(2 * FRAME_BYTES)
    firmware = FirmwareFactory.create(content=content)
    flip_a_byte(stored_file(firmware))

    first = b"".join(stored_bytes(firmware, 0, FRAME_BYTES))

    assert first == content[:FRAME_BYTES]


def test_the_image_of_another_firmware_in_its_place_is_noticed(db: None) -> None:
    one, other = (
        FirmwareFactory.create(content=b"a" * 100),
        FirmwareFactory.create(content=b"b" * 90),
    )
    stored_file(one).write_bytes(stored_file(other).read_bytes())

    with pytest.raises(ImageUnavailableError):
        read(one)


# --- What the database refuses -----------------------------------------------------


def refused_by_the_database(change: Callable[[], Any]) -> None:
    with pytest.raises(DatabaseError), transaction.atomic():
        change()


STATES = {
    FirmwareStatus.DRAFT: {},
    FirmwareStatus.APPROVED: {"approved": True},
    FirmwareStatus.REJECTED: {"rejected": True},
    FirmwareStatus.DEPRECATED: {"deprecated": True},
}


@pytest.mark.parametrize("start", STATES)
def test_the_database_itself_refuses_every_other_move(
    db: None, start: FirmwareStatus
) -> None:
    firmware = FirmwareFactory.create(**STATES[start])
    row = Firmware.objects.filter(pk=firmware.pk)

    for end in set(FirmwareStatus) - {start}:
        if (start, end) not in FIRMWARE_MOVES:
            refused_by_the_database(partial(row.update, status=end))

    assert row.get().status == start


def test_the_database_refuses_an_approval_without_its_checksum(db: None) -> None:
    firmware = FirmwareFactory.create()
    row = Firmware.objects.filter(pk=firmware.pk)

    refused_by_the_database(lambda: row.update(status="Approved"))
    refused_by_the_database(
        lambda: row.update(status="Approved", approved_sha256="0" * 64)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"version": "9.9.9"},
        {"size": 5},
        {"sha256": "0" * 64},
        {"signature": "AAAA"},
        {"security_version": 9},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("approved", [False, True])
def test_the_database_refuses_changes_of_what_was_signed(
    db: None, change: dict[str, Any], approved: bool
) -> None:
    firmware = FirmwareFactory.create(approved=approved)
    row = Firmware.objects.filter(pk=firmware.pk)

    refused_by_the_database(lambda: row.update(**change))


def test_the_database_refuses_another_model_and_another_key(db: None) -> None:
    row = Firmware.objects.filter(pk=FirmwareFactory.create().pk)
    model, key = DeviceModelFactory.create(), create_signing_key(actor=None)

    refused_by_the_database(lambda: row.update(model=model))
    refused_by_the_database(lambda: row.update(key=key))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE common_auditevent SET verb = 'nothing'",
        "DELETE FROM common_auditevent",
        "TRUNCATE common_auditevent",
        "TRUNCATE common_auditevent CASCADE",
    ],
)
def test_the_audit_trail_can_only_grow(db: None, statement: str) -> None:
    FirmwareFactory.create()
    rows = AuditEvent.objects.order_by("pk").values_list()
    before = list(rows)

    with connection.cursor() as cursor:
        refused_by_the_database(lambda: cursor.execute(statement))

    assert list(rows.all()) == before


def test_the_audit_trail_refuses_changes_through_its_rows_too(db: None) -> None:
    FirmwareFactory.create()
    event = AuditEvent.objects.first()
    assert event is not None

    refused_by_the_database(event.save)
    refused_by_the_database(event.delete)
    refused_by_the_database(AuditEvent.objects.all().delete)


# --- The catalogue and the store ---------------------------------------------------


def test_a_device_model_is_named_once(admin: PersonCaller) -> None:
    first = admin.post("/device-models", {"name": "Pump-2", "description": "d"})

    again = admin.post("/device-models", {"name": "Pump-2"})

    assert first.status_code == 201
    assert first.json()["name"] == "Pump-2"
    assert first.json()["description"] == "d"
    problem_of(again, 409, "model_exists")


@pytest.mark.parametrize("name", ["", " ", "-a", "a b", "a/b", "a" * 65, 5, None, "ä"])
def test_a_name_that_is_none_is_refused(admin: PersonCaller, name: object) -> None:
    response = admin.post("/device-models", {"name": name})

    assert set(pointers(problem_of(response, 400))) == {"/name"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("model=a", {"1.0.0", "1.1.0"}),
        ("model=b", {"2.0.0"}),
        ("status=Approved", {"1.1.0"}),
        ("status=Draft&model=a", {"1.0.0"}),
        ("version=2.0.0", {"2.0.0"}),
    ],
)
def test_firmware_is_filtered(
    viewer: PersonCaller, query: str, expected: set[str]
) -> None:
    FirmwareFactory.create(model_name="a", version="1.0.0")
    FirmwareFactory.create(model_name="a", version="1.1.0", approved=True)
    FirmwareFactory.create(model_name="b", version="2.0.0", rejected=True)

    rows = viewer.get(f"/firmware?{query}").json()["results"]

    assert {row["version"] for row in rows} == expected


@pytest.mark.parametrize(
    "query", ["status=approved", "status=5", f"version={'v' * 65}", "model=c"]
)
def test_a_filter_of_no_sense_is_refused(viewer: PersonCaller, query: str) -> None:
    response = viewer.get(f"/firmware?{query}")

    assert set(pointers(problem_of(response, 400))) == {f"/{query.partition('=')[0]}"}


def test_what_interrupted_uploads_left_goes_after_an_hour(
    db: None, settings: Any, tmp_path: Path
) -> None:
    settings.FIRMWARE_DIR = tmp_path
    firmware = FirmwareFactory.create()
    old = timezone.now() - timedelta(hours=2)
    stale_part = incoming_folder() / "stale.part"
    stale_image = stored_file(firmware).with_name("orphan.hsf")
    for path in (stale_part, stale_image, stored_file(firmware)):
        path.touch()
        os.utime(path, (old.timestamp(), old.timestamp()))
    fresh = incoming_folder() / "fresh.part"
    fresh.touch()

    removed = tidy_store()

    assert removed == 2
    assert not stale_part.exists()
    assert not stale_image.exists()
    assert fresh.exists()
    assert stored_file(firmware).exists()


def test_a_rejection_is_final_for_the_services_too(db: None) -> None:
    firmware = FirmwareFactory.create(rejected=True)

    with pytest.raises(WrongStatusError):
        approve_firmware(
            actor=PersonFactory.create(admin=True), firmware_id=firmware.pk
        )
