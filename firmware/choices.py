"""Statuses of firmware and the moves between them."""

from django.db import models


class FirmwareStatus(models.TextChoices):
    DRAFT = "Draft"
    APPROVED = "Approved"
    REJECTED = "Rejected"
    DEPRECATED = "Deprecated"


FIRMWARE_MOVES = (
    (FirmwareStatus.DRAFT, FirmwareStatus.APPROVED),
    (FirmwareStatus.DRAFT, FirmwareStatus.REJECTED),
    (FirmwareStatus.APPROVED, FirmwareStatus.DEPRECATED),
)


class KeyStatus(models.TextChoices):
    ACTIVE = "Active"
    RETIRED = "Retired"
    REVOKED = "Revoked"
