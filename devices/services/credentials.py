"""API keys and tokens of devices (specification, Device Authentication).

Rules:
- A key is 256 random bits, told once, kept as a peppered HMAC.
- A new key leaves the older ones valid for an overlap of 24 hours. After a rotation by
  a person it runs from the rotation. After one by the device itself it runs from the
  first use of the new key: a device that loses the answer, however often and for
  however long, keeps the key it has until that key's own end.
- A device has at most four keys that open it; what it demonstrably holds stays among
  them.
- Revocation is looked up on every request, and ends the keys as well.
- A key that was superseded or revoked and is used after its end answers as a wrong key
  does, and raises an alarm.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F, Value
from django.db.models.functions import Least
from django.utils import timezone
from django.utils.module_loading import import_string

from devices.exceptions import DeviceNotFoundError, DeviceRevokedError
from devices.models import Device, DeviceCertificate, DeviceKey
from devices.services.alarms import raise_alarm
from hotswap.common import audit
from hotswap.common.copying import copy_rows
from hotswap.common.keyring import peppered_digest
from hotswap.common.models import User
from hotswap.common.tokens import DeviceToken

KEY_OVERLAP = timedelta(hours=24)
MAX_LIVE_KEYS = 4


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key, the only time it can be read."""

    api_key: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """An access token, and when the key that it was given for ends.

    Attributes:
        key_expires_at: None where a certificate took the place of the key.
    """

    access: str
    key_expires_at: datetime | None


def create_key(device: Device, *, now: datetime) -> str:
    """Make a key for a device and return it, the only time it can be read."""
    key = _new_key()
    DeviceKey.objects.create(
        device=device,
        digest=peppered_digest(key),
        created_at=now,
        expires_at=now + settings.DEVICE_KEY_LIFETIME,
    )
    return key


def create_keys(devices: Sequence[UUID], *, now: datetime) -> list[str]:
    """Make the first keys of many new devices, given by their ids, in that order."""
    keys = [_new_key() for _ in devices]
    ends = now + settings.DEVICE_KEY_LIFETIME
    copy_rows(
        DeviceKey,
        ("device_id", "digest", "created_at", "expires_at"),
        (
            (device, peppered_digest(key), now, ends)
            for device, key in zip(devices, keys, strict=True)
        ),
    )
    return keys


def _new_key() -> str:
    return f"hsd_{secrets.token_urlsafe(32)}"


def replace_unused_keys(device: Device, *, now: datetime) -> str | None:
    """Make a first key anew, because the answer that held it was lost.

    The keys that nobody has used yet are dropped: one of them may lie in a lost
    answer.

    Returns:
        The new key, or None when the device has used one of its keys.
    """
    with transaction.atomic():
        # The same lock as a first use takes, so that the two cannot cross.
        Device.objects.select_for_update(no_key=True).filter(pk=device.pk).first()
        keys = DeviceKey.objects.filter(device=device)
        if keys.filter(first_used_at__isnull=False).exists():
            return None
        keys.delete()
        return create_key(device, now=now)


def rotate_key(*, device_id: str, actor: User | None) -> IssuedKey:
    """Make a new key; the older ones overlap with it.

    Args:
        actor: the person, or None when the device rotates its own.

    Raises:
        DeviceNotFoundError, DeviceRevokedError.
    """
    now = timezone.now()
    with transaction.atomic():
        device = (
            Device.objects.select_for_update(no_key=True)
            .filter(device_id=device_id)
            .first()
        )
        if device is None:
            raise DeviceNotFoundError(f"there is no device {device_id!r}")
        if device.revoked_at is not None:
            raise DeviceRevokedError(f"{device_id} is revoked")
        DeviceKey.objects.current().filter(device=device).update(superseded_at=now)
        if actor is not None:
            _end_by(device, now + KEY_OVERLAP)
        _end_surplus(device, now)
        key = create_key(device, now=now)
        if actor is None:
            audit.record_device_action(
                device_id=device.pk, verb="device.key-rotated", details={}
            )
        else:
            audit.record(
                actor=actor,
                verb="device.key-rotated",
                object_kind="device",
                object_id=device.pk,
            )
        import_string(settings.KEY_ROTATED_HOOK)(device=device, actor=actor, now=now)
    return IssuedKey(key, now + settings.DEVICE_KEY_LIFETIME)


def _end_by(device: Device, moment: datetime, *, before: int | None = None) -> None:
    """Let the keys of a device end at a moment, unless they end sooner.

    Args:
        before: only those made before the key of this id; None for all.
    """
    keys = DeviceKey.objects.filter(device=device, expires_at__gt=moment)
    if before is not None:
        keys = keys.filter(pk__lt=before)
    keys.update(expires_at=Least(F("expires_at"), Value(moment)))


def _end_surplus(device: Device, now: datetime) -> None:
    """End the oldest keys, so that with the one to come there are four at most.

    The key that was taken into use last stays: it is the one that the device holds,
    if the answers with the others were lost.
    """
    live = list(DeviceKey.objects.live(now).filter(device=device).order_by("-pk"))
    held = max(
        (key for key in live if key.first_used_at is not None),
        key=lambda key: (key.first_used_at, key.pk),
        default=live[-1] if live else None,
    )
    others = [key for key in live if key is not held]
    surplus = others[MAX_LIVE_KEYS - 2 :]
    DeviceKey.objects.filter(pk__in=[key.pk for key in surplus]).update(expires_at=now)


def end_keys(device: Device, *, now: datetime) -> None:
    """End every key of a device that is being revoked, in the same transaction."""
    DeviceKey.objects.current().filter(device=device).update(superseded_at=now)
    _end_by(device, now)


def issue_device_token(
    *, device_id: str, api_key: str, address: str | None = None, now: datetime
) -> IssuedToken | None:
    """Exchange an API key for an access token (60 minutes).

    Args:
        address: of the caller; an alarm names it.

    Returns:
        The token, or None when the name and the key do not belong together, the key
        has expired, or the device is revoked.
    """
    key = _known_key(device_id, api_key, address=address, now=now)
    if key is None or key.expires_at <= now:
        return None
    if key.first_used_at is None:
        _take_into_use(key, now)
    token = DeviceToken()
    token["sub"] = str(key.device.pk)
    return IssuedToken(str(token), key.expires_at)


def proves_key(
    *, device_id: str, api_key: str, address: str | None = None, now: datetime
) -> bool:
    """Tell whether a key is one that the device may hold.

    A key that has ended by its time alone will do: a device that was late, and still
    has a token, gets another one.

    Args:
        address: of the caller; an alarm names it.
    """
    key = _known_key(device_id, api_key, address=address, now=now)
    return key is not None and not key.is_retired_at(now)


def _known_key(
    device_id: str, api_key: str, *, address: str | None, now: datetime
) -> DeviceKey | None:
    """Return the key if it is the named device's and that is not revoked.

    A retired one raises an alarm.
    """
    key = (
        DeviceKey.objects.select_related("device")
        .filter(digest=peppered_digest(api_key))
        .first()
    )
    if key is None:
        return None
    if key.is_retired_at(now):
        raise_alarm(key=key, address=address, now=now)
    is_own = secrets.compare_digest(
        key.device.device_id.encode(), device_id.encode("utf-8", "replace")
    )
    return key if is_own and key.device.revoked_at is None else None


def issue_certificate_token(
    *, device_id: str, certificate: DeviceCertificate
) -> IssuedToken | None:
    """Give an access token for a certificate; it ends with the certificate.

    Returns:
        The token, or None when the certificate is not that of the named device.
    """
    if certificate.device.device_id != device_id:
        return None
    token = DeviceToken()
    token["sub"] = str(certificate.device.pk)
    token["certificate"] = certificate.fingerprint
    return IssuedToken(str(token), None)


def _take_into_use(key: DeviceKey, now: datetime) -> None:
    """Note the first use of a key; the overlap of the older ones begins."""
    with transaction.atomic():
        # The same lock as a rotation takes, so that the two cannot cross.
        Device.objects.select_for_update(no_key=True).filter(pk=key.device_id).first()
        is_first = DeviceKey.objects.filter(
            pk=key.pk, first_used_at__isnull=True
        ).update(first_used_at=now)
        if is_first:
            _end_by(key.device, now + KEY_OVERLAP, before=key.pk)
