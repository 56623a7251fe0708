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
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
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
from firmware.choices import ABSENT
from health.services.watching import RECORD_CONTACT, contact_values
from hotswap.common.early_ticks import ask_for_tick_on_commit
from hotswap.common.rows import Columns, prepared_cursor

logger = logging.getLogger(__name__)
MAX_DURATIONS = 64
# What is logged of an order's way, by the word of the report.
ANNOUNCED = {
    UpdateStatus.INSTALLING: (EventName.INSTALLING, "it is installing"),
    UpdateStatus.REBOOTING: (EventName.REBOOTING, "it is rebooting"),
    UpdateStatus.CONFIRMING: (EventName.CLAIMED, "reported installed; verifying"),
}
# By then it has fetched the image.
FETCHED = (
    *(UpdateStatus.VERIFYING, UpdateStatus.INSTALLING, UpdateStatus.REBOOTING),
    UpdateStatus.CONFIRMING,
)
UPDATE = Columns(Update, "u")
LOCK_ORDER = f"""
    SELECT {UPDATE.sql}
    FROM deployments_update u
    JOIN devices_device d ON d.id = u.device_id
    WHERE u.id = %(update)s AND {IS_CALLER}
    FOR NO KEY UPDATE OF u
"""  # noqa: S608
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
# What is kept of the durations that the device names: once there are enough, no more.
DURATIONS = f"""CASE
    WHEN %(durations)s::jsonb IS NOT NULL
        AND (SELECT count(*) FROM jsonb_object_keys(u.durations)) < {MAX_DURATIONS}
    THEN u.durations || %(durations)s::jsonb ELSE u.durations END"""  # noqa: S608
FETCHED_SQL = ", ".join(f"'{each}'" for each in FETCHED)
# The first report that says so: an agent that was restarted says it again.
# Nothing is fetched for a boot of the other slot.
IS_FETCHED = f"""was_fetching AND NOT EXISTS (
        SELECT FROM deployments_report r
        WHERE r.update_id = %(update)s AND r.was_applied
          AND r.status IN ({FETCHED_SQL})
    )"""


def _changes_of_order(word: UpdateStatus) -> Iterator[str]:
    """Yield the assignments of a report's word to its order, `u`."""
    yield f"status = '{word}'"
    yield "last_sequence = %(sequence)s"
    yield f"durations = {DURATIONS}"
    if word == UpdateStatus.CONFIRMING:
        yield "claimed_at = %(now)s"
    elif word == UpdateStatus.REBOOTING:
        # The boot that reports the reboot is the one that must be replaced.
        yield "boot_id_before = COALESCE(NULLIF(%(boot_id)s, ''), u.boot_id_before)"
        yield f"boot_count_before = ({BOOT_COUNT})"
        yield "rebooting_at = COALESCE(u.rebooting_at, %(now)s)"
    else:
        yield "boot_id_before = COALESCE(NULLIF(u.boot_id_before, ''), %(boot_id)s)"
    if word == UpdateStatus.INSTALLING:
        yield "installing_at = COALESCE(u.installing_at, %(now)s)"


def _changes_of_target(word: UpdateStatus) -> Iterator[str]:
    """Yield the assignments of a report's word to its target, `t`."""
    is_install = f"changed.kind = '{OrderKind.INSTALL}'"
    yield f"status = CASE WHEN {is_install} THEN '{word}' ELSE t.status END"
    progress = "NULL"
    if TargetStatus(word) in WORKING:
        progress = f"CASE WHEN {is_install} THEN %(progress)s::float8 END"
    yield f"progress_percent = {progress}"
    yield "updated_at = %(now)s"


def _apply_statement(word: UpdateStatus) -> str:
    """Return the statement by which a report of a word moves its order on.

    It does all of it, or nothing where the order does not take the report: it is
    another device's, closed, or claimed and the word no claim, it has had this report
    or a later one, or somebody changes it in this moment.
    """
    claims = word == UpdateStatus.CONFIRMING
    parts = [
        f"""order_read AS (
            SELECT u.id, u.xmin AS row_version, u.status, f.security_version,
                   f.status AS image_status
            FROM deployments_update u
            JOIN firmware_firmware f ON f.id = u.firmware_id
            JOIN devices_device d ON d.id = u.device_id
            WHERE u.id = %(update)s AND {IS_CALLER} AND u.closed_at IS NULL
              AND u.last_sequence < %(sequence)s
              -- A claim is not taken back.
              {"" if claims else "AND u.claimed_at IS NULL"}
        )""",  # noqa: S608
        f"""changed AS (
            UPDATE deployments_update u SET {", ".join(_changes_of_order(word))}
            FROM order_read
            WHERE u.id = order_read.id AND u.xmin = order_read.row_version
            RETURNING u.id, u.target_id, u.device_id, u.kind,
                order_read.security_version,
                order_read.status <> '{word}' AS is_new_word,
                order_read.status NOT IN ({FETCHED_SQL})
                    AND order_read.image_status <> '{ABSENT}' AS was_fetching
        )""",  # noqa: S608
        f"""kept AS (
            {INTO_REPORTS}
            SELECT id, %(now)s, %(sequence)s, '{word}', true, %(body)s FROM changed
        )""",  # noqa: S608
        f"""moved AS (
            UPDATE deployments_target t SET {", ".join(_changes_of_target(word))}
            FROM changed WHERE t.id = changed.target_id
            RETURNING t.deployment_id, t.device_id, t.stage_number,
                      changed.is_new_word, changed.was_fetching
        )""",  # noqa: S608
        f"""contacts AS (
            {RECORD_CONTACT} AND EXISTS (SELECT FROM changed)
            RETURNING 1
        )""",
    ]
    if word in ANNOUNCED:
        event, message = ANNOUNCED[word]
        parts.append(
            f"""logged AS (
                {INTO_LOG}
                SELECT deployment_id, %(now)s, 'INFO', '{event}', device_id,
                       stage_number, '{message}'
                FROM moved WHERE is_new_word
            )"""  # noqa: S608
        )
    if word in FETCHED:
        parts += [
            f"fetched AS ({labelled('moved', where=IS_FETCHED)})",
            f"downloads AS ({FIRMWARE_DOWNLOADS.counting('fetched')})",
        ]
    if claims:
        # Its agent has raised its floor before it claims, proved or not. The state is
        # changed before the device, as a heartbeat does.
        parts.append(
            """floored AS (
                UPDATE devices_device d SET security_version = changed.security_version
                FROM changed
                WHERE d.id = changed.device_id
                  AND d.security_version < changed.security_version
                  AND (SELECT count(*) FROM contacts) >= 0
            )"""
        )
    return f"WITH {', '.join(parts)} SELECT count(*) FROM changed"  # noqa: S608


APPLY_REPORT: dict[ReportStatus, str] = {
    word: _apply_statement(UpdateStatus(word))
    for word in ReportStatus
    if word != ReportStatus.FAILED
}


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
    takes = partial(_take_in, device_id, name, update_id, report, now)
    if report.status != ReportStatus.FAILED:
        with prepared_cursor() as cursor:
            if takes(cursor):
                return True
    # Closed, failed, late, or changed by another in this moment.
    with transaction.atomic(), prepared_cursor() as cursor:
        cursor.execute(
            LOCK_ORDER, {"update": update_id, "device": device_id, "name": name}
        )
        row = cursor.fetchone()
        if row is None:
            raise UpdateNotFoundError("this device has no such update")
        update = UPDATE.take(iter(row))
        if only_open and update.closed_at is not None:
            raise UpdateClosedError("this update is closed")
        has_failed = report.status == ReportStatus.FAILED
        if not has_failed and takes(cursor):
            return True
        is_new = report.sequence > update.last_sequence
        is_open = update.closed_at is None
        applied = is_new and is_open and has_failed
        _keep(cursor, update, report, now, applied=applied)
        if applied:
            _fail(update, report, now)
            ask_for_tick_on_commit()
    if is_new and not is_open:
        raise UpdateClosedError(f"this update is closed: {update.status}")
    return applied


def _take_in(
    device_id: UUID,
    name: str,
    update_id: UUID,
    report: DeviceReport,
    now: datetime,
    cursor: Any,
) -> bool:
    """Store a report that its order takes, and move the order on.

    Returns:
        Whether it did; if not, nothing is stored.
    """
    cursor.execute(
        APPLY_REPORT[report.status],
        contact_values(
            device_id=device_id,
            watch_id=update_id,
            now=now,
            reboots=report.status == ReportStatus.REBOOTING,
            claims=report.status == ReportStatus.CONFIRMING,
        )
        | {
            "name": name,
            "update": update_id,
            "sequence": report.sequence,
            "body": json.dumps(report.body),
            "boot_id": report.boot_id,
            "durations": json.dumps(report.durations) if report.durations else None,
            "progress": report.progress_percent,
        },
    )
    return bool(cursor.fetchone() == (1,))


def _keep(
    cursor: Any, update: Update, report: DeviceReport, now: datetime, *, applied: bool
) -> None:
    """Store a report that moves nothing by itself; the caller holds the order's lock.

    An erasure locks the order too, so one that follows finds what is stored here.
    """
    cursor.execute(
        STORE_REPORT,
        contact_values(device_id=update.device_id, watch_id=update.pk, now=now)
        | {
            "update": update.pk,
            "sequence": report.sequence,
            "word": report.status.value,
            "body": json.dumps(report.body),
            "applied": applied,
        },
    )


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
