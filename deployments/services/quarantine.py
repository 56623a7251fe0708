"""Keeping an image from a device on which it failed too often, and giving it back."""

from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from deployments.exceptions import NotQuarantinedError
from deployments.models import Quarantine
from devices.models import Device
from firmware.models import Firmware
from hotswap.common import audit
from hotswap.common.models import User


def count_failure(
    *, device: Device, firmware: Firmware, code: str, now: datetime
) -> Quarantine | None:
    """Count that an image has failed on a device, in the caller's transaction.

    What a tick finds is counted by `sweeps.failure`, for many devices at once.

    Returns:
        What is kept from the device since this failure; None if nothing is, or was
        already.
    """
    if settings.QUARANTINE_AFTER == 0:
        return None
    kept, _ = Quarantine.objects.select_for_update(
        of=("self",), no_key=True
    ).get_or_create(device=device, firmware=firmware, defaults={"updated_at": now})
    kept.failures += 1
    kept.last_code = code
    kept.updated_at = now
    is_shut_out = (
        kept.quarantined_at is None and kept.failures >= settings.QUARANTINE_AFTER
    )
    if is_shut_out:
        kept.quarantined_at = now
    kept.save()
    return kept if is_shut_out else None


def release_quarantine(
    *, actor: User, device_id: str, firmware_id: UUID, reason: str
) -> Quarantine:
    """Offer an image to a device again; its failures are counted anew.

    Raises:
        NotQuarantinedError: this image is not kept from this device (404).
    """
    with transaction.atomic():
        kept = (
            Quarantine.objects.active()
            .select_for_update(of=("self",), no_key=True)
            .select_related("device", "firmware__model")
            .filter(device__device_id=device_id, firmware=firmware_id)
            .first()
        )
        if kept is None:
            raise NotQuarantinedError("this firmware is not kept from this device")
        kept.failures = 0
        kept.quarantined_at = None
        kept.updated_at = timezone.now()
        kept.save()
        audit.record(
            actor=actor,
            verb="device.quarantine-released",
            object_kind="device",
            object_id=kept.device_id,
            details={"firmware": str(kept.firmware_id), "reason": reason},
        )
    return kept
