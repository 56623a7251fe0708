"""Order anew what a device refused because its manifest had been replaced."""

from datetime import datetime

from deployments.choices import (
    OrderKind,
    TargetStatus,
    UpdateStatus,
)
from deployments.models import Target, Update
from deployments.rules.codes import SEQUENCE_REPLACED
from deployments.rules.events import EventName
from deployments.services.log import log

MAX_RENEWALS = 3


def order_anew(update: Update, now: datetime) -> bool:
    """Close an order whose manifest the device has seen replaced, and plan another.

    It comes under a manifest that is newer than the one refused: another device's, or
    one signed at that moment. The device has done nothing wrong, so that no attempt is
    counted. The first may still be below what the device has seen, the second cannot
    be, so that more than three such refusals are no matter of old rows.

    The caller holds the lock of the order.

    Returns:
        Whether another one follows; if not, nothing is changed.
    """
    known = Update.objects.filter(
        target=update.target_id, error_code=SEQUENCE_REPLACED
    ).count()
    if known >= MAX_RENEWALS or update.installing_at is not None:
        return False
    target = (
        Target.objects.select_for_update(no_key=True, of=("self",))
        .select_related("deployment", "device")
        .get(pk=update.target_id)
    )
    update.status = UpdateStatus.SUPERSEDED
    update.closed_at = now
    update.error_code = SEQUENCE_REPLACED
    update.message = "the device has accepted a newer order than the server knows of"
    update.save(update_fields=["status", "closed_at", "error_code", "message"])
    if update.kind == OrderKind.INSTALL:
        target.status = TargetStatus.PENDING
        target.attempt -= 1
    else:
        target.rollback_attempt -= 1
    target.next_attempt_at = None
    target.progress_percent = None
    target.updated_at = now
    target.save(
        update_fields=[
            *("status", "attempt", "rollback_attempt", "next_attempt_at"),
            *("progress_percent", "updated_at"),
        ]
    )
    log(
        target.deployment,
        EventName.RETRY,
        f"{SEQUENCE_REPLACED}: {update.message}; it is ordered anew",
        now=now,
        device=target.device,
        stage_number=target.stage_number,
    )
    return True
