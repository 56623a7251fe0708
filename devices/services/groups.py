"""Static groups (FR-FW-008)."""

from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from devices.exceptions import (
    GroupExistsError,
    GroupNotFoundError,
    UnknownDevicesError,
)
from devices.models import Device, DeviceGroup, GroupMembership
from hotswap.common import audit
from hotswap.common.api.etags import check_match
from hotswap.common.errors import FieldError
from hotswap.common.models import User


def create_group(
    *,
    actor: User,
    name: str,
    description: str = "",
    type: str,  # noqa: A002
) -> DeviceGroup:
    """Make an empty group.

    Raises:
        GroupExistsError: the name is taken.
    """
    try:
        with transaction.atomic():
            group = DeviceGroup.objects.create(
                name=name, description=description, type=type
            )
            _record(actor, group, "created", {"name": name})
    except IntegrityError:
        raise GroupExistsError(f"there is a group {name!r} already") from None
    return group


def _record(
    actor: User, group: DeviceGroup, verb: str, details: dict[str, Any]
) -> None:
    audit.record(
        actor=actor,
        verb=f"device-group.{verb}",
        object_kind="device-group",
        object_id=group.pk,
        details=details,
    )


def _locked(group_id: UUID) -> DeviceGroup:
    group = (
        DeviceGroup.objects.select_for_update(no_key=True).filter(pk=group_id).first()
    )
    if group is None:
        raise GroupNotFoundError("there is no such group")
    return group


def change_group(
    *,
    actor: User,
    group_id: UUID,
    name: str,
    description: str,
    type: str,  # noqa: A002
    expected: frozenset[str] | None = None,
) -> DeviceGroup:
    """Rename or describe a group.

    Raises:
        GroupNotFoundError, GroupExistsError, PreconditionFailedError.
    """
    try:
        with transaction.atomic():
            group = _locked(group_id)
            check_match(group, expected)
            group.name = name
            group.description = description
            group.type = type
            group.updated_at = timezone.now()
            group.save()
            _record(actor, group, "changed", {"name": name})
    except IntegrityError:
        raise GroupExistsError(f"there is a group {name!r} already") from None
    return group


def delete_group(*, actor: User, group_id: UUID) -> None:
    """Remove a group; its devices stay."""
    with transaction.atomic():
        group = _locked(group_id)
        _record(actor, group, "deleted", {"name": group.name})
        group.delete()


def _known(device_ids: list[str]) -> list[Device]:
    devices = list(Device.objects.filter(device_id__in=device_ids))
    known = {device.device_id for device in devices}
    missing = [
        FieldError(f"/deviceIds/{index}", "unknown_device", f"no device {name!r}")
        for index, name in enumerate(device_ids)
        if name not in known
    ]
    if missing:
        raise UnknownDevicesError(
            f"{len(missing)} of {len(device_ids)} devices are unknown", errors=missing
        )
    return devices


def add_members(*, actor: User, group_id: UUID, device_ids: list[str]) -> DeviceGroup:
    """Put devices into a group, all or none; those already in it stay.

    Raises:
        GroupNotFoundError, UnknownDevicesError.
    """
    with transaction.atomic():
        group = _locked(group_id)
        GroupMembership.objects.bulk_create(
            [GroupMembership(group=group, device=d) for d in _known(device_ids)],
            ignore_conflicts=True,
        )
        _record(actor, group, "members-added", {"count": len(device_ids)})
    return group


def remove_members(
    *, actor: User, group_id: UUID, device_ids: list[str]
) -> DeviceGroup:
    """Take devices out of a group, all or none.

    Raises:
        GroupNotFoundError, UnknownDevicesError.
    """
    with transaction.atomic():
        group = _locked(group_id)
        GroupMembership.objects.filter(
            group=group, device__in=_known(device_ids)
        ).delete()
        _record(actor, group, "members-removed", {"count": len(device_ids)})
    return group
