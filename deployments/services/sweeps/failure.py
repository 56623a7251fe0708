"""Fail orders, and say where each device goes next."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings

from deployments.metrics import (
    DEVICE_RETURNS,
    DEVICES_FAILED,
    VERIFICATION_CODES,
    VERIFICATIONS_FAILED,
    labelled,
)
from deployments.models import Deployment
from deployments.notifications.enqueue import NAMED_DEVICES, enqueue_devices
from deployments.rules.codes import (
    BREACHES,
    FINAL_CODES,
    IMAGE_FAULTS,
    NO_PREVIOUS_IMAGE,
    ROLLBACK_FORBIDDEN,
    message_of,
)
from deployments.rules.events import EventName
from deployments.rules.evidence import (
    HAS_MOVED_ON,
    HAS_REBOOTED,
    IS_LOCKED,
    IS_UNREADABLE,
    RUNS_ORDERED,
    SHOWS_FORMER,
    WHY_UNREADABLE,
)
from deployments.rules.triggers import IS_BREACHING
from deployments.services.log import INTO_LOG
from deployments.services.sweeps.statements import identity, row
from health.services.watching import unwatch
from hotswap.common.rows import prepared_cursor

RETRY_BASE_SECONDS = 10
RETRY_MAX_SECONDS = 600
# Over what failed: for good, and not tried again.
IS_FAILED_INSTALL = "kind = 'install' AND next_status <> 'pending'"
IS_FAILED_RETURN = "kind = 'rollback' AND next_status = 'failed'"


def fail(
    deployment: Deployment,
    now: datetime,
    *,
    which: str,
    code: str,
    message: str,
    values: dict[str, Any] | None = None,
    merges: bool = False,
    late_event: EventName = EventName.BREACHED,
    spares_image: str = "false",
) -> int:
    """Fail the orders that a condition names, and say where each device goes next.

    An install that another attempt can mend (a download, a timeout) becomes pending
    with a growing delay. One that none can mend, a breach above all, ends as failed, or
    is ordered back when the device runs or may run the new image; where the image is at
    fault this counts towards its quarantine. A return is tried again until its attempts
    are used up.

    Args:
        which, code, message: SQL over `u` (the order), `t` (its target), `s` (the
            state of the device, perhaps missing) and `f` (the ordered firmware).
        merges: as in `enqueue_devices`.
        late_event: what is notified of installs that fail after the deployment's end.
        spares_image: SQL like `which`: nothing speaks against the image of these
            installs, so that it stays where it is and does not count as a fault.

    Returns:
        How many orders failed.
    """
    has_ended = deployment.finished_at is not None
    failed, shut, named, late, installs = row(
        f"""
        WITH hit AS (
            SELECT u.id, u.target_id, u.kind, {code} AS code, {message} AS message,
                   COALESCE({SHOWS_FORMER}, false) AS is_former,
                   u.installing_at IS NOT NULL OR u.rebooting_at IS NOT NULL
                       OR u.claimed_at IS NOT NULL AS may_run,
                   u.closed_at IS NOT NULL AS was_proved,
                   COALESCE({spares_image}, false) AS is_spared
            FROM deployments_update u
            JOIN deployments_target t ON t.id = u.target_id
            JOIN firmware_firmware f ON f.id = u.firmware_id
            LEFT JOIN health_devicestate s ON s.device_id = u.device_id
            WHERE u.deployment_id = %(deployment)s AND ({which})
            ORDER BY u.id
            FOR NO KEY UPDATE OF u SKIP LOCKED
        ), closed AS (
            UPDATE deployments_update u
            SET status = 'failed', closed_at = COALESCE(u.closed_at, %(now)s),
                error_code = hit.code, message = left(hit.message, 500)
            FROM hit WHERE u.id = hit.id
            RETURNING u.target_id
        ), aimed AS (
            SELECT t.id, hit.code, hit.message, hit.kind, hit.is_spared,
                CASE
                    WHEN hit.kind = 'rollback' AND hit.code <> %(refused)s
                         AND t.rollback_attempt < %(attempts)s
                        THEN 'rolling_back'
                    WHEN hit.kind = 'rollback' OR hit.is_spared THEN 'failed'
                    WHEN NOT hit.was_proved AND t.attempt < %(attempts)s
                         AND NOT hit.code = ANY(%(final)s)
                         AND NOT hit.code = ANY(%(breaches)s)
                        THEN 'pending'
                    WHEN hit.is_former OR NOT hit.may_run THEN 'failed'
                    WHEN t.from_firmware_id IS NULL OR {IS_LOCKED} THEN 'failed'
                    ELSE 'rolling_back'
                END AS next_status,
                CASE
                    WHEN hit.kind <> 'install' OR NOT hit.may_run OR hit.is_former
                         OR hit.is_spared
                        THEN ''
                    WHEN t.from_firmware_id IS NULL
                        THEN '; {message_of(NO_PREVIOUS_IMAGE)}'
                    WHEN {IS_LOCKED} THEN '; {message_of(ROLLBACK_FORBIDDEN)}'
                    ELSE '' END AS no_way_back
            FROM hit JOIN deployments_target t ON t.id = hit.target_id
            JOIN closed ON closed.target_id = t.id
        ), moved AS (
            UPDATE deployments_target t
            SET status = aimed.next_status,
                error_code = CASE
                    WHEN aimed.kind = 'rollback' AND aimed.code = %(refused)s
                        THEN 'rollback_forbidden'
                    WHEN aimed.kind = 'rollback' AND aimed.next_status = 'failed'
                        THEN 'rollback_unconfirmed'
                    WHEN aimed.kind = 'rollback' THEN t.error_code
                    ELSE aimed.code END,
                message = left(aimed.message || CASE aimed.next_status
                    WHEN 'failed' THEN aimed.no_way_back ELSE '' END, 500),
                settled_at = CASE WHEN aimed.next_status = 'failed'
                    THEN %(now)s::timestamptz END,
                returning_since = CASE WHEN aimed.next_status = 'rolling_back'
                    THEN COALESCE(t.returning_since, %(now)s::timestamptz) END,
                next_attempt_at = CASE WHEN aimed.next_status = 'pending' THEN
                    %(now)s::timestamptz + make_interval(secs => LEAST(%(delay_max)s,
                        %(delay)s * power(2, GREATEST(t.attempt - 1, 0)))) END,
                progress_percent = NULL,
                updated_at = %(now)s
            FROM aimed WHERE t.id = aimed.id
            RETURNING t.deployment_id, t.device_id, t.stage_number,
                      aimed.next_status, aimed.kind, aimed.code, aimed.is_spared,
                      t.message
        ), counted AS (
            INSERT INTO deployments_quarantine AS q
                (device_id, firmware_id, failures, last_code, updated_at,
                 quarantined_at)
            SELECT device_id, %(firmware)s, 1, code, %(now)s,
                   CASE WHEN %(quarantine)s = 1 THEN %(now)s::timestamptz END
            FROM moved
            WHERE kind = 'install' AND next_status IN ('failed', 'rolling_back')
              AND code = ANY(%(faults)s) AND %(quarantine)s > 0 AND NOT is_spared
            ORDER BY device_id
            ON CONFLICT (device_id, firmware_id) DO UPDATE
            SET failures = q.failures + 1, last_code = EXCLUDED.last_code,
                updated_at = EXCLUDED.updated_at,
                quarantined_at = CASE WHEN q.failures + 1 >= %(quarantine)s
                    THEN COALESCE(q.quarantined_at, EXCLUDED.updated_at) END
            RETURNING q.device_id, q.failures, q.last_code, q.quarantined_at
        ), shut AS (
            {INTO_LOG}
            SELECT moved.deployment_id, %(now)s, 'ERROR', 'device.quarantined',
                   moved.device_id, moved.stage_number,
                   'this firmware has failed on it ' || counted.failures
                   || ' times and is not offered to it again until it is released'
            FROM counted JOIN moved ON moved.device_id = counted.device_id
            WHERE counted.quarantined_at = %(now)s
            RETURNING device_id
        ), logged AS (
            {INTO_LOG}
            SELECT deployment_id, %(now)s,
                   CASE next_status WHEN 'pending' THEN 'WARNING' ELSE 'ERROR' END,
                   CASE WHEN kind = 'rollback' THEN 'device.return_failed'
                        WHEN code IN ('self_test_failed', 'fell_back')
                            THEN 'device.fell_back'
                        WHEN next_status = 'pending' THEN 'device.retry'
                        ELSE 'device.failed' END,
                   device_id, stage_number,
                   code || ': ' || message || CASE next_status
                       WHEN 'pending' THEN '; it is tried again'
                       WHEN 'rolling_back' THEN '; it is ordered back'
                       ELSE '' END
            FROM moved
            RETURNING 1
        ), failed AS (
            SELECT *, CASE kind WHEN 'install' THEN code ELSE 'failed' END AS outcome
            FROM ({labelled("moved")}) AS each
        ), unverified AS (
            SELECT region, model, code AS outcome FROM failed
            WHERE code = ANY(%(verification)s)
        ), failures AS (
            {DEVICES_FAILED.counting("failed", where=IS_FAILED_INSTALL)}
        ), returns AS (
            {DEVICE_RETURNS.counting("failed", where=IS_FAILED_RETURN)}
        ), verifications AS (
            {VERIFICATIONS_FAILED.counting("unverified")}
        )
        SELECT (SELECT count(*) FROM logged), (SELECT count(*) FROM shut),
               (SELECT json_agg(first) FROM (
                   SELECT d.device_id AS id, counted.failures,
                          counted.last_code AS "errorCode"
                   FROM shut JOIN counted USING (device_id)
                   JOIN devices_device d ON d.id = shut.device_id
                   ORDER BY d.device_id LIMIT %(named)s
               ) first),
               (SELECT json_agg(first) FROM (
                   SELECT d.device_id AS id, moved.code AS "errorCode",
                          d.firmware_version AS "firmwareVersion"
                   FROM moved JOIN devices_device d ON d.id = moved.device_id
                   WHERE %(has_ended)s AND moved.kind = 'install'
                   ORDER BY d.device_id LIMIT %(named)s
               ) first),
               (SELECT count(*) FROM moved WHERE kind = 'install')
        """,
        {
            "deployment": deployment.pk,
            "now": now,
            "attempts": deployment.max_attempts,
            "final": sorted(FINAL_CODES),
            "refused": "security_version_too_low",
            "breaches": sorted(BREACHES),
            "delay": RETRY_BASE_SECONDS,
            "delay_max": RETRY_MAX_SECONDS,
            "firmware": deployment.firmware_id,
            "faults": sorted(IMAGE_FAULTS),
            "quarantine": settings.QUARANTINE_AFTER,
            "verification": list(VERIFICATION_CODES),
            "named": NAMED_DEVICES,
            "has_ended": has_ended,
            **(values or {}),
        },
    )
    if shut:
        enqueue_devices(
            deployment,
            EventName.QUARANTINED,
            devices=named,
            total=shut,
            now=now,
            merges=merges,
        )
    if installs and has_ended:
        enqueue_devices(
            deployment,
            late_event,
            devices=late,
            total=installs,
            now=now,
            merges=merges,
        )
    return int(failed)


def fail_breached(deployment: Deployment, now: datetime) -> int:
    """Fail the devices that health found in breach of a limit.

    Orders at work are judged from their reboot on, proved ones as long as they are
    watched. A return is not failed by a breach: it simply is not proved.
    """
    return fail(
        deployment,
        now,
        which="""u.kind = 'install' AND s.watch_id = u.id AND s.breach <> ''
            AND ((u.closed_at IS NULL
                  AND (u.rebooting_at IS NOT NULL OR u.claimed_at IS NOT NULL))
                 OR (u.status = 'success' AND t.status = 'success'))""",
        code="s.breach",
        message="s.breach_detail",
    )


def fail_timed_out(deployment: Deployment, now: datetime, awake_since: datetime) -> int:
    """Fail the orders that were not claimed in time.

    Args:
        awake_since: since when the server has been at work without a gap; devices get
            their whole time from there.
    """
    return fail(
        deployment,
        now,
        which="""u.closed_at IS NULL AND u.claimed_at IS NULL
            AND GREATEST(u.offered_at, %(awake)s) + %(timeout)s < %(now)s""",
        code="'timeout'",
        message="'no claim before the deadline; last it said: ' || u.status",
        values={"awake": awake_since, "timeout": deployment.device_timeout},
    )


# From when a claim is to be proved: time in which the device was not understood does
# not count, unless the deployment is to end.
PROOF_STARTS = """GREATEST(u.claimed_at, %(awake)s,
    CASE WHEN NOT %(cancels)s THEN s.last_unreadable_at END)"""
# It shows the ordered image, from a boot that may count.
SHOWS_ORDERED = f"""COALESCE(s.last_heartbeat_at >= u.claimed_at
    AND {RUNS_ORDERED} AND {HAS_REBOOTED}, false)"""


def fail_unproved(deployment: Deployment, now: datetime, awake_since: datetime) -> int:
    """Fail the claims that no proof has followed in time.

    An install that does not show what it claims fails as `not_proven` once the time
    for its proof is over. One that shows the ordered image is either judged by its
    limits or proved: as long as it exceeds a limit whose time still runs, and while a
    healthy spell that may become its proof lasts, nothing strikes. One that has been
    neither when the longest limit could have run out, too, fails as `unhealthy`.

    A return fails so only if the last that the device showed is not what it claims.
    While it is merely silent, or not healthy for long enough, another order would not
    help it: it is waited for, as long as `give_up_returns` allows.

    An install on a device that is heard and not understood does not fail by that:
    nothing is known of its health (`find_unreadable`), and once it is understood it
    has its whole time. Where the deployment is being cancelled it ends, and the image
    stays where it is.

    Source: FR-FW-005, Rollback Triggers; docs/architecture/proof.md#no-proof.
    """
    values = {
        "proof_timeout": deployment.proof_timeout,
        "awake": awake_since,
        "settling": deployment.settling_timeout,
        "cancels": deployment.cancel_requested_at is not None,
    }
    failed = fail(
        deployment,
        now,
        which=f"""u.closed_at IS NULL AND u.claimed_at IS NOT NULL
            AND {PROOF_STARTS} + %(proof_timeout)s < %(now)s
            AND CASE WHEN u.kind = 'install'
                     THEN NOT {SHOWS_ORDERED} AND (%(cancels)s OR NOT {IS_UNREADABLE})
                     ELSE s.last_heartbeat_at >= u.claimed_at
                          AND NOT ({RUNS_ORDERED} AND {HAS_REBOOTED}) END""",
        code="'not_proven'",
        message=f"""CASE
            WHEN {IS_UNREADABLE} THEN {WHY_UNREADABLE}
            WHEN s.last_heartbeat_at IS NULL OR s.last_heartbeat_at < u.claimed_at
                THEN 'no heartbeat since its claim'
            WHEN NOT {RUNS_ORDERED}
                THEN 'it claims ' || f.version || ' and runs ' || CASE
                    WHEN s.firmware_version = f.version
                        THEN 'other bytes that it calls the same'
                    ELSE s.firmware_version END
            WHEN u.boot_id_before = '' AND u.boot_count_before IS NULL
                THEN 'its boot before the update is not known'
            ELSE 'it has not rebooted' END""",
        values=values,
        spares_image=IS_UNREADABLE,
    )
    return failed + fail(
        deployment,
        now,
        which=f"""u.closed_at IS NULL AND u.claimed_at IS NOT NULL
            AND u.kind = 'install' AND s.watch_id = u.id AND s.breach = ''
            AND {PROOF_STARTS} + %(settling)s < %(now)s
            AND {SHOWS_ORDERED} AND NOT {IS_BREACHING}
            AND (%(cancels)s OR NOT {IS_UNREADABLE})
            -- A healthy spell that began in time may still become the proof.
            AND (s.healthy_since IS NULL
                 OR s.healthy_since > {PROOF_STARTS} + %(settling)s
                 OR {PROOF_STARTS} + %(settling)s + %(proof_timeout)s
                     < %(now)s)""",
        code="'unhealthy'",
        message=f"""CASE WHEN {IS_UNREADABLE} THEN {WHY_UNREADABLE}
            WHEN s.healthy_count < %(beats)s
                AND s.healthy_since + %(proof_timeout)s < %(now)s
            THEN 'too few heartbeats since its claim'
            ELSE 'it did not stay healthy for the confirmation window' END""",
        values=values | {"beats": deployment.criteria.heartbeats_required},
        spares_image=IS_UNREADABLE,
    )


@dataclass(frozen=True, slots=True)
class Departed:
    """Proved and watched devices that have left the image, by the ids of their orders.

    Attributes:
        moved_on: somebody else has updated them, which says nothing of the image.
        fallen_back: all others.
    """

    moved_on: tuple[UUID, ...]
    fallen_back: tuple[UUID, ...]


def find_departed(deployment: Deployment) -> Departed:
    """Find the proved devices that now run something else than this firmware."""
    moved_on, fallen_back = row(
        f"""
        SELECT COALESCE(array_agg(u.id) FILTER (WHERE {HAS_MOVED_ON}), '{{}}'),
               COALESCE(array_agg(u.id) FILTER (WHERE NOT {HAS_MOVED_ON}), '{{}}')
        FROM deployments_update u
        JOIN deployments_target t ON t.id = u.target_id
        JOIN firmware_firmware f ON f.id = u.firmware_id
        JOIN health_devicestate s ON s.device_id = u.device_id
        WHERE u.deployment_id = %(deployment)s
          AND u.kind = 'install' AND u.status = 'success' AND t.status = 'success'
          AND s.watch_id = u.id AND s.left_image_at IS NOT NULL
          AND s.last_heartbeat_at > u.closed_at
          AND s.firmware_checksum NOT IN ('', f.sha256)
        """,
        identity(deployment),
    )
    return Departed(tuple(moved_on), tuple(fallen_back))


def unwatch_moved_on(deployment: Deployment, departed: Departed, now: datetime) -> None:
    """Stop watching the devices that have moved on; the log names them."""
    if not departed.moved_on:
        return
    orders = list(departed.moved_on)
    with prepared_cursor() as cursor:
        cursor.execute(
            f"""
            {INTO_LOG}
            SELECT t.deployment_id, %(now)s, 'WARNING', 'device.moved_on', t.device_id,
                   t.stage_number, 'it runs ' || s.firmware_version || ', which is '
                   'newer and not of any deployment known here: it is watched no longer'
            FROM deployments_update u
            JOIN deployments_target t ON t.id = u.target_id
            JOIN health_devicestate s ON s.device_id = u.device_id
            WHERE u.id = ANY(%(orders)s)
            """,
            {"orders": orders, "now": now},
        )
    unwatch(watch_ids=orders, now=now)


def fail_fallen_back(deployment: Deployment, departed: Departed, now: datetime) -> int:
    """Fail the devices that have fallen back, unless they have failed meanwhile."""
    if not departed.fallen_back:
        return 0
    return fail(
        deployment,
        now,
        which="""u.id = ANY(%(orders)s)
            AND u.status = 'success' AND t.status = 'success'""",
        code="'fell_back'",
        message="""'it runs ' || s.firmware_version || CASE
            WHEN s.firmware_checksum = t.from_checksum THEN ' again'
            ELSE ' instead of ' || f.version END""",
        values={"orders": list(departed.fallen_back)},
        late_event=EventName.FELL_BACK,
    )


def fail_reported(
    deployment: Deployment, now: datetime, *, update_id: Any, code: str, message: str
) -> int:
    """Fail one order because its device says so; the caller holds its lock."""
    return fail(
        deployment,
        now,
        which="u.id = %(update)s",
        code="%(code)s::text",
        message="%(message)s::text",
        values={"update": update_id, "code": code, "message": message},
        merges=True,
    )
