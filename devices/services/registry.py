"""Registering and changing devices (FR-FW-002)."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from devices.choices import MAX_TAGS, RunKnowledge
from devices.exceptions import (
    AudienceChangesError,
    DeviceExistsError,
    DeviceNotFoundError,
    NoAlarmError,
    UnknownDevicesError,
)
from devices.models import Device
from devices.services import audiences
from devices.services.credentials import create_key, create_keys, end_keys
from devices.services.version_keys import SHARE_ORDER, share_version_orders
from firmware.exceptions import UnknownModelError
from firmware.models import DeviceModel
from firmware.services.device_models import device_model_named
from hotswap.common import audit
from hotswap.common.copying import copy_rows
from hotswap.common.errors import FieldError, HotSwapError, InvalidInputError
from hotswap.common.etags import check_match
from hotswap.common.models import User
from hotswap.common.pluralize import counted
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
        share_version_orders([model_name])
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
class StatedDevice:
    """What an owner says of a device, new or known; None where nothing is said.

    Attributes:
        keeps_other_tags: `tags` are to be set, and what else it is tagged with stays.
        firmware_version: counts for a new device alone; a known one tells by itself.
    """

    device_id: str
    model_name: str | None = None
    region: str | None = None
    tags: dict[str, str] | None = None
    metadata: dict[str, Any] | None = None
    enabled: bool | None = None
    firmware_version: str = ""
    keeps_other_tags: bool = False


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One difference, in the names of the API; None where there is nothing."""

    field: str
    before: Any
    after: Any


def register_devices(
    *, actor: User | None, devices: Sequence[StatedDevice], origin: dict[str, str]
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
    models = _models_named({each.model_name for each in devices})
    share_version_orders(each.model_name for each in devices)
    taken = set(
        Device.objects.filter(
            device_id__in=[each.device_id for each in devices]
        ).values_list("device_id", flat=True)
    )
    answers: list[str | HotSwapError] = []
    added: dict[int, UUID] = {}
    for number, each in enumerate(devices):
        answers.append("")
        if each.model_name is None:
            answers[number] = InvalidInputError(
                "model: a new device needs one", code="required"
            )
        elif each.model_name not in models:
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
            *("tags", "metadata", "enabled", "firmware_version"),
        ),
        (
            (
                added[number],
                devices[number].device_id,
                models[devices[number].model_name].pk,
                devices[number].region or settings.DEFAULT_REGION,
                devices[number].tags or {},
                devices[number].metadata or {},
                devices[number].enabled is not False,
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


def _models_named(names: set[str | None]) -> dict[str | None, DeviceModel]:
    return {model.name: model for model in DeviceModel.objects.filter(name__in=names)}


def locked_devices(names: Collection[str]) -> dict[str, Device]:
    """Return the devices of these names that there are, under their locks.

    They are locked by name, so that two of these never wait for each other.
    """
    devices = (
        Device.objects.select_for_update(of=("self",), no_key=True)
        .select_related("model")
        .filter(device_id__in=names)
        .order_by("device_id")
    )
    return {device.device_id: device for device in devices}


def change_devices(
    *,
    actor: User | None,
    stated: Sequence[StatedDevice],
    known: Mapping[str, Device],
    acknowledged: bool,
    origin: dict[str, str],
) -> list[list[FieldChange] | HotSwapError]:
    """Change many devices, each by itself, as `change_device` changes one.

    Call it in a transaction.

    Args:
        stated: what is said of each, no device twice.
        known: them all by name, under their locks.
        acknowledged: the caller knows that deployments to come reach other devices.
        origin: what changes them, for the audit trail: `{"import": id}`.

    Returns:
        For each device what was changed, or why nothing was.
    """
    models = _models_named({each.model_name for each in stated})
    answers: list[list[FieldChange] | HotSwapError] = []
    changed: dict[UUID, tuple[int, Device]] = {}
    for number, each in enumerate(stated):
        device = known[each.device_id]
        try:
            changes = apply_stated(device, each, models)
        except HotSwapError as error:
            answers.append(error)
            continue
        answers.append(changes)
        if changes:
            changed[device.pk] = number, device
    moved = _save_changed([device for _, device in changed.values()], acknowledged)
    for pk in moved:
        number, device = changed.pop(pk)
        answers[number] = AudienceChangesError(
            f"deployments to come would reach {device} or no longer reach it; import "
            "again with acknowledge=audience if that is meant"
        )
    audit.record_each(
        actor=actor,
        verb="device.changed",
        object_kind="device",
        details={
            pk: {"fields": _changed_columns(answers[number]), **origin}
            for pk, (number, _) in changed.items()
        },
        changed={pk: device for pk, (_, device) in changed.items()},
    )
    return answers


def tag_devices(
    *,
    actor: User,
    device_ids: Sequence[str],
    tags: dict[str, str],
    acknowledged: bool = False,
) -> int:
    """Set tags of some devices, of all or of none; their other tags stay.

    Returns:
        How many devices were changed: those with other tags before.

    Raises:
        UnknownDevicesError: names those that there are not.
        InvalidInputError: a device would have too many tags.
        AudienceChangesError: deployments to come would reach other devices, and the
            caller has not `acknowledged` that.
    """
    with transaction.atomic():
        known = locked_devices(device_ids)
        missing = [
            FieldError(f"/deviceIds/{number}", "unknown_device", f"no device {name!r}")
            for number, name in enumerate(device_ids)
            if name not in known
        ]
        if missing:
            raise UnknownDevicesError(
                f"{counted(len(missing), 'device is', 'devices are')} unknown",
                errors=missing,
            )
        answers = change_devices(
            actor=actor,
            stated=[
                StatedDevice(name, tags=tags, keeps_other_tags=True) for name in known
            ],
            known=known,
            acknowledged=acknowledged,
            origin={},
        )
        for answer in answers:
            if isinstance(answer, AudienceChangesError):
                raise AudienceChangesError(
                    "deployments to come would reach other devices"
                )
            if isinstance(answer, HotSwapError):
                raise answer
    return sum(1 for answer in answers if answer)


def _changed_columns(changes: list[FieldChange] | HotSwapError) -> list[str]:
    assert isinstance(changes, list)
    names = {change.field.partition(":")[0] for change in changes}
    return sorted("tags" if name == "tag" else name for name in names)


def apply_stated(
    device: Device, stated: StatedDevice, models: Mapping[str | None, DeviceModel]
) -> list[FieldChange]:
    """Set on a device what is said of it, without saving it."""
    changes = []
    if stated.model_name is not None and stated.model_name != device.model.name:
        if stated.model_name not in models:
            raise UnknownModelError(f"there is no device model {stated.model_name!r}")
        changes.append(FieldChange("model", device.model.name, stated.model_name))
        device.model = models[stated.model_name]
    if stated.region is not None and stated.region != device.region:
        changes.append(FieldChange("region", device.region, stated.region))
        device.region = stated.region
    if stated.enabled is not None and stated.enabled != device.enabled:
        changes.append(FieldChange("enabled", device.enabled, stated.enabled))
        device.enabled = stated.enabled
    if stated.tags is not None:
        tags = (device.tags if stated.keeps_other_tags else {}) | stated.tags
        if len(tags) > MAX_TAGS:
            raise InvalidInputError(
                f"tags: a device has {MAX_TAGS} tags at most", code="too_many"
            )
        changes += [
            FieldChange(f"tag:{name}", device.tags.get(name), tags.get(name))
            for name in sorted({*device.tags, *tags})
            if device.tags.get(name) != tags.get(name)
        ]
        device.tags = tags
    if stated.metadata is not None and _text_of(stated.metadata) != _text_of(
        device.metadata
    ):
        changes.append(FieldChange("metadata", device.metadata, stated.metadata))
        device.metadata = stated.metadata
    return changes


def _text_of(metadata: dict[str, Any]) -> str:
    # In Python 1 is True; in JSON it is not.
    return json.dumps(metadata, sort_keys=True)


def _save_changed(devices: list[Device], acknowledged: bool) -> frozenset[UUID]:
    """Save changed devices, but not those that deployments to come forbid.

    Returns:
        Those that were not saved: they would join or leave such a deployment, and the
        caller has not said to know.
    """
    if not devices:
        return frozenset()
    if acknowledged:
        _write_changed(devices)
        return frozenset()
    with transaction.atomic():
        affected = audiences.changed_by_devices(
            [device.pk for device in devices], lambda: _write_changed(devices)
        )
        moved = frozenset[UUID]().union(*(change.moved for change in affected))
        if moved:
            transaction.set_rollback(True)
    if moved:
        _write_changed([device for device in devices if device.pk not in moved])
    return moved


def _write_changed(devices: list[Device]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE devices_device AS d SET
                model_id = new.model_id, region = new.region, enabled = new.enabled,
                tags = new.tags::jsonb, metadata = new.metadata::jsonb,
                updated_at = %s
            FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::bool[], %s::text[],
                        %s::text[])
                AS new (id, model_id, region, enabled, tags, metadata)
            WHERE d.id = new.id
            """,
            [
                timezone.now(),
                [device.pk for device in devices],
                [device.model_id for device in devices],
                [device.region for device in devices],
                [device.enabled for device in devices],
                [json.dumps(device.tags) for device in devices],
                [json.dumps(device.metadata) for device in devices],
            ],
        )


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
        if "model" in fields:
            share_version_orders([fields["model"].name])
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
            audiences.require_acknowledgement(affected, acknowledged=acknowledged)
        audit.record(
            actor=actor,
            verb="device.changed",
            object_kind="device",
            object_id=device.pk,
            details={"fields": sorted(changed)},
            changed=device,
        )
    return DeviceChange(device, affected)


def revoke_device(*, actor: User, device_id: str, reason: str = "") -> Device:
    """Shut a device out of every route, at once and until it is registered anew.

    One that is shut out already stays so, for the reason that was given first.
    """
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
                details={"reason": reason},
                changed=device,
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
        raised_at = device.alarm_at
        device.alarm_at = None
        device.alarm_address = None
        device.save(update_fields=["alarm_at", "alarm_address"])
        audit.record(
            actor=actor,
            verb="device.alarm-acknowledged",
            object_kind="device",
            object_id=device.pk,
            details={"raisedAt": raised_at, "comment": comment},
            changed=device,
        )
    return device


# The device and its history by one statement. The device says what it runs, so it must
# not be able to fill the table.
NOTE_RUN = f"""
    WITH told AS (
        UPDATE devices_device
        SET firmware_version = %(version)s, firmware_checksum = %(checksum)s,
            -- What it ran before that, and not only tried.
            previous_firmware_version = COALESCE((
                SELECT r.version FROM devices_firmwarerun r
                WHERE r.device_id = %(device)s AND r.checksum <> %(checksum)s::varchar
                  AND r.how <> 'tried' AND (r.until IS NOT NULL OR NOT %(is_trial)s)
                ORDER BY r.id DESC LIMIT 1
            ), '')
        WHERE id = %(device)s
          -- Before its row is taken.
          AND (SELECT {SHARE_ORDER} IS NOT NULL)
        RETURNING id
    ), ended AS (
        UPDATE devices_firmwarerun
        SET until = %(now)s, how = CASE WHEN %(is_trial)s THEN 'tried' ELSE how END
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
                -- One that is being deleted is as good as gone.
                FOR KEY SHARE SKIP LOCKED
            ), %(now)s, %(how)s
        -- After the open one has ended: there may be one only.
        FROM (SELECT count(*) FROM ended) AS done
    )
    DELETE FROM devices_firmwarerun WHERE device_id = %(device)s AND id < (
        SELECT id FROM devices_firmwarerun WHERE device_id = %(device)s
        ORDER BY id DESC OFFSET %(others)s - 1 LIMIT 1
    )
"""  # noqa: S608


def record_running_firmware(
    *, device: Device, version: str, checksum: str, now: datetime
) -> bool:
    """Write down what a device says that it runs; tell whether that is a change.

    Call it in the transaction of the report. A change is told to the deployments app
    through the hook of the settings.
    """
    if device.firmware_checksum == checksum and device.firmware_version == version:
        return False
    # An image that was ordered and left without a proof was only tried.
    is_trial = bool(
        device.firmware_checksum and device.firmware_checksum != checksum
    ) and import_string(settings.UNPROVED_IMAGE_HOOK)(
        device_id=device.pk, checksum=device.firmware_checksum
    )
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
                "is_trial": is_trial,
                "now": now,
                "how": RunKnowledge.REPORTED.value,
                # Beside the one that is written by the same statement.
                "others": RUNS_KEPT - 1,
            },
        )
    import_string(settings.RUNNING_FIRMWARE_CHANGED_HOOK)(device=device, now=now)
    return True
