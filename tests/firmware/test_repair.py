"""Damage of a stored image: what is refused then, and how it is repaired."""

import hashlib
from pathlib import Path

import pgtrigger
import pytest

from firmware.exceptions import ImageChangedError, ImageUnavailableError
from firmware.models import Firmware
from firmware.services.approval import approve_firmware
from firmware.services.delivery import stored_bytes
from firmware.services.uploads import UploadOutcome, register_firmware
from firmware.services.verification import verify_firmware
from firmware.storage import image_store
from hotswap.common.models import AuditEvent
from tests.api import problem_of
from tests.callers import PersonCaller
from tests.common.factories import PersonFactory
from tests.firmware.factories import DeviceModelFactory, FirmwareFactory, staged_image
from tests.firmware.forms import upload

CONTENT = b"an image" * 100


def stored_file(firmware: Firmware) -> Path:
    return Path(image_store().path(firmware.storage_name))


def damaged(**fields: object) -> tuple[Firmware, bytes]:
    """Make a firmware whose stored file is noted as damaged; give its whole file."""
    firmware = FirmwareFactory.create(content=CONTENT, version="1.0.0", **fields)
    path = stored_file(firmware)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ImageUnavailableError):
        read(firmware)
    firmware.refresh_from_db()
    assert firmware.damaged_at is not None
    return firmware, whole


def read(firmware: Firmware) -> bytes:
    return b"".join(stored_bytes(firmware, 0, firmware.size))


def test_the_same_bytes_uploaded_again_repair_the_stored_image(
    admin: PersonCaller,
) -> None:
    firmware, _ = damaged(approved=True)

    response = upload(admin, CONTENT)

    assert response.status_code == 200
    assert response.json()["repaired"] is True
    assert response.json()["damagedAt"] is None
    assert response.json()["status"] == "Approved"
    firmware.refresh_from_db()
    assert read(firmware) == CONTENT
    assert Firmware.objects.deployable().filter(pk=firmware.pk).exists()
    event = AuditEvent.objects.get(verb="firmware.repaired")
    assert event.actor == admin.person.pseudonym
    assert event.details["how"] == "uploaded again"


def test_an_upload_of_what_is_whole_repairs_nothing(admin: PersonCaller) -> None:
    firmware = FirmwareFactory.create(content=CONTENT, version="1.0.0")

    response = upload(admin, CONTENT)

    assert response.json()["repaired"] is False
    assert Firmware.objects.get().storage_name == firmware.storage_name
    assert not AuditEvent.objects.filter(verb="firmware.repaired").exists()


def test_other_bytes_do_not_repair(admin: PersonCaller) -> None:
    firmware, _ = damaged()

    problem_of(upload(admin, b"other bytes"), 409, "version_exists")

    firmware.refresh_from_db()
    assert firmware.damaged_at is not None


def test_the_second_of_two_repairs_finds_nothing_to_do(db: None) -> None:
    firmware, _ = damaged()
    outcomes = []
    for _ in range(2):
        with staged_image(CONTENT) as staged:
            _, outcome = register_firmware(
                actor=None, model_name="sensor-v1", version="1.0.0", staged=staged
            )
        outcomes.append(outcome)

    assert outcomes == [UploadOutcome.REPAIRED, UploadOutcome.KNOWN]
    firmware.refresh_from_db()
    assert read(firmware) == CONTENT


def test_a_draft_noted_as_damaged_is_not_approved_until_it_is_repaired(
    db: None,
) -> None:
    firmware, whole = damaged()
    stored_file(firmware).write_bytes(whole)
    approver = PersonFactory.create(admin=True)

    with pytest.raises(ImageChangedError):
        approve_firmware(actor=approver, firmware_id=firmware.pk)
    verify_firmware(actor=approver, firmware_id=firmware.pk)
    approved = approve_firmware(actor=approver, firmware_id=firmware.pk)

    assert approved.status == "Approved"


def test_a_check_notes_damage_and_says_so(admin: PersonCaller) -> None:
    firmware = FirmwareFactory.create(approved=True)
    stored_file(firmware).unlink()

    shown = admin.post(f"/firmware/{firmware.pk}/verify").json()

    assert shown["damagedAt"] is not None
    assert "gone" in shown["damage"]
    assert AuditEvent.objects.filter(verb="firmware.verified").count() == 1


def test_a_check_finds_a_restored_file_whole_again(admin: PersonCaller) -> None:
    firmware, whole = damaged()
    stored_file(firmware).write_bytes(whole)

    shown = admin.post(f"/firmware/{firmware.pk}/verify").json()

    assert shown["damagedAt"] is None
    assert AuditEvent.objects.get(verb="firmware.repaired").details["how"] == (
        "found whole again"
    )


def test_a_check_of_what_is_damaged_still_clears_nothing(admin: PersonCaller) -> None:
    firmware, _ = damaged()

    shown = admin.post(f"/firmware/{firmware.pk}/verify").json()

    assert shown["damagedAt"] is not None
    assert not AuditEvent.objects.filter(verb="firmware.repaired").exists()


def test_the_other_digests_are_computed_on_arrival(admin: PersonCaller) -> None:
    DeviceModelFactory.create(name="sensor-v1")

    body = upload(admin, CONTENT).json()

    assert body["sha1"] == hashlib.sha1(CONTENT, usedforsecurity=False).hexdigest()
    assert body["md5"] == hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("how", ["upload", "verify", "approve"])
def test_digests_of_an_old_row_are_filled_in(admin: PersonCaller, how: str) -> None:
    firmware = old_row()

    if how == "upload":
        upload(admin, CONTENT)
    else:
        admin.post(f"/firmware/{firmware.pk}/{how}", {} if how == "approve" else None)

    firmware.refresh_from_db()
    assert firmware.sha1 == hashlib.sha1(CONTENT, usedforsecurity=False).hexdigest()
    assert firmware.md5 == hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


def old_row() -> Firmware:
    """Make a row as it was written before these digests were kept."""
    firmware: Firmware = FirmwareFactory.create(content=CONTENT, version="1.0.0")
    with pgtrigger.ignore("firmware.Firmware:firmware_other_digests"):
        Firmware.objects.update(sha1="", md5="")
    return firmware
