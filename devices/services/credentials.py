"""API keys and tokens of devices (specification, Device Authentication).

Rules:
- A key is 256 random bits, told once, kept as a peppered HMAC.
- A new key leaves the older ones valid for an overlap, so that a device which loses
  the answer to its rotation is not shut out.
- Revocation is looked up on every request.
"""

import secrets
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F, Value
from django.db.models.functions import Least
from django.utils import timezone

from devices.exceptions import DeviceNotFoundError, DeviceRevokedError
from devices.models import Device, DeviceKey
from hotswap.common import audit
from hotswap.common.keyring import peppered_digest
from hotswap.common.models import User
from hotswap.common.tokens import DeviceToken

KEY_OVERLAP = timedelta(hours=24)


def create_key(device: Device, *, now: datetime) -> str:
    """Make a key for a device and return it, the only time it can be read."""
    key = f"hsd_{secrets.token_urlsafe(32)}"
    DeviceKey.objects.create(
        device=device,
        digest=peppered_digest(key),
        created_at=now,
        expires_at=now + settings.DEVICE_KEY_LIFETIME,
    )
    return key


def rotate_key(*, device_id: str, actor: User | None) -> str:
    """Make a new key; older ones end after an overlap of 24 hours.

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
        DeviceKey.objects.filter(device=device).update(
            expires_at=Least(F("expires_at"), Value(now + KEY_OVERLAP))
        )
        key = create_key(device, now=now)
        if actor is None:
            audit.record_device_act(
                device_id=device.pk, verb="device.key-rotated", details={}
            )
        else:
            audit.record(
                actor=actor,
                verb="device.key-rotated",
                object_kind="device",
                object_id=device.pk,
            )
    return key


def issue_device_token(*, device_id: str, api_key: str, now: datetime) -> str | None:
    """Exchange an API key for an access token (60 minutes).

    Returns:
        The token, or None when the name and the key do not belong together, the key
        has expired, or the device is revoked.
    """
    key = (
        DeviceKey.objects.select_related("device")
        .filter(digest=peppered_digest(api_key), expires_at__gt=now)
        .first()
    )
    if key is None or key.device.revoked_at is not None:
        return None
    if not secrets.compare_digest(
        key.device.device_id.encode(), device_id.encode("utf-8", "replace")
    ):
        return None
    token = DeviceToken()
    token["sub"] = str(key.device.pk)
    return str(token)
