"""Colours, icons and words of firmware, approvals and keys."""

from django.utils.html import format_html
from django.utils.safestring import SafeString

from firmware.choices import FirmwareStatus, KeyStatus
from firmware.models import Firmware, SigningKey, StorageKey
from hotswap.common.console.badges import (
    DONE,
    FAILED,
    MOVING,
    NOT_STARTED,
    WAITS,
    badge,
)

FIRMWARE_BADGES = {
    FirmwareStatus.DRAFT: (WAITS, "pending_actions"),
    FirmwareStatus.APPROVED: (DONE, "check"),
    FirmwareStatus.REJECTED: (FAILED, "close"),
    FirmwareStatus.DEPRECATED: (NOT_STARTED, "inventory_2"),
}


def firmware_badge(firmware: Firmware) -> SafeString:
    tone, icon = FIRMWARE_BADGES[FirmwareStatus(firmware.status)]
    return badge(firmware.status, tone, icon)


def incidents_badge(incidents: object) -> SafeString:
    """Show what went wrong with a firmware: `rolled back twice, 0 of 31 proved`."""
    shown = badge(str(incidents), FAILED, "history")
    return format_html('<span class="hs-wraps">{}</span>', shown)


DECISIONS = {
    "firmware.approved": ("Approved", DONE, "check"),
    "firmware.rejected": ("Rejected", FAILED, "close"),
}


KEY_BADGES = {
    KeyStatus.NEXT: (WAITS, "schedule"),
    KeyStatus.ACTIVE: (DONE, "check"),
    KeyStatus.RETIRING: (MOVING, "hourglass_bottom"),
    KeyStatus.RETIRED: (NOT_STARTED, "inventory_2"),
    KeyStatus.REVOKED: (FAILED, "block"),
}


def key_badge(key: SigningKey | StorageKey) -> SafeString:
    tone, icon = KEY_BADGES[KeyStatus(key.status)]
    return badge(key.status, tone, icon)
