"""What is asked about a firmware beyond its own row.

Devices and deployments belong to apps above this one: they answer through the hook of
the settings.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet
from django.utils.module_loading import import_string

from firmware.models import Firmware
from hotswap.common.models import AuditEvent, User
from hotswap.common.pluralize import counted, times

HISTORY_KIND = "firmware"


@dataclass(frozen=True, slots=True)
class DeploymentUse:
    """A deployment of the firmware that waits or is at work."""

    id: UUID
    name: str
    status: str
    strategy: str
    device_count: int
    scheduled_at: datetime | None
    is_cancellable: bool


@dataclass(frozen=True, slots=True)
class FirmwareUse:
    """Who runs a firmware and what still brings it to devices.

    Attributes:
        device_count: devices whose last report names the firmware's SHA-256.
        model_device_count: all devices of its model.
        deployments: all that wait or are at work, oldest first.
        proved_count, failed_count: install orders that ended in proof, or failed.
    """

    device_count: int
    model_device_count: int
    deployments: tuple[DeploymentUse, ...]
    proved_count: int
    failed_count: int

    @property
    def success_percent(self) -> float | None:
        """Share of the install orders that ended in proof; None before the first."""
        settled = self.settled_count
        return round(100 * self.proved_count / settled, 2) if settled else None

    @property
    def settled_count(self) -> int:
        return self.proved_count + self.failed_count

    @property
    def cancellable(self) -> tuple[DeploymentUse, ...]:
        return tuple(each for each in self.deployments if each.is_cancellable)


@dataclass(frozen=True, slots=True)
class FirmwareIncidents:
    """What went wrong with a firmware so far, and what its installs came to.

    Attributes:
        rollbacks: of whole deployments, by a gate or a person, and of stages by a gate.
        failed_deployments: that had started and were not rolled back.
        quarantined_devices: from which the firmware is kept now.
        proved_count: install orders that ended in proof.
        settled_count: those, and the ones that failed.
    """

    rollbacks: int
    failed_deployments: int
    quarantined_devices: int
    proved_count: int
    settled_count: int

    def __str__(self) -> str:
        """Say it in short: `rolled back twice, 0 of 31 proved`."""
        return self.in_words(self.quarantined_devices)

    def in_words(self, quarantined: int) -> str:
        """Say the same of so many quarantined devices."""
        said = []
        if self.rollbacks:
            said.append(f"rolled back {times(self.rollbacks)}")
        if self.failed_deployments:
            said.append(f"{counted(self.failed_deployments, 'deployment')} failed")
        if quarantined:
            said.append(f"quarantined on {counted(quarantined, 'device')}")
        if self.settled_count:
            said.append(f"{self.proved_count:,} of {self.settled_count:,} proved")
        return ", ".join(said)


def firmware_incidents(
    firmware_ids: Collection[UUID],
) -> dict[UUID, FirmwareIncidents]:
    """Return what went wrong with each firmware, by one statement for all.

    Those without an incident are left out.
    """
    find = import_string(settings.FIRMWARE_INCIDENTS_HOOK)
    found: dict[UUID, FirmwareIncidents] = find(firmware_ids=firmware_ids)
    return found


def firmware_use(firmware: Firmware) -> FirmwareUse:
    """Return who runs a firmware and what is under way with it, counted now."""
    use: FirmwareUse = import_string(settings.FIRMWARE_USE_HOOK)(firmware=firmware)
    return use


def firmware_history(firmware_id: UUID) -> QuerySet[AuditEvent]:
    """Return what people and the server decided about a firmware."""
    return AuditEvent.objects.filter(
        object_kind=HISTORY_KIND, object_id=str(firmware_id)
    )


def name_actors(rows: list[Any]) -> list[Any]:
    """Add to audit rows the `actor_name`; None for the server and erased people."""
    actors = {row.actor for row in rows if row.actor}
    names = dict(
        User.objects.filter(pseudonym__in=actors).values_list("pseudonym", "username")
    )
    for row in rows:
        row.actor_name = names.get(row.actor)
    return rows
