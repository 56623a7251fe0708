"""Registering and changing devices (FR-FW-002)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from devices.choices import RunKnowledge
from devices.exceptions import DeviceExistsError, DeviceNotFoundError, NoAlarmError
from devices.models import Device
from devices.services import audiences
from devices.services.credentials import create_key, create_keys, end_keys
from firmware.exceptions import UnknownModelError
from firmware.models import DeviceModel
from firmware.services.registry import device_model_named
from hotswap.common import audit
from hotswap.common.api.etags import check_match
from hotswap.common.copying import copy_rows
from hotswap.common.errors import HotSwapError
from hotswap.common.models import User
from hotswap.common.rows import prepared_cursor

logger = logging.getLogger(__name__)
RUNS_KEPT = 200
# What rules, regions and models of deployments look at.
AUDIENCE_FIELDS = frozenset({"model", "region", "tags"})


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """A changed device, and the deployments to come that it joined or left by that."""

    device: Device
    affected: tuple[audiences.AudienceChange, ...] = ()


def register_device(
    *,
    actor: User | None,
    device_id: str,
    model_name: str,
    region: str | None = None,
    tags: dict[str, str] | None = None,
    metadata: dict[str, Any] | None = None,
    firmware_version: str = "",
    origin: dict[str, str] | None = None,
) -> tuple[Device, str]:
    """Add a device and make its first API key.

    Args:
        origin: what let it in, for the audit trail: `{"enrolment": id}`.

    Returns:
        The device and its key, which is not kept and cannot be read again.

    Raises:
        UnknownModelError: the model is not in the catalogue (422).
        DeviceExistsError: the name is taken (409).

    Source: FR-FW-002.
    """
    model = device_model_named(model_name)
    with transaction.atomic():
        device, is_new = Device.objects.get_or_create(
            device_id=device_id,
            defaults={
                "model": model,
                "region": region or settings.DEFAULT_REGION,
                "tags": tags or {},
                "metadata": metadata or {},
                "firmware_version": firmware_version,
            },
        )
        if not is_new:
            raise DeviceExistsError(f"there is a device {device_id!r} already")
        api_key = create_key(device, now=timezone.now())
        audit.record(
            actor=actor,
            verb="device.registered",
            object_kind="device",
            object_id=device.pk,
            details={"model": model_name, "region": device.region, **(origin or {})},
        )
    return device, api_key


@dataclass(frozen=True, slots=True)
class NewDevice:
    """What is said of a device that is to be registered."""

    device_id: str
    model_name: str
    region: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    firmware_version: str = ""


def register_devices(
    *, actor: User | None, devices: Sequence[NewDevice], origin: dict[str, str]
) -> list[str | HotSwapError]:
    """Add many devices, each by itself, as `register_device` adds one.

    Call it in a transaction. Of two with one id, the first that can be is added.

    Args:
        origin: what let them in, for the audit trail: `{"import": id}`.

    Returns:
        For each device its key, or why it was not added.

    Raises:
        IntegrityError: one of the names was taken at the same time; nothing was
            added, and another try finds it taken.
    """
    models = dict(
        DeviceModel.objects.filter(
            name__in={each.model_name for each in devices}
        ).values_list("name", "pk")
    )
    taken = set(
        Device.objects.filter(
            device_id__in=[each.device_id for each in devices]
        ).values_list("device_id", flat=True)
    )
    answers: list[str | HotSwapError] = []
    added: dict[int, UUID] = {}
    for number, each in enumerate(devices):
        answers.append("")
        if each.model_name not in models:
            answers[number] = UnknownModelError(
                f"there is no device model {each.model_name!r}"
            )
        elif each.device_id in taken:
            answers[number] = DeviceExistsError(
                f"there is a device {each.device_id!r} already"
            )
        else:
            taken.add(each.device_id)
            added[number] = uuid4()
    copy_rows(
        Device,
        (
            *("id", "device_id", "model_id", "region"),
            *("tags", "metadata", "firmware_version"),
        ),
        (
            (
                added[number],
                devices[number].device_id,
                models[devices[number].model_name],
                devices[number].region or settings.DEFAULT_REGION,
                devices[number].tags,
                devices[number].metadata,
                devices[number].firmware_version,
            )
            # By name, so that two of these never wait for each other.
            for number in sorted(added, key=lambda number: devices[number].device_id)
        ),
    )
    keys = create_keys(list(added.values()), now=timezone.now())
    for number, key in zip(added, keys, strict=True):
        answers[number] = key
    audit.record_each(
        actor=actor,
        verb="device.registered",
        object_kind="device",
        details={
            pk: {
                "model": devices[number].model_name,
                "region": devices[number].region or settings.DEFAULT_REGION,
                **origin,
            }
            for number, pk in added.items()
        },
    )
    return answers


def locked_device(device_id: str) -> Device:
    """Return a device under its lock.

    Raises:
        DeviceNotFoundError: there is none of that name.
    """
    device = (
        Device.objects.select_for_update(of=("self",), no_key=True)
        .select_related("model")
        .filter(device_id=device_id)
        .first()
    )
    if device is None:
        raise DeviceNotFoundError(f"there is no device {device_id!r}")
    return device


def change_device(
    *,
    actor: User,
    device_id: str,
    changes: dict[str, Any],
    expected: frozenset[str] | None = None,
    acknowledged: bool = False,
) -> DeviceChange:
    """Change the named fields of a device and write down which.

    Args:
        changes: any of `model_name`, `region`, `tags`, `metadata`, `enabled`.
        acknowledged: the caller knows that deployments to come reach other devices.

    Raises:
        DeviceNotFoundError, UnknownModelError, PreconditionFailedError.
        AudienceChangesError: they would, and the caller has not said so.
    """
    fields = dict(changes)
    if "model_name" in fields:
        fields["model"] = device_model_named(fields.pop("model_name"))
    with transaction.atomic():
        device = locked_device(device_id)
        check_match(device, expected)
        changed = [name for name in fields if getattr(device, name) != fields[name]]
        if not changed:
            return DeviceChange(device)

        def apply() -> None:
            for name in changed:
                setattr(device, name, fields[name])
            device.updated_at = timezone.now()
            device.save(update_fields=[*changed, "updated_at"])

        affected: tuple[audiences.AudienceChange, ...] = ()
        if AUDIENCE_FIELDS.isdisjoint(changed):
            apply()
        else:
            affected = audiences.changed_by_device(device, apply)
            audiences.refuse_unawares(affected, acknowledged=acknowledged)
        audit.record(
            actor=actor,
            verb="device.changed",
            object_kind="device",
            object_id=device.pk,
            details={"fields": sorted(changed)},
        )
    return DeviceChange(device, affected)


def revoke_device(*, actor: User, device_id: str) -> Device:
    """Shut a device out of every route, at once and until it is registered anew."""
    with transaction.atomic():
        device = locked_device(device_id)
        if device.revoked_at is None:
            device.revoked_at = timezone.now()
            device.updated_at = device.revoked_at
            device.save(update_fields=["revoked_at", "updated_at"])
            end_keys(device, now=device.revoked_at)
            audit.record(
                actor=actor,
                verb="device.revoked",
                object_kind="device",
                object_id=device.pk,
            )
    return device


def acknowledge_alarm(*, actor: User, device_id: str, comment: str = "") -> Device:
    """Take the alarm of a device away: a person has looked into it.

    Raises:
        DeviceNotFoundError: there is no such device.
        NoAlarmError: there is no alarm, or another person was first.
    """
    with transaction.atomic():
        device = locked_device(device_id)
        if device.alarm_at is None:
            raise NoAlarmError(f"{device_id} has no alarm")
        audit.record(
            actor=actor,
            verb="device.alarm-acknowledged",
            object_kind="device",
            object_id=device.pk,
            details={"raisedAt": device.alarm_at, "comment": comment},
        )
        device.alarm_at = None
        device.alarm_address = None
        device.save(update_fields=["alarm_at", "alarm_address"])
    return device


# The device and its history by one statement. The device says what it runs, so it must
# not be able to fill the table.
NOTE_RUN = """
    WITH told AS (
        UPDATE devices_device
        SET firmware_version = %(version)s, firmware_checksum = %(checksum)s,
            previous_firmware_version = %(previous)s
        WHERE id = %(device)s
        RETURNING id
    ), ended AS (
        UPDATE devices_firmwarerun SET until = %(now)s
        WHERE device_id = %(device)s AND until IS NULL
          -- The row of the device first, as whoever proves it takes them.
          AND (SELECT count(*) FROM told) >= 0
        RETURNING id
    ), begun AS (
        INSERT INTO devices_firmwarerun
            (device_id, version, checksum, firmware_id, since, how)
        SELECT %(device)s, %(version)s, %(checksum)s, (
                SELECT f.id FROM firmware_firmware f
                WHERE f.model_id = %(model)s AND f.sha256 = %(checksum)s
                  AND f.status <> 'Absent'
                -- The bytes tell the image; of several with the same, what it says.
                ORDER BY f.version <> %(version)s, f.id LIMIT 1
            ), %(now)s, %(how)s
        -- After the open one has ended: there may be one only.
        FROM (SELECT count(*) FROM ended) AS done
    )
    DELETE FROM devices_firmwarerun WHERE device_id = %(device)s AND id < (
        SELECT id FROM devices_firmwarerun WHERE device_id = %(device)s
        ORDER BY id DESC OFFSET %(others)s - 1 LIMIT 1
    )
"""


def record_running_firmware(
    *, device: Device, version: str, checksum: str, now: datetime
) -> bool:
    """Write down what a device says that it runs; tell whether that is a change.

    Call it in the transaction of the report. A change is told to the deployments app
    through the hook of the settings.
    """
    if device.firmware_checksum == checksum and device.firmware_version == version:
        return False
    previous = device.firmware_version
    if device.firmware_checksum and device.firmware_checksum != checksum:
        device.previous_firmware_version = previous
    device.firmware_version = version
    device.firmware_checksum = checksum
    with prepared_cursor() as cursor:
        cursor.execute(
            NOTE_RUN,
            {
                "device": device.pk,
                "model": device.model_id,
                "version": version,
                "checksum": checksum,
                "previous": device.previous_firmware_version,
                "now": now,
                "how": RunKnowledge.REPORTED.value,
                # Beside the one that is written by the same statement.
                "others": RUNS_KEPT - 1,
            },
        )
    import_string(settings.RUNNING_FIRMWARE_CHANGED_HOOK)(device=device, now=now)
    return True
