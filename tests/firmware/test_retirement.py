"""The way back from Deprecated, and firmware that is deleted."""

import threading
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from devices.models import FirmwareRun
from devices.services.registry import record_running_firmware
from firmware.models import Firmware, ImageSignature, WrappedKey
from firmware.services import key_rotation
from firmware.services.damage import note_damage
from firmware.storage import image_store
from hotswap.common.models import AuditEvent
from tests.api import Caller, pointers, problem_of
from tests.callers import PersonCaller
from tests.deployments.world import World
from tests.devices.factories import DeviceFactory
from tests.firmware.factories import FirmwareFactory
from tests.firmware.forms import upload

# --- Reinstating -------------------------------------------------------------------


def reinstate(
    caller: Caller, firmware: Firmware, reason: str = "it was the probe"
) -> Any:
    return caller.post(f"/firmware/{firmware.pk}/reinstate", {"reason": reason})


def test_a_deprecated_firmware_comes_back_with_its_approval(
    admin: PersonCaller,
) -> None:
    firmware = FirmwareFactory.create(deprecated=True)
    approver = firmware.approved_by

    response = reinstate(admin, firmware)

    assert response.status_code == 200
    body = response.json()
    assert (body["status"], body["statusComment"]) == ("Approved", "it was the probe")
    assert approver is not None
    assert body["approvedBy"] == approver.username
    assert Firmware.objects.deployable().filter(pk=firmware.pk).exists()
    event = AuditEvent.objects.get(verb="firmware.reinstated")
    assert event.actor == admin.person.pseudonym
    assert event.details["comment"] == "it was the probe"


def test_reinstating_needs_a_reason(admin: PersonCaller) -> None:
    firmware = FirmwareFactory.create(deprecated=True)

    response = admin.post(f"/firmware/{firmware.pk}/reinstate", {})

    assert set(pointers(problem_of(response, 400))) == {"/reason"}


@pytest.mark.parametrize("state", ["draft", "approved", "rejected"])
def test_nothing_but_deprecated_firmware_is_reinstated(
    admin: PersonCaller, state: str
) -> None:
    firmware = FirmwareFactory.create(**({} if state == "draft" else {state: True}))

    problem_of(reinstate(admin, firmware), 409, "wrong_status")


def test_under_four_eyes_the_uploader_may_not_reinstate(
    admin: PersonCaller, settings: Any
) -> None:
    firmware = FirmwareFactory.create(deprecated=True, actor=admin.person)
    settings.FOUR_EYES = True

    problem_of(reinstate(admin, firmware), 403, "four_eyes")


def test_a_damaged_image_is_not_reinstated(admin: PersonCaller) -> None:
    firmware = FirmwareFactory.create(deprecated=True)
    note_damage(firmware, "a bit fell over")

    problem_of(reinstate(admin, firmware), 409, "image_changed")


def test_an_image_of_a_revoked_key_is_not_reinstated_until_it_is_signed_again(
    admin: PersonCaller,
) -> None:
    firmware = FirmwareFactory.create(deprecated=True)
    key = firmware.key
    key_rotation.rotate_signing_key(actor=admin.person)
    key_rotation.revoke_signing_key(
        actor=admin.person, key_id=key.key_id, reason="leaked"
    )

    problem_of(reinstate(admin, firmware), 409, "signature_revoked")

    key_rotation.sign_held_back(actor=admin.person)
    assert reinstate(admin, firmware).status_code == 200


# --- Deleting ----------------------------------------------------------------------


@pytest.fixture
def world(db: None) -> World:
    return World()


@pytest.fixture
def folder(settings: Any, tmp_path: Path) -> Path:
    settings.FIRMWARE_DIR = tmp_path
    return tmp_path


@pytest.mark.parametrize("state", ["draft", "rejected"])
def test_what_was_never_approved_is_deleted_with_its_image(
    admin: PersonCaller,
    folder: Path,
    state: str,
    django_capture_on_commit_callbacks: Any,
) -> None:
    firmware = FirmwareFactory.create(**({} if state == "draft" else {state: True}))
    assert Path(image_store().path(firmware.storage_name)).exists()

    with django_capture_on_commit_callbacks(execute=True):
        response = admin.delete(f"/firmware/{firmware.pk}")

    assert response.status_code == 204
    problem_of(admin.get(f"/firmware/{firmware.pk}"), 404)
    assert list(folder.glob("images/*")) == []
    assert not WrappedKey.objects.filter(storage_name=firmware.storage_name).exists()
    event = AuditEvent.objects.get(verb="firmware.deleted")
    assert event.actor == admin.person.pseudonym
    assert event.details["version"] == firmware.version
    assert event.details["sha256"] == firmware.sha256


def test_a_deleted_version_may_be_uploaded_with_other_bytes(
    admin: PersonCaller, folder: Path
) -> None:
    FirmwareFactory.create(model_name="sensor-v1", version="1.0.0")
    admin.delete(f"/firmware/{Firmware.objects.get().pk}")

    assert upload(admin, b"the right image").status_code == 201


def test_later_signatures_go_with_the_firmware(
    admin: PersonCaller, folder: Path
) -> None:
    firmware = FirmwareFactory.create()
    key_rotation.rotate_signing_key(actor=admin.person)
    key_rotation.sign_missing()
    assert ImageSignature.objects.filter(firmware=firmware).exists()

    assert admin.delete(f"/firmware/{firmware.pk}").status_code == 204

    assert not ImageSignature.objects.exists()


@pytest.mark.parametrize("state", ["approved", "deprecated"])
def test_what_was_approved_once_is_not_deleted(admin: PersonCaller, state: str) -> None:
    firmware = FirmwareFactory.create(**{state: True})

    problem_of(admin.delete(f"/firmware/{firmware.pk}"), 409, "wrong_status")

    assert Firmware.objects.filter(pk=firmware.pk).exists()


def test_a_draft_that_a_device_runs_is_its_way_back_and_stays(
    admin: PersonCaller, world: World
) -> None:
    factory_image = world.image("1.0.0", approved=False)
    world.fleet(1, factory_image)

    response = admin.delete(f"/firmware/{factory_image.pk}")

    document = problem_of(response, 409, "firmware_in_use")
    assert "1 device runs it" in document["detail"]


def test_a_draft_that_a_deployment_leads_back_to_stays(
    admin: PersonCaller, world: World
) -> None:
    factory_image = world.image("1.0.0", approved=False)
    world.fleet(1, factory_image)
    world.launch(world.image("2.0.0"))
    world.update_offered()

    response = admin.delete(f"/firmware/{factory_image.pk}")

    document = problem_of(response, 409, "firmware_in_use")
    assert "leads back" in document["detail"]


def test_what_a_device_ran_long_ago_is_forgotten_by_its_history_alone(
    admin: PersonCaller, world: World
) -> None:
    draft = world.image("1.0.0", approved=False)
    (device,) = world.fleet(1, draft)
    device.runs = world.image("1.1.0")
    device.beat()

    assert admin.delete(f"/firmware/{draft.pk}").status_code == 204

    former = FirmwareRun.objects.get(version="1.0.0")
    assert (former.firmware_id, former.checksum) == (None, draft.sha256)


@pytest.mark.django_db(transaction=True)
def test_a_device_is_heard_while_the_image_that_it_reports_is_being_deleted() -> None:
    draft = FirmwareFactory.create()
    device = DeviceFactory.create(model_name=draft.model.name)

    def report() -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '20s'")
            record_running_firmware(
                device=device,
                version=draft.version,
                checksum=draft.sha256,
                now=timezone.now(),
            )
        finally:
            connection.close()

    with transaction.atomic():
        # As the deletion does.
        Firmware.objects.select_for_update().get(pk=draft.pk)
        thread = threading.Thread(target=report)
        thread.start()
        thread.join(60)
        has_waited = thread.is_alive()

    thread.join(60)
    assert not has_waited
    run = FirmwareRun.objects.get(device=device)
    assert (run.checksum, run.firmware_id) == (draft.sha256, None)
