"""Taking in what devices say about their orders (FR-FW-004, step 8).

Rules:
- Each report is kept, applied or not, before it is acknowledged.
- The sequence is looked at first: what is repeated or older changes nothing. Then
  whether the order is closed.
- Before the claim any working word may follow any other, because a restarted agent
  goes back; after it only a newer claim or a failure counts.
"""

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F

from deployments.choices import (
    SERVER_ERRORS,
    WORKING,
    OrderKind,
    ReportStatus,
    TargetStatus,
    UpdateStatus,
)
from deployments.exceptions import UpdateClosedError, UpdateNotFoundError
from deployments.models import Report, Target, Update
from deployments.services import sweeps
from deployments.services.log import log
from devices.models import Device
from health.services.heartbeats import note_contact
from health.services.watching import count_silence, restart_confirmation

logger = logging.getLogger(__name__)
MAX_DURATIONS = 64
# What a report that is no failure changes of its order.
MOVED = (
    *("last_sequence", "durations", "status", "boot_id_before"),
    *("installing_at", "rebooting_at", "claimed_at"),
)
ANNOUNCED = (UpdateStatus.INSTALLING, UpdateStatus.REBOOTING)


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """One report, already checked for form. Percent is 0-100, durations seconds."""

    sequence: int
    status: ReportStatus
    body: dict[str, Any]
    progress_percent: float | None = None
    boot_id: str = ""
    error_code: str = ""
    message: str = ""
    durations: dict[str, float] | None = None


def apply_report(
    *, device: Device, update_id: UUID, report: DeviceReport, now: datetime
) -> bool:
    """Store a report and let it move the order on.

    Returns:
        Whether it changed anything.

    Raises:
        UpdateNotFoundError: this device has no such order.
        UpdateClosedError: the order is finished, cancelled or superseded (409); the
            device drops it and polls again.
    """
    with transaction.atomic():
        update = (
            Update.objects.select_for_update(of=("self",), no_key=True)
            .select_related("deployment")
            .annotate(stage_number=F("target__stage_number"))
            .filter(pk=update_id, device=device)
            .first()
        )
        if update is None:
            raise UpdateNotFoundError("this device has no such update")
        is_new = report.sequence > update.last_sequence
        is_open = update.closed_at is None
        applied = is_new and is_open and _may_follow(update, report)
        Report.objects.create(
            update=update,
            received_at=now,
            sequence=report.sequence,
            status=report.status,
            was_applied=applied,
            body=report.body,
        )
        if applied:
            update.last_sequence = report.sequence
            _apply(update, report, device, now, stage_number=update.stage_number)
        note_contact(device=device, now=now)
    if is_new and not is_open:
        raise UpdateClosedError(f"this update is closed: {update.status}")
    return applied


def _own_word(error_code: str) -> str:
    """Return the code of a device's failure, kept apart from the server's verdicts."""
    if error_code in SERVER_ERRORS:
        return f"device_{error_code}"
    return error_code or "failed"


def _may_follow(update: Update, report: DeviceReport) -> bool:
    return update.claimed_at is None or report.status in (
        ReportStatus.CONFIRMING,
        ReportStatus.FAILED,
    )


def _apply(
    update: Update,
    report: DeviceReport,
    device: Device,
    now: datetime,
    *,
    stage_number: int,
) -> None:
    if report.durations and len(update.durations) < MAX_DURATIONS:
        update.durations = update.durations | report.durations
    deployment = update.deployment
    if report.status == ReportStatus.FAILED:
        update.gave_up_at = now
        update.save()
        sweeps.fail_reported(
            deployment,
            now,
            update_id=update.pk,
            code=_own_word(report.error_code),
            message=report.message or "the device gave no reason",
        )
        logger.warning(
            "Device reported a failure",
            extra={
                "deploymentId": str(deployment.pk),
                "errorCode": report.error_code,
            },
        )
        return
    changed = update.status != report.status
    is_claim = report.status == ReportStatus.CONFIRMING
    update.status = UpdateStatus(report.status)
    if is_claim:
        update.claimed_at = now
        # Its agent has raised its floor before it claims, proved or not.
        Device.objects.filter(
            pk=device.pk, security_version__lt=update.firmware.security_version
        ).update(security_version=update.firmware.security_version)
        restart_confirmation(
            watch_id=update.pk,
            device_id=device.pk,
            until=now + deployment.watch_after_claim,
            now=now,
        )
    else:
        if report.boot_id and not update.boot_id_before:
            update.boot_id_before = report.boot_id
        if report.status == ReportStatus.INSTALLING and update.installing_at is None:
            update.installing_at = now
        if report.status == ReportStatus.REBOOTING:
            if update.rebooting_at is None:
                update.rebooting_at = now
            # The boot that reports the reboot is the one that must be replaced.
            update.boot_id_before = report.boot_id or update.boot_id_before
            count_silence(watch_id=update.pk, device_id=device.pk, now=now)
    update.save(update_fields=MOVED)
    # The order is locked, and an open one alone moves its target.
    moved: dict[str, Any] = {"progress_percent": None, "updated_at": now}
    if update.kind == OrderKind.INSTALL:
        moved["status"] = TargetStatus(report.status)
        if moved["status"] in WORKING:
            moved["progress_percent"] = report.progress_percent
    Target.objects.filter(pk=update.target_id).update(**moved)
    if changed and (is_claim or update.status in ANNOUNCED):
        log(
            deployment,
            f"device.{'claimed' if is_claim else update.status}",
            "it says that it is done; the proof is awaited"
            if is_claim
            else f"it is {update.status}",
            now=now,
            device=device,
            stage_number=stage_number,
        )
