"""Chainable filters over firmware."""

from datetime import datetime
from typing import TYPE_CHECKING, Self

from django.db import models
from django.db.models import Q

from firmware.choices import ABSENT, PUBLISHED_KEYS, FirmwareStatus, KeyStatus

if TYPE_CHECKING:
    from firmware.models import Firmware, SigningKey
else:
    Firmware = models.Model
    SigningKey = models.Model


class FirmwareQuerySet(models.QuerySet["Firmware"]):
    def deployable(self) -> Self:
        """Those that a deployment may install: approved, whole, soundly signed."""
        return self.filter(
            status=FirmwareStatus.APPROVED,
            damaged_at__isnull=True,
            signature_revoked_at__isnull=True,
        )

    def made_of(self, component: str) -> Self:
        """Those whose bill of materials has a component.

        Args:
            component: a package URL as a whole, `name`, or `name@version`.
        """
        part: dict[str, str] = {"purl": component}
        if not component.startswith("pkg:"):
            named, at, version = component.rpartition("@")
            # The @ of a scope begins a name: `@angular/core`.
            part = {"name": named, "version": version} if at and named else {}
            part = part or {"name": component}
        return self.filter(sbom__components__contains=[part])


class FirmwareManager(models.Manager.from_queryset(FirmwareQuerySet)):  # type: ignore[misc]
    """Images on this server. What only devices hold is reached through orders."""

    def get_queryset(self) -> FirmwareQuerySet:
        found: FirmwareQuerySet = super().get_queryset().exclude(status=ABSENT)
        return found


class SigningKeyQuerySet(models.QuerySet["SigningKey"]):
    def published(self, now: datetime) -> Self:
        """Those that a device may trust now, whatever the periodic work has seen."""
        return self.filter(
            Q(not_after__isnull=True) | Q(not_after__gt=now), status__in=PUBLISHED_KEYS
        )

    def signing(self, now: datetime) -> Self:
        """Those that may sign now, the preferred one first."""
        return (
            self.published(now)
            .exclude(status=KeyStatus.NEXT)
            .order_by(
                # Active comes before Retiring.
                "status",
                "-not_after",
            )
        )
