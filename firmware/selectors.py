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
from firmware.signing import is_signed
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
        parts = []
        if self.rollbacks:
            parts.append(f"rolled back {times(self.rollbacks)}")
        if self.failed_deployments:
            parts.append(f"{counted(self.failed_deployments, 'deployment')} failed")
        if quarantined:
            parts.append(f"quarantined on {counted(quarantined, 'device')}")
        if self.settled_count:
            parts.append(f"{self.proved_count:,} of {self.settled_count:,} proved")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class FirmwareFigures:
    """How common a firmware is, and how its install orders have ended.

    Attributes:
        device_count: devices whose last report names the firmware's SHA-256.
    """

    device_count: int
    proved_count: int
    failed_count: int

    @property
    def settled_count(self) -> int:
        return self.proved_count + self.failed_count

    @property
    def success_percent(self) -> float | None:
        """Share of the install orders that ended in proof; None before the first."""
        settled = self.settled_count
        return 100 * self.proved_count / settled if settled else None


@dataclass(frozen=True, slots=True)
class CommonImage:
    """What most devices of a model run.

    Attributes:
        firmware: None where that image was never uploaded here.
        device_count: devices that run it, of `model_device_count`.
    """

    version: str
    firmware: Firmware | None
    device_count: int
    model_device_count: int


@dataclass(frozen=True, slots=True)
class Verification:
    """The last time that the stored image was read as a whole and compared.

    Attributes:
        damage: what was found; "" if the image was whole.
        verb: of the audit trail: what it was read for.
    """

    at: datetime
    by: str
    damage: str
    verb: str


# Each of these has read the stored bytes and compared them with their SHA-256.
VERIFYING = ("firmware.verified", "firmware.approved")


def firmware_figures(firmware_ids: Collection[UUID]) -> dict[UUID, FirmwareFigures]:
    """Return how common each firmware is, by one statement for all."""
    find = import_string(settings.FIRMWARE_FIGURES_HOOK)
    found: dict[UUID, FirmwareFigures] = find(firmware_ids=firmware_ids)
    return found


def common_images(model_ids: Collection[UUID]) -> dict[UUID, CommonImage]:
    """Return what most devices of each model run; models without any are left out."""
    find = import_string(settings.COMMON_IMAGES_HOOK)
    found: dict[UUID, CommonImage] = find(model_ids=model_ids)
    return found


def last_verification(firmware: Firmware) -> Verification | None:
    """Return when the stored image was last read as a whole, and what was found."""
    event = (
        firmware_history(firmware.pk).filter(verb__in=VERIFYING).order_by("-id").first()
    )
    if event is None:
        return None
    (named,) = name_actors([event])
    return Verification(
        at=event.at,
        by=named.actor_name or "a person since erased",
        damage=event.details.get("damage", ""),
        verb=event.verb,
    )


def signature_holds(firmware: Firmware) -> bool:
    """Tell whether the key that is named has signed the SHA-256 of the firmware."""
    key, signature = firmware.best_signature()
    return is_signed(key.public_key, bytes.fromhex(firmware.sha256), signature)


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
