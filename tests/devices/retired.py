"""A key that was superseded, whose overlap is over, and that is used all the same."""

from datetime import datetime

from django.utils import timezone

from devices.models import Device, DeviceKey
from devices.services.credentials import KEY_OVERLAP, issue_device_token, rotate_key
from hotswap.common.keyring import peppered_digest
from tests.common.factories import PersonFactory

ADDRESS = "198.51.100.7"


def retire_key(device: Device, key: str) -> None:
    """Rotate, and put rotation and overlap two days into the past."""
    rotate_key(device_id=device.device_id, actor=PersonFactory.create(operator=True))
    rotated_at = timezone.now() - 2 * KEY_OVERLAP
    DeviceKey.objects.filter(digest=peppered_digest(key)).update(
        superseded_at=rotated_at, expires_at=rotated_at + KEY_OVERLAP
    )


def present_key(
    device: Device, key: str, *, address: str = ADDRESS, now: datetime | None = None
) -> bool:
    """Ask for a token; tell whether there was one."""
    issued = issue_device_token(
        device_id=device.device_id,
        api_key=key,
        address=address,
        now=now or timezone.now(),
    )
    return issued is not None


def use_retired_key(device: Device, *, address: str = ADDRESS) -> str:
    """Retire a key of a device and present it; return the key."""
    key = rotate_key(device_id=device.device_id, actor=None).api_key
    DeviceKey.objects.filter(device=device).exclude(
        digest=peppered_digest(key)
    ).delete()
    retire_key(device, key)
    assert not present_key(device, key, address=address)
    device.refresh_from_db()
    return key
