"""Colours, icons and words of devices, their keys, groups, enrolments and imports."""

from datetime import datetime

from django.utils import timezone
from django.utils.safestring import SafeString

from devices.choices import (
    DeviceStatus,
    EnrolmentStatus,
    GroupType,
    ImportStatus,
    KeyStatus,
    RunKnowledge,
    TokenStatus,
)
from devices.models import (
    Device,
    DeviceCertificate,
    DeviceGroup,
    DeviceImport,
    DeviceKey,
    EnrolmentRequest,
    EnrolmentToken,
)
from hotswap.common.console.badges import (
    DONE,
    FAILED,
    MOVING,
    NOT_STARTED,
    WAITS,
    badge,
)
from hotswap.common.console.text import span_in_words

STATUS_BADGES = {
    DeviceStatus.ONLINE: (DONE, "wifi"),
    DeviceStatus.OFFLINE: (FAILED, "wifi_off"),
    DeviceStatus.NEVER_SEEN: (NOT_STARTED, "schedule"),
    DeviceStatus.REVOKED: (NOT_STARTED, "key_off"),
}


KEY_BADGES = {
    KeyStatus.VALID: (DONE, "key"),
    KeyStatus.EXPIRING: (WAITS, "schedule"),
    KeyStatus.EXPIRED: (FAILED, "key_off"),
    KeyStatus.NONE: (NOT_STARTED, "key_off"),
}


RUN_BADGES = {
    RunKnowledge.REPORTED: ("Reported", NOT_STARTED, "campaign"),
    RunKnowledge.PROVED: ("Verified", DONE, "verified"),
    RunKnowledge.RETURNED: ("Rollback", WAITS, "undo"),
    RunKnowledge.TRIED: ("Tried, not verified", FAILED, "science"),
}


LEVEL_TONES = {"INFO": NOT_STARTED, "WARNING": WAITS, "ERROR": FAILED}


def device_badge(device: Device) -> SafeString:
    status = device.status_at(timezone.now())
    tone, icon = STATUS_BADGES[status]
    return badge(status.label.capitalize(), tone, icon)


def key_badge(device: Device, now: datetime) -> SafeString:
    """Show how the current key of a device stands, an alarm before all."""
    if device.alarm_at is not None:
        return badge("alarm", FAILED, "gpp_maybe", "a retired key was used")
    status = device.key_status_at(now)
    tone, icon = KEY_BADGES[status]
    ends = device.key_expires_at
    word = status.label
    if ends is not None and status in (KeyStatus.EXPIRING, KeyStatus.EXPIRED):
        days = span_in_words(abs((ends - now).total_seconds()))
        word = f"expires in {days}" if ends > now else f"expired {days} ago"
    return badge(word, tone, icon, f"{ends:%Y-%m-%d %H:%M} UTC" if ends else "")


def issued_key_look(key: DeviceKey, now: datetime) -> tuple[str, str, str]:
    """Return word, tone and icon of one key."""
    if key.expires_at <= now:
        if key.is_retired_at(now):
            return "retired", NOT_STARTED, "key_off"
        return "expired", FAILED, "key_off"
    if key.superseded_at is not None:
        return "overlaps", WAITS, "history"
    return "current", DONE, "key"


def certificate_look(each: DeviceCertificate, now: datetime) -> tuple[str, str, str]:
    """Return word, tone and icon of one certificate."""
    if each.not_after <= now:
        return "expired", FAILED, "gpp_bad"
    if each.not_before > now:
        return "not yet valid", NOT_STARTED, "schedule"
    return "valid", DONE, "verified_user"


def group_badge(group: DeviceGroup) -> SafeString:
    if group.type == GroupType.DYNAMIC:
        return badge("Dynamic", NOT_STARTED, "rule", "its rule says who is in it")
    return badge("Static", NOT_STARTED, "list", "people say who is in it")


ENROLMENT_BADGES = {
    EnrolmentStatus.PENDING: (WAITS, "pending_actions"),
    EnrolmentStatus.APPROVED: (MOVING, "schedule_send"),
    EnrolmentStatus.REJECTED: (FAILED, "close"),
    EnrolmentStatus.COMPLETED: (DONE, "check"),
}


TOKEN_BADGES = {
    TokenStatus.ACTIVE: (DONE, "check"),
    TokenStatus.EXPIRED: (NOT_STARTED, "schedule"),
    TokenStatus.USED_UP: (NOT_STARTED, "done_all"),
    TokenStatus.REVOKED: (FAILED, "key_off"),
}


def enrolment_badge(request: EnrolmentRequest) -> SafeString:
    tone, icon = ENROLMENT_BADGES[EnrolmentStatus(request.status)]
    return badge(request.status, tone, icon)


def token_badge(token: EnrolmentToken) -> SafeString:
    status = token.status_at(timezone.now())
    tone, icon = TOKEN_BADGES[status]
    return badge(str(status.label), tone, icon)


IMPORT_BADGES = {
    ImportStatus.PENDING: (NOT_STARTED, "schedule"),
    ImportStatus.RUNNING: (MOVING, "sync"),
    ImportStatus.COMPLETED: (DONE, "check"),
    ImportStatus.FAILED: (FAILED, "error"),
}


def import_badge(batch: DeviceImport) -> SafeString:
    tone, icon = IMPORT_BADGES[ImportStatus(batch.status)]
    return badge(batch.status, tone, icon)
