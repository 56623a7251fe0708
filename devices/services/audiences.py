"""What a change does to deployments that have yet to start (FR-FW-008).

This app does not know deployments. It asks them through the hooks of the settings, in
the transaction of the change, and lets nobody change whom they reach unawares.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db.models import Q
from django.utils.module_loading import import_string

from devices.exceptions import AudienceChangesError
from devices.models import Device, DeviceGroup
from hotswap.common.errors import FieldError
from hotswap.common.pluralize import counted


@dataclass(frozen=True, slots=True)
class AudienceChange:
    """A deployment that waits for its time, and its devices before and after.

    Counted are the devices it names that are of its model and not revoked; whether
    each of them can take part is judged when it starts.
    """

    id: UUID
    name: str
    scheduled_at: datetime | None
    before: int
    after: int
    added: int
    removed: int
    moved: frozenset[UUID] = frozenset()
    """The devices that join or leave, where a change of devices was asked about."""

    @property
    def is_change(self) -> bool:
        return bool(self.added or self.removed)

    @property
    def in_words(self) -> str:
        when = (
            f", due {self.scheduled_at:%Y-%m-%d %H:%M} UTC" if self.scheduled_at else ""
        )
        return (
            f"{self.name}{when}: {self.before:,} -> {counted(self.after, 'device')} "
            f"({self.added:,} added, {self.removed:,} removed)"
        )


def naming_group(group: DeviceGroup, before: Q, after: Q) -> tuple[AudienceChange, ...]:
    """Return the deployments to come that name a group, changed or not.

    Args:
        before: who is in the group, as a condition on devices.
        after: who would be in it.
    """
    found: list[AudienceChange] = import_string(settings.GROUP_AUDIENCES_HOOK)(
        group_id=group.pk, before=before, after=after
    )
    return tuple(found)


def changed_by_group(
    group: DeviceGroup, before: Q, after: Q
) -> tuple[AudienceChange, ...]:
    """Return the deployments to come that would reach other devices."""
    return tuple(x for x in naming_group(group, before, after) if x.is_change)


def changed_by_device(
    device: Device, apply: Callable[[], None]
) -> tuple[AudienceChange, ...]:
    """Change a device; return the deployments to come that it joins or leaves."""
    return changed_by_devices([device.pk], apply)


def changed_by_devices(
    devices: Collection[UUID], apply: Callable[[], None]
) -> tuple[AudienceChange, ...]:
    """Change devices; return the deployments to come that any joins or leaves."""
    found: list[AudienceChange] = import_string(settings.DEVICE_AUDIENCES_HOOK)(
        devices=devices, apply=apply
    )
    return tuple(found)


def require_acknowledgement(
    changes: tuple[AudienceChange, ...], *, acknowledged: bool
) -> None:
    """Refuse a change of audiences that the caller has not said to know of.

    Raises:
        AudienceChangesError: it names each deployment with its counts (409).
    """
    if changes and not acknowledged:
        count = len(changes)
        raise AudienceChangesError(
            f"{count} deployment{'s' * (count > 1)} to come would reach other devices; "
            "send it again with ?acknowledge=audience if that is meant",
            errors=[
                FieldError("", "audience_changes", f"{x.in_words} (id {x.id})")
                for x in changes
            ],
        )
