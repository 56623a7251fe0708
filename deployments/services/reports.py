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
    WORKING,
    OrderKind,
    ReportStatus,
    TargetStatus,
    UpdateStatus,
)
from deployments.exceptions import UpdateClosedError, UpdateNotFoundError
from deployments.metrics import FIRMWARE_DOWNLOADS, labelled
from deployments.models import Deployment, Update
from deployments.rules.codes import SEQUENCE_REPLACED, message_of, reported_code
from deployments.rules.events import EventName
from deployments.services import sweeps
from deployments.services.log import INTO_LOG
from devices.admission import IS_CALLER
from health.services.watching import RECORD_CONTACT, contact_values
from hotswap.common.rows import Columns, prepared_cursor

logger = logging.getLogger(__name__)
MAX_DURATIONS = 64
# What is logged of an order's way, by the word of the report.
ANNOUNCED = {
    UpdateStatus.INSTALLING: (EventName.INSTALLING, "it is installing"),
    UpdateStatus.REBOOTING: (EventName.REBOOTING, "it is rebooting"),
    UpdateStatus.CONFIRMING: (
        EventName.CLAIMED,
        "it says that it is done; the proof is awaited",
    ),
}
# By then it has fetched the image.
FETCHED = (
    *(UpdateStatus.VERIFYING, UpdateStatus.INSTALLING, UpdateStatus.REBOOTING),
    UpdateStatus.CONFIRMING,
)
UPDATE = Columns(Update, "u")
# The order, with what a claim needs to know beside it.
READ_ORDER = f"""
    SELECT u.xmin::text, f.security_version, {UPDATE.sql}
    FROM deployments_update u
    JOIN firmware_firmware f ON f.id = u.firmware_id
    JOIN devices_device d ON d.id = u.device_id
    WHERE u.id = %(update)s AND {IS_CALLER}
"""  # noqa: S608
LOCK_ORDER = f"{READ_ORDER} FOR NO KEY UPDATE OF u"
INTO_REPORTS = """
        INSERT INTO deployments_report
            (update_id, received_at, sequence, status, was_applied, body)
"""
# Whoever waited here for the erasure of the device keeps none of its words.
STORE_REPORT = f"""
    WITH kept AS (
        {INTO_REPORTS}
        SELECT %(update)s, %(now)s, %(sequence)s, %(word)s, %(applied)s, %(body)s
        FROM devices_device WHERE id = %(device)s AND erased_at IS NULL
    )
    {RECORD_CONTACT}
"""  # noqa: S608
# How many boots of the device there are up to the one that reports: one more than were
# heard, if it has sent no heartbeat yet.
BOOT_COUNT = """
    SELECT NULLIF(
        b.boot_count
            + CASE WHEN %(boot_id)s::text IN ('', b.boot_id) THEN 0 ELSE 1 END, 0)
    FROM health_devicestate b WHERE b.device_id = %(device)s
"""
# The first report that says so: an agent that was restarted says it again.
# Nothing is fetched for a boot of the other slot.
IS_FETCHED = f"""%(is_fetched)s AND NOT EXISTS (
        SELECT FROM deployments_report r
        WHERE r.update_id = %(update)s AND r.was_applied
          AND r.status IN ({", ".join(f"'{each}'" for each in FETCHED)})
    ) AND NOT EXISTS (
        SELECT FROM deployments_update u
        JOIN firmware_firmware f ON f.id = u.firmware_id
        WHERE u.id = %(update)s AND f.status = 'Absent'
    )"""  # noqa: S608
# All that a report moves, by one statement, if the order is still the one that was
# read. An open order alone moves its target.
APPLY_REPORT = f"""
    WITH changed AS (
        UPDATE deployments_update
        SET last_sequence = %(sequence)s, durations = %(durations)s,
            status = %(word)s, boot_id_before = %(boot_id_before)s,
            boot_count_before = CASE WHEN %(reboots)s THEN ({BOOT_COUNT})
                ELSE boot_count_before END,
            installing_at = %(installing_at)s, rebooting_at = %(rebooting_at)s,
            claimed_at = %(claimed_at)s
        WHERE id = %(update)s AND xmin = %(row_version)s::xid
        RETURNING id, target_id, device_id
    ), kept AS (
        {INTO_REPORTS}
        SELECT id, %(now)s, %(sequence)s, %(word)s, true, %(body)s FROM changed
    ), moved AS (
        UPDATE deployments_target t
        SET status = COALESCE(%(target_status)s, t.status),
            progress_percent = %(progress)s, updated_at = %(now)s
        FROM changed WHERE t.id = changed.target_id
        RETURNING t.deployment_id, t.device_id, t.stage_number
    ), logged AS (
        {INTO_LOG}
        SELECT deployment_id, %(now)s, 'INFO', %(event)s, device_id, stage_number,
               %(message)s
        FROM moved WHERE %(is_logged)s
    ), fetched AS (
        {labelled("moved", where=IS_FETCHED)}
    ), downloads AS (
        {FIRMWARE_DOWNLOADS.counting("fetched")}
    ), contacts AS (
        {RECORD_CONTACT} AND EXISTS (SELECT FROM changed)
        RETURNING 1
    ), floored AS (
        UPDATE devices_device d SET security_version = %(floor)s
        FROM changed
        WHERE d.id = changed.device_id AND d.security_version < %(floor)s
          -- The state first and then the device, as a heartbeat takes them.
          AND (SELECT count(*) FROM contacts) >= 0
    )
    SELECT count(*) FROM changed
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
    with prepared_cursor() as cursor:
        order = _read(cursor, READ_ORDER, device_id, name, update_id)
        if only_open and order.update.closed_at is not None:
            raise UpdateClosedError("this update is closed")
        if order.takes(report) and _take_in(cursor, order, report, now):
            return True
    # Closed, failed, late, or changed by another in this moment.
    with transaction.atomic(), prepared_cursor() as cursor:
        order = _read(cursor, LOCK_ORDER, device_id, name, update_id)
        if only_open and order.update.closed_at is not None:
            raise UpdateClosedError("this update is closed")
        if order.takes(report):
            return _take_in(cursor, order, report, now)
        update = order.update
        is_new = report.sequence > update.last_sequence
        is_open = update.closed_at is None
        applied = is_new and is_open and report.status == ReportStatus.FAILED
        _keep(cursor, update, report, now, applied=applied)
        if applied:
            _fail(update, report, now)
    if is_new and not is_open:
        raise UpdateClosedError(f"this update is closed: {update.status}")
    return applied


@dataclass(frozen=True, slots=True)
class _Order:
    """An order as it was read, with the version of its row."""

    row_version: str
    security_version: int
    update: Update

    def takes(self, report: DeviceReport) -> bool:
        """Tell whether the report moves it on and is no failure."""
        update = self.update
        return (
            update.closed_at is None
            and report.status != ReportStatus.FAILED
            and report.sequence > update.last_sequence
            # A claim is not taken back.
            and (update.claimed_at is None or report.status == ReportStatus.CONFIRMING)
        )


def _read(
    cursor: Any, statement: str, device_id: UUID, name: str, update_id: UUID
) -> _Order:
    cursor.execute(statement, {"update": update_id, "device": device_id, "name": name})
    row = cursor.fetchone()
    if row is None:
        raise UpdateNotFoundError("this device has no such update")
    version, security_version, *values = row
    return _Order(version, security_version, UPDATE.take(iter(values)))


def _keep(
    cursor: Any, update: Update, report: DeviceReport, now: datetime, *, applied: bool
) -> None:
    """Store a report that moves nothing by itself; the caller holds the order's lock.

    An erasure locks the order too, so one that follows finds what is stored here.
    """
    cursor.execute(
        STORE_REPORT,
        contact_values(device_id=update.device_id, watch_id=update.pk, now=now)
        | _kept(update, report)
        | {"applied": applied},
    )


def _kept(update: Update, report: DeviceReport) -> dict[str, Any]:
    return {
        "update": update.pk,
        "sequence": report.sequence,
        "word": report.status.value,
        "body": json.dumps(report.body),
    }


def _take_in(cursor: Any, order: _Order, report: DeviceReport, now: datetime) -> bool:
    """Store a report that an order takes, and move the order on.

    Returns:
        Whether it did; if not, nothing is stored: the order is no longer the one that
        was read.
    """
    update = order.update
    claims = report.status == ReportStatus.CONFIRMING
    contact = contact_values(
        device_id=update.device_id,
        watch_id=update.pk,
        now=now,
        reboots=report.status == ReportStatus.REBOOTING,
        claims=claims,
    )
    cursor.execute(
        APPLY_REPORT,
        contact
        | _kept(update, report)
        | _moves(update, report, now)
        | {
            # Its agent has raised its floor before it claims, proved or not.
            "floor": order.security_version if claims else 0,
            "row_version": order.row_version,
        },
    )
    return bool(cursor.fetchone() == (1,))


def _fail(update: Update, report: DeviceReport, now: datetime) -> None:
    update.last_sequence = report.sequence
    update.durations = _durations(update, report)
    update.gave_up_at = now
    update.save(update_fields=["last_sequence", "durations", "gave_up_at"])
    if report.error_code == SEQUENCE_REPLACED and sweeps.order_anew(update, now):
        return
    sweeps.fail_reported(
        Deployment.objects.get(pk=update.deployment_id),
        now,
        update_id=update.pk,
        code=reported_code(report.error_code),
        message=report.message or message_of(report.error_code),
    )
    logger.warning(
        "Device reported a failure",
        extra={
            "deploymentId": str(update.deployment_id),
            "updateId": str(update.pk),
            "errorCode": report.error_code,
        },
    )


def _durations(update: Update, report: DeviceReport) -> dict[str, float]:
    known: dict[str, float] = update.durations
    if report.durations and len(known) < MAX_DURATIONS:
        return known | report.durations
    return known


def _moves(update: Update, report: DeviceReport, now: datetime) -> dict[str, Any]:
    """Return what a report changes, by the names of the statement."""
    status = UpdateStatus(report.status)
    boot_id_before = update.boot_id_before
    if status == UpdateStatus.REBOOTING:
        # The boot that reports the reboot is the one that must be replaced.
        boot_id_before = report.boot_id or boot_id_before
    elif status != UpdateStatus.CONFIRMING:
        boot_id_before = boot_id_before or report.boot_id
    event, message = "", ""
    if update.status != status:
        event, message = ANNOUNCED.get(status, ("", ""))
    target_status = None
    if update.kind == OrderKind.INSTALL:
        target_status = TargetStatus(report.status)

    def first(at: datetime | None, word: UpdateStatus) -> datetime | None:
        return now if at is None and status == word else at

    return {
        "durations": json.dumps(_durations(update, report)),
        "boot_id": report.boot_id,
        "boot_id_before": boot_id_before,
        "installing_at": first(update.installing_at, UpdateStatus.INSTALLING),
        "rebooting_at": first(update.rebooting_at, UpdateStatus.REBOOTING),
        "claimed_at": now if status == UpdateStatus.CONFIRMING else update.claimed_at,
        "target_status": target_status,
        "progress": report.progress_percent if target_status in WORKING else None,
        "is_logged": bool(event),
        "is_fetched": update.status not in FETCHED and status in FETCHED,
        "event": event,
        "message": message,
    }
