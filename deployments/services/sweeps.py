"""What the tick finds out about devices, each by one statement.

Rules:
- A device is proved by what it shows after its claim, never by the claim.
- Bad news is looked at before good news.
- Orders that a device is reporting on right now are skipped and found a second later.
- A device that fails goes back if it runs, or may run, the new image; one whose
  heartbeats show its former image stays where it is, and so does one that would have
  to refuse its former image (`rollback_forbidden`).

The statements are written out in SQL, because they move up to 100,000 rows and write
the log in the same breath.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Exists, OuterRef

from deployments.choices import (
    FINAL_ERRORS,
    IMAGE_FAULTS,
    UNFINISHED,
    NotifiedEvent,
    TargetStatus,
)
from deployments.models import Deployment, Target, Update
from deployments.notifications.telling import NAMED_DEVICES, tell_devices
from hotswap.common.rows import prepared_cursor

RETRY_BASE_SECONDS = 10
RETRY_MAX_SECONDS = 600
ROLLBACK_PATIENCE = timedelta(hours=1)

# The device is on its former image and stays there: by a heartbeat newer than the last
# thing it said about the order, and, once it has begun to install, either after another
# boot or after its own word that it gave up. Until then it may still boot the new one.
SHOWS_FORMER = """(
    s.firmware_checksum <> '' AND s.firmware_checksum = t.from_checksum
    AND s.last_heartbeat_at >= COALESCE(u.rebooting_at, u.installing_at, u.offered_at)
    AND (u.installing_at IS NULL OR u.gave_up_at IS NOT NULL
         OR (u.boot_id_before <> '' AND s.boot_id <> u.boot_id_before))
    AND (u.rebooting_at IS NULL
         OR (u.boot_id_before <> '' AND s.boot_id <> u.boot_id_before))
)"""
# A later deployment has updated the device since; the same condition as `has_moved_on`.
# Whether there is a later one is asked once. OFFSET keeps PostgreSQL from gathering the
# successes of all deployments there ever were.
MOVED_ON = """(
    EXISTS (SELECT 1 FROM deployments_deployment WHERE created_at > %(created)s)
    AND EXISTS (
        SELECT 1 FROM deployments_target later
        JOIN deployments_deployment other ON other.id = later.deployment_id
        JOIN devices_device dev ON dev.id = later.device_id
        WHERE later.device_id = t.device_id AND later.status = 'success'
          AND other.created_at > %(created)s
          AND (other.firmware_id = %(firmware)s
               OR dev.firmware_checksum <> %(sha256)s)
        OFFSET 0
    )
)"""

# The device has confirmed a higher security version than its former image has: it would
# refuse to go back, so it is not asked to.
IS_LOCKED = """(
    -- Asked once: where no device has one above 0, none is looked up.
    EXISTS (SELECT 1 FROM devices_device WHERE security_version > 0)
    AND EXISTS (
        SELECT 1 FROM devices_device floor_of
        JOIN firmware_firmware former ON former.id = t.from_firmware_id
        WHERE floor_of.id = t.device_id
          AND floor_of.security_version > former.security_version
    )
)"""
# The device was allowed to begin: before that it must not install.
HAS_BEGUN = """EXISTS (
    SELECT 1 FROM deployments_update began
    WHERE began.target_id = t.id AND began.kind = 'install'
      AND COALESCE(began.installing_at, began.rebooting_at, began.claimed_at)
          IS NOT NULL
)"""
LOCKED_SAID = "its former image has a lower security version than it has confirmed"


def _identity(deployment: Deployment) -> dict[str, Any]:
    """Return what `MOVED_ON` asks for."""
    return {
        "deployment": deployment.pk,
        "created": deployment.created_at,
        "firmware": deployment.firmware_id,
        "sha256": deployment.firmware.sha256,
    }


def _row(statement: str, parameters: dict[str, Any]) -> Sequence[Any]:
    with prepared_cursor() as cursor:
        cursor.execute(statement, parameters)
        row: Sequence[Any] = cursor.fetchone()
    return row


def _run(statement: str, parameters: dict[str, Any]) -> int:
    return int(_row(statement, parameters)[0])


def prove(deployment: Deployment, now: datetime) -> int:
    """Settle the orders whose devices have proved themselves.

    Proof, after the claim: heartbeats that name the ordered version and SHA-256, from
    a new boot where one was needed, without a breach, healthy without a break for the
    confirmation window. A breach ends an install for good; of a return it takes what
    was healthy so far, and a whole window after it is proof.

    Returns:
        How many devices were proved.

    Source: design, A claim is not a proof.
    """
    criteria = deployment.criteria
    return _run(
        """
        WITH proved AS (
            SELECT u.id, s.device_id, f.security_version, f.version, f.sha256
            FROM deployments_update u
            JOIN firmware_firmware f ON f.id = u.firmware_id
            -- One after the other (OFFSET): of 100 deployments at once none shall look
            -- at what the others' devices do.
            CROSS JOIN LATERAL (
                SELECT * FROM health_devicestate each
                WHERE each.device_id = u.device_id OFFSET 0
            ) s
            WHERE u.deployment_id = %(deployment)s
              AND u.closed_at IS NULL
              AND u.claimed_at IS NOT NULL
              AND s.watch_id = u.id
              AND (s.breach = '' OR u.kind = 'rollback')
              AND s.firmware_checksum = f.sha256
              AND s.firmware_version = f.version
              AND (NOT u.reboot_required
                   OR (u.boot_id_before <> '' AND s.boot_id <> u.boot_id_before))
              AND s.healthy_count >= %(beats)s
              AND s.last_heartbeat_at >= s.healthy_since + %(window)s
            ORDER BY u.id
            FOR NO KEY UPDATE OF u SKIP LOCKED
        ), closed AS (
            UPDATE deployments_update u
            SET status = 'success', closed_at = %(now)s
            FROM proved WHERE u.id = proved.id
            RETURNING u.target_id, u.device_id, u.kind,
                      proved.version, proved.sha256, proved.security_version
        ), moved AS (
            UPDATE deployments_target t
            SET status = CASE closed.kind WHEN 'install' THEN 'success'
                                          ELSE 'rolled_back' END,
                settled_at = %(now)s, updated_at = %(now)s, progress_percent = NULL
            FROM closed WHERE t.id = closed.target_id
            RETURNING t.deployment_id, t.device_id, t.stage_number,
                      closed.kind, closed.version
        ), raised AS (
            UPDATE devices_device d SET security_version = closed.security_version
            FROM closed
            WHERE d.id = closed.device_id
              AND d.security_version < closed.security_version
            RETURNING 1
        ), known AS (
            UPDATE devices_firmwarerun r
            SET how = CASE closed.kind WHEN 'install' THEN 'proved'
                                       ELSE 'returned' END
            FROM closed
            WHERE r.device_id = closed.device_id AND r.until IS NULL
              AND r.checksum = closed.sha256
              -- The row of the device first, as a heartbeat takes them.
              AND (SELECT count(*) FROM raised) >= 0
        ), logged AS (
            INSERT INTO deployments_event
                (deployment_id, at, level, event, device_id, stage_number, message)
            SELECT deployment_id, %(now)s, 'INFO',
                   CASE kind WHEN 'install' THEN 'device.updated'
                             ELSE 'device.returned' END,
                   device_id, stage_number, 'proved that it runs ' || version
            FROM moved
            RETURNING 1
        )
        SELECT count(*) FROM logged
        """,
        {
            "deployment": deployment.pk,
            "now": now,
            "beats": criteria.heartbeats_required,
            "window": criteria.confirmation_duration,
        },
    )


def fail(
    deployment: Deployment,
    now: datetime,
    *,
    which: str,
    code: str,
    message: str,
    values: dict[str, Any] | None = None,
    joins: bool = False,
) -> int:
    """Fail the orders that a condition names, and say where each device goes next.

    An install that may be tried again becomes pending with a growing delay. One that
    may not ends as failed, or is ordered back when the device runs or may run the new
    image; where the image is at fault this counts towards its quarantine. A return is
    tried again until its attempts are used up.

    Args:
        which, code, message: SQL over `u` (the order), `t` (its target), `s` (the
            state of the device, perhaps missing) and `f` (the ordered firmware).
        joins: as in `tell_devices`, for devices that are quarantined.

    Returns:
        How many orders failed.
    """
    failed, shut, named = _row(
        f"""
        WITH hit AS (
            SELECT u.id, u.target_id, u.kind, {code} AS code, {message} AS message,
                   COALESCE({SHOWS_FORMER}, false) AS is_former,
                   u.installing_at IS NOT NULL OR u.rebooting_at IS NOT NULL
                       OR u.claimed_at IS NOT NULL AS may_run,
                   u.closed_at IS NOT NULL AS was_proved
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
            SELECT t.id, hit.code, hit.message, hit.kind,
                CASE
                    WHEN hit.kind = 'rollback' AND hit.code <> %(refused)s
                         AND t.rollback_attempt < %(attempts)s
                        THEN 'rolling_back'
                    WHEN hit.kind = 'rollback' THEN 'failed'
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
                        THEN ''
                    WHEN t.from_firmware_id IS NULL
                        THEN '; its former image is not on the server'
                    WHEN {IS_LOCKED} THEN '; {LOCKED_SAID}'
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
                      aimed.next_status, aimed.kind, aimed.code, t.message
        ), counted AS (
            INSERT INTO deployments_quarantine AS q
                (device_id, firmware_id, failures, last_code, updated_at,
                 quarantined_at)
            SELECT device_id, %(firmware)s, 1, code, %(now)s,
                   CASE WHEN %(quarantine)s = 1 THEN %(now)s::timestamptz END
            FROM moved
            WHERE kind = 'install' AND next_status IN ('failed', 'rolling_back')
              AND code = ANY(%(faults)s) AND %(quarantine)s > 0
            ORDER BY device_id
            ON CONFLICT (device_id, firmware_id) DO UPDATE
            SET failures = q.failures + 1, last_code = EXCLUDED.last_code,
                updated_at = EXCLUDED.updated_at,
                quarantined_at = CASE WHEN q.failures + 1 >= %(quarantine)s
                    THEN COALESCE(q.quarantined_at, EXCLUDED.updated_at) END
            RETURNING q.device_id, q.failures, q.last_code, q.quarantined_at
        ), shut AS (
            INSERT INTO deployments_event
                (deployment_id, at, level, event, device_id, stage_number, message)
            SELECT moved.deployment_id, %(now)s, 'ERROR', 'device.quarantined',
                   moved.device_id, moved.stage_number,
                   'this firmware has failed on it ' || counted.failures
                   || ' times and is not offered to it again until it is released'
            FROM counted JOIN moved ON moved.device_id = counted.device_id
            WHERE counted.quarantined_at = %(now)s
            RETURNING device_id
        ), logged AS (
            INSERT INTO deployments_event
                (deployment_id, at, level, event, device_id, stage_number, message)
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
        )
        SELECT (SELECT count(*) FROM logged), (SELECT count(*) FROM shut),
               (SELECT json_agg(first) FROM (
                   SELECT d.device_id AS id, counted.failures,
                          counted.last_code AS "errorCode"
                   FROM shut JOIN counted USING (device_id)
                   JOIN devices_device d ON d.id = shut.device_id
                   ORDER BY d.device_id LIMIT %(named)s
               ) first)
        """,
        {
            "deployment": deployment.pk,
            "now": now,
            "attempts": deployment.max_attempts,
            "final": sorted(FINAL_ERRORS),
            "refused": "security_version_too_low",
            "breaches": ["offline", "cpu", "memory", "error_rate", "fell_back"],
            "delay": RETRY_BASE_SECONDS,
            "delay_max": RETRY_MAX_SECONDS,
            "firmware": deployment.firmware_id,
            "faults": sorted(IMAGE_FAULTS),
            "quarantine": settings.QUARANTINE_AFTER,
            "named": NAMED_DEVICES,
            **(values or {}),
        },
    )
    tell_devices(
        deployment,
        NotifiedEvent.QUARANTINED,
        devices=named or (),
        total=shut,
        now=now,
        joins=joins,
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


def fail_unproved(deployment: Deployment, now: datetime, awake_since: datetime) -> int:
    """Fail the claims that no proof has followed in time.

    A return fails so only if the last that the device showed is not what it claims.
    While it is merely silent, or not healthy for long enough, another order would not
    help it: it is waited for, as long as `give_up_returns` allows.

    Source: design, A claim is not a proof (`not_proven`).
    """
    return fail(
        deployment,
        now,
        which="""u.closed_at IS NULL AND u.claimed_at IS NOT NULL
            AND GREATEST(u.claimed_at, %(awake)s) + %(patience)s < %(now)s
            AND (u.kind = 'install'
                 OR (s.last_heartbeat_at >= u.claimed_at
                     AND (s.firmware_checksum <> f.sha256
                          OR s.firmware_version <> f.version
                          OR (u.reboot_required
                              AND u.boot_id_before IN ('', s.boot_id)))))""",
        code="'not_proven'",
        message="""CASE
            WHEN s.last_heartbeat_at IS NULL OR s.last_heartbeat_at < u.claimed_at
                THEN 'no heartbeat since its claim'
            WHEN s.firmware_checksum <> f.sha256 OR s.firmware_version <> f.version
                THEN 'it claims ' || f.version || ' and runs ' || s.firmware_version
            WHEN u.reboot_required AND u.boot_id_before = ''
                THEN 'its boot before the update is not known'
            WHEN u.reboot_required AND s.boot_id = u.boot_id_before
                THEN 'it has not rebooted'
            ELSE 'it did not stay healthy for the confirmation window' END""",
        values={"patience": deployment.proof_patience, "awake": awake_since},
    )


def fail_fallen_back(deployment: Deployment, now: datetime) -> int:
    """Fail proved devices that now run something else than this firmware."""
    return fail(
        deployment,
        now,
        which="""u.kind = 'install' AND u.status = 'success' AND t.status = 'success'
            AND s.watch_id = u.id AND s.left_image_at IS NOT NULL
            AND s.last_heartbeat_at > u.closed_at
            AND s.firmware_checksum <> f.sha256""",
        code="'fell_back'",
        message="'it runs ' || s.firmware_version || ' again'",
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
        joins=True,
    )


def skip_unseen(deployment: Deployment, now: datetime, awake_since: datetime) -> int:
    """Skip the targets of open stages that were never seen before the deadline."""
    return _run(
        """
        WITH moved AS (
            UPDATE deployments_target t
            SET status = 'skipped', error_code = 'never_seen',
                message = 'it was not seen before the offline deadline',
                settled_at = %(now)s, updated_at = %(now)s
            FROM deployments_stage st
            WHERE t.deployment_id = %(deployment)s AND t.status = 'pending'
              AND t.exposed_at IS NULL
              AND st.deployment_id = t.deployment_id AND st.number = t.stage_number
              -- Said on its own: GREATEST leaves NULLs out.
              AND st.opened_at IS NOT NULL
              AND GREATEST(st.opened_at, %(resumed)s::timestamptz, %(awake)s)
                  + %(deadline)s < %(now)s
            RETURNING t.deployment_id, t.device_id, t.stage_number, t.message
        ), logged AS (
            INSERT INTO deployments_event
                (deployment_id, at, level, event, device_id, stage_number, message)
            SELECT deployment_id, %(now)s, 'WARNING', 'device.skipped', device_id,
                   stage_number, message
            FROM moved
            RETURNING 1
        )
        SELECT count(*) FROM logged
        """,
        {
            "deployment": deployment.pk,
            "now": now,
            "deadline": deployment.offline_deadline,
            "resumed": deployment.resumed_at,
            "awake": awake_since,
        },
    )


def fail_vanished(deployment: Deployment, now: datetime, awake_since: datetime) -> int:
    """Fail the devices that did not come back for their next attempt in time."""
    return _end_retries(
        deployment,
        now,
        which="""GREATEST(t.next_attempt_at, %(resumed)s::timestamptz, %(awake)s)
            + %(deadline)s < %(now)s""",
        otherwise="failed",
        said="it did not come back for its next attempt",
        values={
            "deadline": deployment.offline_deadline,
            "resumed": deployment.resumed_at,
            "awake": awake_since,
        },
    )


def _end_retries(
    deployment: Deployment,
    now: datetime,
    *,
    which: str,
    otherwise: str,
    said: str,
    values: dict[str, Any] | None = None,
) -> int:
    """End targets that wait for another attempt.

    A device that had begun to install and has not shown its former image since goes
    back; one that had not gets the status `otherwise`.
    """
    return _run(
        f"""
        WITH waiting AS (
            SELECT DISTINCT ON (t.id) t.id,
                   NOT COALESCE({SHOWS_FORMER}, false) AND {HAS_BEGUN} AS may_run
            FROM deployments_target t
            JOIN deployments_update u ON u.target_id = t.id AND u.kind = 'install'
            LEFT JOIN health_devicestate s ON s.device_id = t.device_id
            WHERE t.deployment_id = %(deployment)s AND t.status = 'pending'
              AND t.exposed_at IS NOT NULL AND ({which})
            ORDER BY t.id, u.offered_at DESC
        ), aimed AS (
            SELECT t.id, CASE WHEN NOT waiting.may_run THEN %(otherwise)s::text
                              WHEN t.from_firmware_id IS NULL OR {IS_LOCKED}
                                  THEN 'failed'
                              ELSE 'rolling_back' END AS next_status
            FROM waiting JOIN deployments_target t ON t.id = waiting.id
        ), moved AS (
            UPDATE deployments_target t
            SET status = aimed.next_status,
                message = left(t.message || '; ' || %(said)s::text, 500),
                settled_at = CASE WHEN aimed.next_status <> 'rolling_back'
                    THEN %(now)s::timestamptz END,
                returning_since = CASE WHEN aimed.next_status = 'rolling_back'
                    THEN %(now)s::timestamptz END,
                next_attempt_at = NULL, progress_percent = NULL, updated_at = %(now)s
            FROM aimed WHERE t.id = aimed.id AND t.status = 'pending'
            RETURNING t.deployment_id, t.device_id, t.stage_number, t.status
        ), logged AS (
            INSERT INTO deployments_event
                (deployment_id, at, level, event, device_id, stage_number, message)
            SELECT deployment_id, %(now)s, 'ERROR', 'device.failed', device_id,
                   stage_number, %(said)s::text || CASE status
                       WHEN 'rolling_back' THEN '; it is ordered back' ELSE '' END
            FROM moved WHERE status <> 'cancelled'
        )
        SELECT count(*) FROM moved
        """,
        {
            "deployment": deployment.pk,
            "now": now,
            "otherwise": otherwise,
            "said": said,
            **(values or {}),
        },
    )


def retry(deployment: Deployment, now: datetime) -> int:
    """Plan every target anew that failed, or whose device was sent back alone.

    Returns:
        How many there are.
    """
    unfinished = Update.objects.filter(target=OuterRef("pk"), closed_at__isnull=True)
    return Target.objects.filter(
        ~Exists(unfinished),
        deployment=deployment,
        status__in=[TargetStatus.FAILED, TargetStatus.ROLLED_BACK],
    ).update(
        status=TargetStatus.PENDING,
        attempt=0,
        rollback_attempt=0,
        error_code="",
        message="",
        returning_since=None,
        settled_at=None,
        # From here on it is waited for, as after any attempt.
        next_attempt_at=now,
        updated_at=now,
    )


def stop_unstarted(deployment: Deployment, now: datetime) -> int:
    """Stop what has not begun to install (cancel): plans and stoppable orders.

    Nothing is tried again. A device that had begun to install before its attempt
    failed may run the new image, unproved: it goes back.
    """
    ended = _end_retries(
        deployment,
        now,
        which="true",
        otherwise="cancelled",
        said="the deployment was cancelled before its next attempt",
    )
    return ended + _run(
        """
        WITH stopped AS (
            SELECT u.id FROM deployments_update u
            WHERE u.deployment_id = %(deployment)s AND u.closed_at IS NULL
              AND u.kind = 'install'
              AND u.status IN ('notified', 'downloading', 'verifying')
            ORDER BY u.id
            FOR NO KEY UPDATE SKIP LOCKED
        ), closed AS (
            UPDATE deployments_update u
            SET status = 'cancelled', closed_at = %(now)s
            FROM stopped WHERE u.id = stopped.id
            RETURNING u.target_id
        ), aimed AS (
            -- Joined, not asked for in a subquery: PostgreSQL cannot ask a changing
            -- statement again when a poll has changed the row in between.
            SELECT target_id AS id, true AS was_ordered FROM closed
            UNION ALL
            SELECT id, false FROM deployments_target
            WHERE deployment_id = %(deployment)s AND status = 'pending'
              AND exposed_at IS NULL
        ), moved AS (
            UPDATE deployments_target t
            SET status = 'cancelled', settled_at = %(now)s, updated_at = %(now)s,
                progress_percent = NULL
            FROM aimed
            WHERE t.id = aimed.id AND (aimed.was_ordered
                OR (t.status = 'pending' AND t.exposed_at IS NULL))
            RETURNING 1
        )
        SELECT count(*) FROM moved
        """,
        {"deployment": deployment.pk, "now": now},
    )


def send_back(deployment: Deployment, now: datetime) -> int:
    """Order every exposed device back that runs, or may run, the new image.

    Level-triggered: run at every tick of a rollback, so that an order given in the
    very moment the rollback began is found by the next one. Devices that were never
    exposed are cancelled; those that a later deployment has updated are left alone.

    Returns:
        How many devices were newly ordered back.

    Source: FR-FW-006, steps 2 to 4.
    """
    return _run(
        f"""
        WITH unexposed AS (
            UPDATE deployments_target t
            SET status = 'cancelled', settled_at = %(now)s, updated_at = %(now)s
            WHERE t.deployment_id = %(deployment)s AND t.status = 'pending'
              AND t.exposed_at IS NULL
        ), open_orders AS (
            SELECT u.id FROM deployments_update u
            WHERE u.deployment_id = %(deployment)s AND u.closed_at IS NULL
              AND u.kind = 'install'
            ORDER BY u.id
            FOR NO KEY UPDATE SKIP LOCKED
        ), closed AS (
            UPDATE deployments_update u
            SET status = 'superseded', closed_at = %(now)s
            FROM open_orders WHERE u.id = open_orders.id
            RETURNING u.target_id
        ), concerned AS (
            SELECT t.id, false AS was_open FROM deployments_target t
            WHERE t.deployment_id = %(deployment)s
              AND t.status IN ('pending', 'success', 'failed')
            UNION ALL
            SELECT target_id, true FROM closed
        ), judged AS MATERIALIZED (  -- Else each use below would ask again.
            SELECT t.id, t.status, concerned.was_open,
                   {MOVED_ON} AS has_moved_on,
                   {IS_LOCKED} AS is_locked,
                   -- Asked of what failed alone: most have not.
                   t.status = 'failed' AND COALESCE((
                       SELECT {HAS_BEGUN} AND NOT COALESCE({SHOWS_FORMER}, false)
                       FROM deployments_update u
                       LEFT JOIN health_devicestate s ON s.device_id = u.device_id
                       WHERE u.target_id = t.id AND u.kind = 'install'
                       ORDER BY u.offered_at DESC LIMIT 1
                   ), false) AS may_run
            FROM concerned JOIN deployments_target t USING (id)
            WHERE t.exposed_at IS NOT NULL
              AND t.error_code NOT IN ('rollback_unconfirmed', 'no_previous_image',
                                       'rollback_forbidden')
              AND NOT EXISTS (
                  SELECT 1 FROM devices_device gone
                  WHERE gone.id = t.device_id AND gone.erased_at IS NOT NULL)
        ), moved AS (
            UPDATE deployments_target t
            SET status = CASE WHEN judged.has_moved_on THEN 'skipped'
                              WHEN t.from_firmware_id IS NULL OR judged.is_locked
                                  THEN 'failed'
                              ELSE 'rolling_back' END,
                error_code = CASE
                    WHEN judged.has_moved_on THEN 'moved_on'
                    WHEN t.from_firmware_id IS NULL THEN 'no_previous_image'
                    WHEN judged.is_locked THEN 'rollback_forbidden'
                    ELSE t.error_code END,
                message = CASE
                    WHEN judged.has_moved_on
                        THEN 'a later deployment has updated the device'
                    WHEN t.from_firmware_id IS NULL
                        THEN 'its former image is not on the server'
                    WHEN judged.is_locked THEN '{LOCKED_SAID}'
                    ELSE t.message END,
                settled_at = CASE
                    WHEN judged.has_moved_on OR t.from_firmware_id IS NULL
                         OR judged.is_locked
                        THEN %(now)s::timestamptz END,
                returning_since = CASE
                    WHEN NOT judged.has_moved_on AND t.from_firmware_id IS NOT NULL
                         AND NOT judged.is_locked
                        THEN %(now)s::timestamptz END,
                next_attempt_at = NULL, progress_percent = NULL,
                updated_at = %(now)s
            FROM judged
            WHERE t.id = judged.id
              -- What a poll has changed meanwhile is found by the next tick.
              AND (judged.was_open OR t.status = judged.status)
              -- What failed before it began to install has nothing to go back from;
              -- should it be seen on the new image all the same, it is a stray.
              AND NOT (t.status = 'failed'
                       AND (judged.has_moved_on OR NOT judged.may_run))
            RETURNING t.status
        )
        SELECT count(*) FROM moved WHERE status = 'rolling_back'
        """,
        {**_identity(deployment), "now": now},
    )


def end_erased(deployment: Deployment, now: datetime) -> int:
    """End what a deployment still wants of devices that have been erased.

    The erasure does so itself; this finds what was written at the same moment.
    """
    return _end_erased(
        """t.deployment_id = %(deployment)s AND t.device_id IN (
            SELECT id FROM devices_device
            WHERE erased_at > %(started)s - interval '1 hour')""",
        {
            "deployment": deployment.pk,
            "started": deployment.started_at or deployment.created_at,
        },
        now,
    )


def end_targets_of(device_id: UUID, now: datetime) -> int:
    """End every target and order of a device that is being erased.

    Its failures stay failures and its successes successes; whatever is unfinished is
    `cancelled` with the code `erased` and counts for nothing.
    """
    return _end_erased("t.device_id = %(device)s", {"device": device_id}, now)


def _end_erased(which: str, values: dict[str, Any], now: datetime) -> int:
    return _run(
        f"""
        WITH closed AS (
            UPDATE deployments_update u
            SET status = 'cancelled', closed_at = %(now)s, error_code = 'erased'
            FROM deployments_target t
            WHERE t.id = u.target_id AND u.closed_at IS NULL AND ({which})
        ), moved AS (
            UPDATE deployments_target t
            SET status = CASE WHEN t.status = 'rolling_back' AND t.error_code <> ''
                    THEN 'failed' ELSE 'cancelled' END,
                error_code = CASE WHEN t.status = 'rolling_back' AND t.error_code <> ''
                    THEN t.error_code ELSE 'erased' END,
                message = '', settled_at = %(now)s, updated_at = %(now)s,
                next_attempt_at = NULL, progress_percent = NULL
            WHERE t.status = ANY(%(unfinished)s) AND ({which})
            RETURNING t.deployment_id, t.device_id, t.stage_number
        ), logged AS (
            INSERT INTO deployments_event
                (deployment_id, at, level, event, device_id, stage_number, message)
            SELECT deployment_id, %(now)s, 'INFO', 'device.erased', device_id,
                   stage_number, 'the device was erased and takes no further part'
            FROM moved
            RETURNING 1
        )
        SELECT count(*) FROM logged
        """,
        {"now": now, "unfinished": [str(status) for status in UNFINISHED], **values},
    )


def give_up_returns(
    deployment: Deployment, now: datetime, awake_since: datetime
) -> int:
    """Fail the returns that nobody has proved within an hour.

    The hour runs from when the device was to go back, or the whole deployment was.
    """
    since = max(awake_since, deployment.rollback_started_at or awake_since)
    if since + ROLLBACK_PATIENCE > now:
        return 0
    return _run(
        """
        WITH overdue AS (
            SELECT t.id FROM deployments_target t
            WHERE t.deployment_id = %(deployment)s AND t.status = 'rolling_back'
              AND GREATEST(t.returning_since, %(since)s) + %(patience)s <= %(now)s
        ), closed AS (
            UPDATE deployments_update u
            SET status = 'failed', closed_at = %(now)s,
                error_code = 'rollback_unconfirmed'
            FROM overdue
            WHERE u.target_id = overdue.id AND u.closed_at IS NULL
              AND u.kind = 'rollback'
        ), moved AS (
            UPDATE deployments_target t
            SET status = 'failed', error_code = 'rollback_unconfirmed',
                message = 'it has not proved its former image within an hour',
                settled_at = %(now)s, updated_at = %(now)s
            FROM overdue WHERE t.id = overdue.id AND t.status = 'rolling_back'
            RETURNING t.deployment_id, t.device_id, t.stage_number, t.message
        ), logged AS (
            INSERT INTO deployments_event
                (deployment_id, at, level, event, device_id, stage_number, message)
            SELECT deployment_id, %(now)s, 'ERROR', 'device.return_failed',
                   device_id, stage_number, message
            FROM moved
            RETURNING 1
        )
        SELECT count(*) FROM logged
        """,
        {
            "deployment": deployment.pk,
            "now": now,
            "since": since,
            "patience": ROLLBACK_PATIENCE,
        },
    )


def recall_strays(deployment: Deployment, now: datetime) -> int:
    """Order back the devices that failed and were then seen on the new image.

    A device may have passed the point of no return just as its order was closed. One
    that a later deployment has brought there is no stray.
    """
    return _run(
        f"""
        WITH moved AS (
            UPDATE deployments_target t
            SET status = 'rolling_back', settled_at = NULL,
                returning_since = %(now)s, updated_at = %(now)s
            FROM health_devicestate s, firmware_firmware f
            WHERE t.deployment_id = %(deployment)s AND t.status = 'failed'
              AND t.from_firmware_id IS NOT NULL
              AND t.error_code NOT IN ('rollback_unconfirmed', 'rollback_forbidden')
              AND NOT {IS_LOCKED}
              AND s.device_id = t.device_id AND f.id = %(firmware)s
              AND s.firmware_checksum = f.sha256
              AND s.last_heartbeat_at > t.settled_at
              AND NOT {MOVED_ON}
              AND NOT EXISTS (
                  SELECT 1 FROM deployments_update u
                  WHERE u.device_id = t.device_id AND u.closed_at IS NULL)
            RETURNING t.deployment_id, t.device_id, t.stage_number
        ), logged AS (
            INSERT INTO deployments_event
                (deployment_id, at, level, event, device_id, stage_number, message)
            SELECT deployment_id, %(now)s, 'WARNING', 'device.failed', device_id,
                   stage_number, 'it runs the new image after all; it is ordered back'
            FROM moved
            RETURNING 1
        )
        SELECT count(*) FROM logged
        """,
        {
            **_identity(deployment),
            "now": now,
        },
    )
