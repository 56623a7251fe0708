"""Notifications of what waits for a person: enrolments, credentials, damaged images."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from deployments.models import MailRecipient, Notification
from deployments.notifications.texts import short_of, subject_of, text_of
from deployments.services.receivers import create_receiver
from devices.models import Device, DeviceCertificate, DeviceKey, EnrolmentRequest
from devices.services.alarms import (
    announce_expiring_certificates,
    announce_expiring_keys,
)
from devices.services.certificates import remove_certificate
from devices.services.enrolment import (
    REMINDER_PAUSE,
    Applicant,
    announce_waiting,
    enrol_device,
    reject_enrolment,
)
from devices.services.erasure import erase_device
from firmware.choices import KeyStatus
from firmware.models import Firmware, SigningKey
from firmware.services.damage import note_damage
from firmware.services.key_rotation import rotate_signing_key, tend
from firmware.services.keys import ensure_firmware_keys
from hotswap.common.models import AuditEvent, User
from tests.common.factories import PersonFactory
from tests.deployments.test_documented_events import EXAMPLES, shape
from tests.devices.factories import DeviceFactory, EnrolmentTokenFactory, value_of
from tests.devices.retired import ADDRESS, use_retired_key
from tests.firmware.factories import DeviceModelFactory, FirmwareFactory

NOW = timezone.now()


@pytest.fixture
def admin(db: None) -> User:
    """An administrator; one mail recipient is sent what needs a person."""
    person: User = PersonFactory.create(admin=True)
    create_receiver(kind=MailRecipient, actor=person, address="ops@example.com")
    return person


def told(event: str) -> list[dict[str, Any]]:
    """Return the notifications of an event, each of the documented shape."""
    payloads = [
        each.payload
        for each in Notification.objects.filter(type=event).order_by("at", "pk")
    ]
    for each in payloads:
        assert shape(each) == shape(EXAMPLES[event])
    return payloads


def messages(event: str) -> list[str]:
    return [each["data"]["message"] for each in told(event)]


# --- Enrolments --------------------------------------------------------------------


def ask(name: str, **token: Any) -> None:
    DeviceModelFactory.create(name="sensor-v1")
    applicant = Applicant(name, "sensor-v1", secret=name.ljust(40, "s"))
    enrol_device(
        enrolment_token=value_of(EnrolmentTokenFactory.create(**token)),
        applicant=applicant,
        now=NOW,
    )


def test_a_device_that_waits_is_told_of_once(admin: User, settings: Any) -> None:
    settings.PUBLIC_URL = "https://updates.example.com"
    ask("pump-1")

    assert [announce_waiting(now=NOW) for _ in range(2)] == [1, 0]

    (payload,) = told("enrolment.waiting")
    assert payload["data"]["devices"] == [
        {"id": "pump-1", "model": "sensor-v1", "region": "US-EAST"}
    ]
    page = "https://updates.example.com/admin/devices/enrolmentrequest/?status=Pending"
    assert page in text_of(payload)
    assert short_of(payload) == f"pump-1 (sensor-v1) waits to be enrolled\n{page}"
    assert subject_of(payload) == "[HotSwap] Devices wait to be enrolled"


def test_devices_that_join_one_that_waits_are_told_of_together_later(
    admin: User,
) -> None:
    ask("pump-1")
    announce_waiting(now=NOW)
    ask("pump-2")
    ask("pump-3")

    assert announce_waiting(now=NOW + REMINDER_PAUSE - timedelta(seconds=1)) == 0
    assert announce_waiting(now=NOW + REMINDER_PAUSE) == 2

    assert messages("enrolment.waiting") == [
        "pump-1 (sensor-v1) waits to be enrolled",
        "2 devices wait to be enrolled",
    ]


def test_the_next_device_after_a_decision_is_told_of_at_once(admin: User) -> None:
    ask("pump-1")
    announce_waiting(now=NOW)
    waiting = EnrolmentRequest.objects.get(device_id="pump-1")
    reject_enrolment(actor=admin, enrolment_id=waiting.pk)
    ask("pump-2")

    assert announce_waiting(now=NOW + timedelta(seconds=10)) == 1


def test_a_device_that_nobody_needs_to_approve_is_not_told_of(admin: User) -> None:
    ask("pump-1", needs_approval=False)

    assert announce_waiting(now=NOW) == 0

    assert told("enrolment.waiting") == []


def test_of_many_that_wait_the_first_are_named_and_all_are_counted(
    admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.services.enrolment.NAMED", 2)
    for number in range(3):
        ask(f"pump-{number}")

    announce_waiting(now=NOW)

    (payload,) = told("enrolment.waiting")
    assert payload["data"]["total"] == 3
    assert len(payload["data"]["devices"]) == 2


# --- Credentials -------------------------------------------------------------------


def test_keys_that_expire_are_told_of_with_the_first_to_end(admin: User) -> None:
    for name, days in (("later", 3), ("sooner", 2), ("lasting", 30)):
        device = DeviceFactory.create(device_id=name)
        DeviceKey.objects.filter(device=device).update(
            expires_at=NOW + timedelta(days=days)
        )

    announce_expiring_keys(now=NOW)
    announce_expiring_keys(now=NOW)

    (payload,) = told("device.key_expiring")
    ends = [f"{NOW + timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}" for days in (2, 3)]
    assert payload["data"] == {
        "message": f"the API keys of 2 devices expire soon, the first at {ends[0]}",
        "devices": [
            {"id": "sooner", "expiresAt": ends[0]},
            {"id": "later", "expiresAt": ends[1]},
        ],
        "total": 2,
    }


def certify(device: Device, days: int) -> None:
    DeviceCertificate.objects.create(
        device=device,
        fingerprint=f"{device.device_id} {days}",
        subject="CN=a device",
        not_before=NOW - timedelta(days=30),
        not_after=NOW + timedelta(days=days),
    )


def test_the_last_certificate_of_a_device_is_told_of_once(admin: User) -> None:
    followed, ending, revoked = (
        DeviceFactory.create(device_id=name) for name in ("followed", "ending", "gone")
    )
    for device, days in ((followed, 3), (followed, 40), (ending, 3), (ending, 5)):
        certify(device, days)
    certify(revoked, 3)
    Device.objects.filter(pk=revoked.pk).update(revoked_at=NOW)

    assert [announce_expiring_certificates(now=NOW) for _ in range(2)] == [1, 0]

    end = f"{NOW + timedelta(days=5):%Y-%m-%dT%H:%M:%SZ}"
    assert messages("device.certificate_expiring") == [
        f"the client certificate of ending expires at {end}"
    ]
    (event,) = AuditEvent.objects.filter(verb="device.certificate-expiring")
    assert (event.object_id, event.details) == (str(ending.pk), {"expiresAt": end})


def test_one_that_was_outlasted_is_told_of_when_the_longer_one_is_removed(
    admin: User,
) -> None:
    device = DeviceFactory.create(device_id="pump-1")
    for days in (2, 3, 40):
        certify(device, days)
    assert announce_expiring_certificates(now=NOW) == 0

    remove_certificate(actor=admin, device_id="pump-1", fingerprint="pump-1 40")

    assert [announce_expiring_certificates(now=NOW) for _ in range(2)] == [1, 0]
    end = f"{NOW + timedelta(days=3):%Y-%m-%dT%H:%M:%SZ}"
    assert messages("device.certificate_expiring") == [
        f"the client certificate of pump-1 expires at {end}"
    ]


def test_one_that_was_told_of_is_not_told_of_again_when_a_shorter_one_is_removed(
    admin: User,
) -> None:
    device = DeviceFactory.create(device_id="pump-1")
    for days in (2, 3):
        certify(device, days)
    assert announce_expiring_certificates(now=NOW) == 1

    remove_certificate(actor=admin, device_id="pump-1", fingerprint="pump-1 2")

    assert announce_expiring_certificates(now=NOW) == 0


def test_many_certificates_are_told_of_in_batches(
    admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.services.alarms.SWEEP_BATCH", 2)
    for _ in range(5):
        certify(DeviceFactory.create(), 3)

    assert announce_expiring_certificates(now=NOW) == 5

    totals = [each["data"]["total"] for each in told("device.certificate_expiring")]
    assert sum(totals) == 5


def test_the_use_of_a_retired_key_is_told_with_its_address(admin: User) -> None:
    device = DeviceFactory.create(device_id="pump-1")

    use_retired_key(device)

    assert messages("device.retired_key_used") == [
        f"a retired API key of pump-1 was used from {ADDRESS}"
    ]


def test_the_name_of_an_erased_device_is_gone_from_them(admin: User) -> None:
    device = DeviceFactory.create(device_id="pump-of-anna")
    use_retired_key(device)

    erase_device(actor=admin, device_id="pump-of-anna")

    (payload,) = told("device.retired_key_used")
    assert "pump-of-anna" not in str(payload)


def test_a_rotated_signing_key_that_ends_soon_is_told_of_once(
    admin: User, settings: Any
) -> None:
    settings.PUBLIC_URL = "https://updates.example.com"
    ensure_firmware_keys()
    rotate_signing_key(actor=admin, overlap=timedelta(days=90))
    former = SigningKey.objects.get(status=KeyStatus.RETIRING)
    assert former.not_after is not None
    near = former.not_after - timedelta(days=14)

    tend(now=near - timedelta(seconds=1))
    assert told("signing_key.expiring") == []
    for _ in range(2):
        tend(now=near)

    (payload,) = told("signing_key.expiring")
    end = f"{former.not_after:%Y-%m-%dT%H:%M:%SZ}"
    assert payload["data"]["signingKey"] == {"id": former.key_id, "expiresAt": end}
    assert f"{former.key_id} is trusted until {end}" in text_of(payload)
    page = "https://updates.example.com/admin/firmware/signingkey/"
    assert page in short_of(payload)
    (event,) = AuditEvent.objects.filter(verb="signing-key.expiring")
    assert event.object_id == former.key_id
    assert event.actor is None


# --- Images ------------------------------------------------------------------------


def test_a_damaged_image_is_told_of_once(admin: User) -> None:
    firmware: Firmware = FirmwareFactory.create(approved=True)

    for _ in range(2):
        note_damage(firmware, "the stored file is gone")

    assert messages("firmware.damaged") == [
        f"the stored image of {firmware} is damaged: the stored file is gone"
    ]
