"""Letting a device have an image again that failed on it too often."""

from uuid import UUID

from django.db import transaction
from django.utils import timezone

from deployments.exceptions import NotQuarantinedError
from deployments.models import Quarantine
from hotswap.common import audit
from hotswap.common.models import User


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
