"""Taking in what devices say about their orders (FR-FW-004, step 8).

Rules:
- Each report is kept, applied or not, before it is acknowledged.
- The sequence is looked at first: what is repeated or older changes nothing. Then
  whether the order is closed.
- Before the claim any working word may follow any other, because a restarted agent
  goes back; after it only a newer claim or a failure counts.
"""

import json
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from deployments.choices import (
    SERVER_ERRORS,
    WORKING,
    Level,
    OrderKind,
    ReportStatus,
    TargetStatus,
    UpdateStatus,
)
from deployments.exceptions import UpdateClosedError, UpdateNotFoundError
from deployments.models import Deployment, Update
from deployments.services import sweeps
from health.services.heartbeats import note_contact
from health.services.watching import count_silence, restart_confirmation
from hotswap.common.rows import Columns, prepared_cursor

logger = logging.getLogger(__name__)
MAX_DURATIONS = 64
# What is logged of an order's way, by the word of the report.
ANNOUNCED = {
    UpdateStatus.INSTALLING: ("device.installing", "it is installing"),
    UpdateStatus.REBOOTING: ("device.rebooting", "it is rebooting"),
    UpdateStatus.CONFIRMING: (
        "device.claimed",
        "it says that it is done; the proof is awaited",
    ),
}
UPDATE = Columns(Update, "u")
# The order under its lock, with what a claim needs to know beside it.
READ_ORDER = f"""
    SELECT {UPDATE.sql}, p.health_criteria, p.rollback_thresholds, f.security_version
    FROM deployments_update u
    JOIN deployments_deployment p ON p.id = u.deployment_id
    JOIN firmware_firmware f ON f.id = u.firmware_id
    JOIN devices_device d ON d.id = u.device_id
    WHERE u.id = %(update)s AND d.id = %(device)s AND d.device_id = %(name)s
      AND d.revoked_at IS NULL AND d.erased_at IS NULL
    FOR NO KEY UPDATE OF u
"""  # noqa: S608
KEEP_REPORT = """
    INSERT INTO deployments_report
        (update_id, received_at, sequence, status, was_applied, body)
    VALUES (%(update)s, %(now)s, %(sequence)s, %(word)s, %(applied)s, %(body)s)
"""
# All that a report moves, by one statement. The order is locked, and an open one alone
# moves its target.
KEEP_AND_MOVE = f"""
    WITH kept AS ({KEEP_REPORT}
    ), changed AS (
        UPDATE deployments_update
        SET last_sequence = %(sequence)s, durations = %(durations)s,
            status = %(word)s, boot_id_before = %(boot_id_before)s,
            installing_at = %(installing_at)s, rebooting_at = %(rebooting_at)s,
            claimed_at = %(claimed_at)s
        WHERE id = %(update)s
    ), told AS (
        INSERT INTO deployments_event
            (deployment_id, at, level, event, device_id, stage_number, message)
        SELECT t.deployment_id, %(now)s, %(level)s, %(event)s, t.device_id,
               t.stage_number, %(said)s
        FROM deployments_target t WHERE t.id = %(target)s AND %(is_told)s
    ), floored AS (
        UPDATE devices_device SET security_version = %(floor)s
        WHERE id = %(device)s AND security_version < %(floor)s
    )
    UPDATE deployments_target
    SET status = COALESCE(%(target_status)s, status),
        progress_percent = %(progress)s, updated_at = %(now)s
    WHERE id = %(target)s
"""  # noqa: S608


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
    *,
    device_id: UUID,
    name: str,
    update_id: UUID,
    report: DeviceReport,
    now: datetime,
    only_open: bool = False,
) -> bool:
    """Store a report and let it move the order on.

    Args:
        device_id, name: the device, as its token and as its address call it.
        only_open: refuse what comes for a closed order without keeping it.

    Returns:
        Whether it changed anything.

    Raises:
        UpdateNotFoundError: this device has no such order.
        UpdateClosedError: the order is finished, cancelled or superseded (409); the
            device drops it and polls again.
    """
    with transaction.atomic(), prepared_cursor() as cursor:
        cursor.execute(
            READ_ORDER, {"update": update_id, "device": device_id, "name": name}
        )
        row = cursor.fetchone()
        if row is None:
            raise UpdateNotFoundError("this device has no such update")
        values = iter(row)
        update = UPDATE.take(values)
        is_new = report.sequence > update.last_sequence
        is_open = update.closed_at is None
        if only_open and not is_open:
            raise UpdateClosedError("this update is closed")
        applied = is_new and is_open and _may_follow(update, report)
        kept: dict[str, Any] = {
            "update": update.pk,
            "now": now,
            "sequence": report.sequence,
            "word": report.status.value,
            "applied": applied,
            "body": json.dumps(report.body),
        }
        if applied and report.status != ReportStatus.FAILED:
            criteria, thresholds, security_version = values
            deployment = Deployment(
                pk=update.deployment_id,
                health_criteria=json.loads(criteria),
                rollback_thresholds=json.loads(thresholds),
            )
            moved = _move(update, report, deployment, now)
            # Its agent has raised its floor before it claims, proved or not.
            is_claim = report.status == ReportStatus.CONFIRMING
            floor = security_version if is_claim else 0
            cursor.execute(KEEP_AND_MOVE, kept | moved | {"floor": floor})
        else:
            cursor.execute(KEEP_REPORT, kept)
            if applied:
                _fail(update, report, now)
        note_contact(device_id=device_id, now=now)
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


def _fail(update: Update, report: DeviceReport, now: datetime) -> None:
    update.last_sequence = report.sequence
    update.durations = _durations(update, report)
    update.gave_up_at = now
    update.save(update_fields=["last_sequence", "durations", "gave_up_at"])
    sweeps.fail_reported(
        Deployment.objects.get(pk=update.deployment_id),
        now,
        update_id=update.pk,
        code=_own_word(report.error_code),
        message=report.message or "the device gave no reason",
    )
    logger.warning(
        "Device reported a failure",
        extra={
            "deploymentId": str(update.deployment_id),
            "errorCode": report.error_code,
        },
    )


def _durations(update: Update, report: DeviceReport) -> dict[str, float]:
    known: dict[str, float] = update.durations
    if report.durations and len(known) < MAX_DURATIONS:
        return known | report.durations
    return known


def _move(
    update: Update, report: DeviceReport, deployment: Deployment, now: datetime
) -> dict[str, Any]:
    """Return what a report that is no failure changes, by the statement's names."""
    status = UpdateStatus(report.status)
    boot_id_before = update.boot_id_before
    if status == UpdateStatus.CONFIRMING:
        restart_confirmation(
            watch_id=update.pk,
            device_id=update.device_id,
            until=now + deployment.watch_after_claim,
            now=now,
        )
    elif status == UpdateStatus.REBOOTING:
        # The boot that reports the reboot is the one that must be replaced.
        boot_id_before = report.boot_id or boot_id_before
        count_silence(watch_id=update.pk, device_id=update.device_id, now=now)
    else:
        boot_id_before = boot_id_before or report.boot_id
    event, said = "", ""
    if update.status != status:
        event, said = ANNOUNCED.get(status, ("", ""))
    target_status = None
    if update.kind == OrderKind.INSTALL:
        target_status = TargetStatus(report.status)

    def first(at: datetime | None, word: UpdateStatus) -> datetime | None:
        return now if at is None and status == word else at

    return {
        "target": update.target_id,
        "device": update.device_id,
        "durations": json.dumps(_durations(update, report)),
        "boot_id_before": boot_id_before,
        "installing_at": first(update.installing_at, UpdateStatus.INSTALLING),
        "rebooting_at": first(update.rebooting_at, UpdateStatus.REBOOTING),
        "claimed_at": now if status == UpdateStatus.CONFIRMING else update.claimed_at,
        "target_status": target_status,
        "progress": report.progress_percent if target_status in WORKING else None,
        "level": Level.INFO.value,
        "is_told": bool(event),
        "event": event,
        "said": said,
    }
