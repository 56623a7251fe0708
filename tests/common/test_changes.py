"""What the audit trail has of a change: before and after, no secret, nobody's name."""

import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from deployments.models import Deployment, Gateway, MailRecipient, Webhook
from deployments.services import operate
from deployments.services.receivers import change_receiver, create_webhook
from devices.models import Device, DeviceGroup, EnrolmentToken
from devices.services.groups import change_group
from devices.services.registry import change_device, revoke_device, tag_devices
from firmware.models import DeviceModel, Firmware, SigningKey, StorageKey
from firmware.services.approval import approve_firmware, change_release_notes
from firmware.services.device_models import change_device_model
from firmware.services.key_rotation import create_signing_key, retire_signing_key
from hotswap.common import people
from hotswap.common.changes import Tracked, take_changes
from hotswap.common.models import AuditEvent, User
from hotswap.common.roles import Role
from tests.common.factories import PersonFactory
from tests.deployments.world import World
from tests.devices.factories import DeviceFactory, GroupFactory
from tests.firmware.factories import DeviceModelFactory, FirmwareFactory

pytestmark = pytest.mark.django_db

ROWS = {"id", "created_at", "updated_at"}
# Neither told nor withheld: identities, what never changes, secrets, what the server
# counts or derives, and texts that the erasure of a device has to reach.
UNTOLD: dict[type[Tracked], set[str]] = {
    User: {
        *("id", "password", "last_login", "is_superuser", "username", "first_name"),
        *("last_name", "is_staff", "date_joined", "pseudonym", "name_salt", "email"),
        "password_set_at",
    },
    Firmware: {
        *("model", "version", "precedence", "size", "sha256", "sha1", "md5"),
        *("signature", "key", "storage_name", "security_version", "reboot_required"),
        *("uploaded_by", "request_comment"),
    },
    DeviceModel: set(),
    SigningKey: {
        *("key_id", "algorithm", "public_key", "sealed_private_key"),
        "expiry_told_at",
    },
    StorageKey: {"key_id", "sealed_key"},
    Device: {
        *("device_id", "firmware_version", "version_key", "firmware_checksum"),
        *("previous_firmware_version", "security_version", "erased_at"),
    },
    DeviceGroup: set(),
    EnrolmentToken: {"digest", "uses", "created_by"},
    Deployment: {
        *("pause_detail", "paused_at", "rollback_reason", "failure_reason"),
        *("open_rank", "target_count", "matched_count", "waiting_for"),
        *("next_check_at", "created_by", "copied_from", "started_at", "turn"),
        *("resumed_at", "rollback_started_at", "finished_at", "watching_until"),
        *("traceparent", "parent_span", "creation_time", "traced_until"),
    },
    Webhook: {"previous_sealed_secret", "previous_secret_until"},
    MailRecipient: set(),
    Gateway: {"scheme"},
}


# What the receivers have one of each, by their channel.
OF_OTHER_CHANNELS = {"url", "address", "sealed_url", "sealed_secret"}


@pytest.fixture
def admin() -> User:
    return PersonFactory.create(admin=True)


def last_row() -> AuditEvent:
    return AuditEvent.objects.latest("id")


def changes() -> Any:
    return last_row().details["changes"]


@pytest.mark.parametrize("model", UNTOLD)
def test_every_field_is_told_withheld_or_left_out_on_purpose(
    model: type[Tracked],
) -> None:
    fields = {field.name for field in model._meta.concrete_fields} - ROWS
    said = model.audited_fields | model.withheld_fields

    assert not model.audited_fields & model.withheld_fields
    assert fields - said == UNTOLD[model] - ROWS
    assert said - fields <= OF_OTHER_CHANNELS
    secret = {"password", "name_salt", "digest"}
    assert not {
        x for x in model.audited_fields if x in secret or x.startswith("sealed")
    }


def test_a_device_tells_values_and_of_tags_only_which(admin: User) -> None:
    DeviceModelFactory.create(name="sensor-v2")
    device = DeviceFactory.create(
        region="EU-WEST", tags={"owner": "Anna Weber", "site": "1"}
    )
    new = {
        "region": "US-EAST",
        "model_name": "sensor-v2",
        "tags": {"owner": "Eva Lang", "site": "1"},
        "metadata": {"phone": "+49 30 1"},
    }

    change_device(actor=admin, device_id=device.device_id, changes=new)

    assert changes() == {
        "region": {"from": "EU-WEST", "to": "US-EAST"},
        "model": {"from": device.model.name, "to": "sensor-v2"},
        "tags": {"withheld": ["owner"]},
        "metadata": {"withheld": ["phone"]},
    }
    kept = json.dumps(last_row().details)
    assert not [word for word in ("Anna", "Eva", "+49") if word in kept]


def test_many_devices_tell_each_its_own(admin: User) -> None:
    first = DeviceFactory.create(tags={"site": "1"})
    second = DeviceFactory.create(tags={})

    tag_devices(
        actor=admin,
        device_ids=[first.device_id, second.device_id],
        tags={"site": "1", "line": "7"},
    )

    rows = AuditEvent.objects.filter(verb="device.changed")
    told = {row.object_id: row.details["changes"] for row in rows}
    assert told == {
        str(first.pk): {"tags": {"withheld": ["line"]}},
        str(second.pk): {"tags": {"withheld": ["line", "site"]}},
    }


def test_a_revocation_tells_since_when(admin: User) -> None:
    device = DeviceFactory.create()

    revoked = revoke_device(actor=admin, device_id=device.device_id, reason="stolen")

    assert revoked.revoked_at is not None
    at = f"{revoked.revoked_at:%Y-%m-%dT%H:%M:%S.%fZ}"
    assert changes() == {"revokedAt": {"from": None, "to": at}}


def test_a_group_tells_the_parts_of_its_rule(admin: User) -> None:
    group = GroupFactory.create(name="lab", description="old")

    change_group(actor=admin, group_id=group.pk, name="lab", description="new")

    assert changes() == {"description": {"from": "old", "to": "new"}}


def test_a_device_model_tells_its_description(admin: User) -> None:
    model = DeviceModelFactory.create(name="with-words")

    change_device_model(
        actor=admin, model_id=model.pk, changes={"description": "of the hall"}
    )

    assert changes() == {"description": {"from": "", "to": "of the hall"}}


def test_an_approval_names_the_approver_by_pseudonym(admin: User) -> None:
    draft = FirmwareFactory.create()

    approve_firmware(actor=admin, firmware_id=draft.pk, comment="fine")

    told = changes()
    assert told["status"] == {"from": "Draft", "to": "Approved"}
    assert told["approvedBy"] == {"from": None, "to": str(admin.pseudonym)}
    assert told["approvedSha256"] == {"from": "", "to": draft.sha256}


def test_of_a_long_text_the_digest_is_told(admin: User) -> None:
    draft, notes = FirmwareFactory.create(), "a long story " * 100

    change_release_notes(actor=admin, firmware_id=draft.pk, release_notes=notes)

    digest = hashlib.sha256(notes.encode()).hexdigest()
    assert changes() == {"releaseNotes": {"from": "", "to": {"sha256": digest}}}


def test_a_key_tells_its_status_and_no_secret(admin: User) -> None:
    key = create_signing_key(actor=admin)

    retire_signing_key(actor=admin, key_id=key.key_id)

    assert changes()["status"] == {"from": "Next", "to": "Retired"}
    assert set(changes()) <= {"status", "notAfter"}


def test_a_person_tells_no_address(admin: User) -> None:
    person = PersonFactory.create(email="ada@example.com")

    people.change_person(
        actor=admin, user_id=person.pk, role=Role.VIEWER, email="eva@example.com"
    )
    assert last_row().details == {"email": "changed"}
    people.set_person_active(actor=admin, user_id=person.pk, is_active=False)
    assert changes() == {"isActive": {"from": True, "to": False}}

    assert "example.com" not in json.dumps(last_row().details)


def test_a_channel_tells_its_events_and_no_address(admin: User) -> None:
    webhook, _ = create_webhook(actor=admin, url="https://8.8.8.8/secret-path")

    change_receiver(
        actor=admin,
        kind=Webhook,
        receiver_id=webhook.pk,
        changes={"events": ["deployment.started"], "url": "https://8.8.8.8/other"},
    )

    assert changes() == {
        "events": {"from": [], "to": ["deployment.started"]},
        "url": {"withheld": []},
    }
    assert "8.8.8.8" not in json.dumps(last_row().details["changes"])


def test_a_deployment_tells_its_status_once() -> None:
    world = World()
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(4, old)
    deployment = world.launch(new, "Canary")

    def told_of(verb: str) -> Any:
        row = AuditEvent.objects.filter(object_id=str(deployment.pk), verb=verb)
        return row.latest("id").details.get("changes", {})

    for operate_on in (operate.pause_deployment, operate.resume_deployment):
        operate_on(
            actor=world.admin, deployment_id=deployment.pk, reason="x", now=world.now
        )

    assert told_of("deployment.paused") == {
        "status": {"from": "Running", "to": "Paused"},
        "pauseReasons": {"from": [], "to": ["operator"]},
    }
    assert told_of("deployment.resumed") == {
        "status": {"from": "Paused", "to": "Running"},
        "pauseReasons": {"from": ["operator"], "to": []},
    }


def test_a_row_that_is_read_anew_tells_nothing_of_others() -> None:
    device = DeviceFactory.create(region="EU-WEST")
    held = Device.objects.get(pk=device.pk)
    Device.objects.filter(pk=device.pk).update(
        region="US-EAST", updated_at=timezone.now() + timedelta(seconds=1)
    )

    held.refresh_from_db()

    assert held.loaded_values()["region"] == "US-EAST"


def test_a_field_that_is_read_later_leaves_the_other_changes(admin: User) -> None:
    device = DeviceFactory.create(region="EU-WEST", tags={"site": "1"})
    held = Device.objects.defer("tags").get(pk=device.pk)
    held.region = "US-EAST"

    held.tags = {**held.tags, "line": "7"}

    assert take_changes([held]) == [
        {
            "region": {"from": "EU-WEST", "to": "US-EAST"},
            "tags": {"withheld": ["line"]},
        }
    ]
