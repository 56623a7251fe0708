"""Chainable filters over firmware."""

from typing import TYPE_CHECKING, Self

from django.db import models

from firmware.choices import FirmwareStatus

if TYPE_CHECKING:
    from firmware.models import Firmware
else:
    Firmware = models.Model


class FirmwareQuerySet(models.QuerySet["Firmware"]):
    def deployable(self) -> Self:
        """Those that a deployment may install: approved and whole."""
        return self.filter(status=FirmwareStatus.APPROVED, damaged_at__isnull=True)
