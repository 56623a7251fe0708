"""End or renew the plans of devices that have no order."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet

from deployments.choices import TargetStatus
from deployments.metrics import DEVICES_FAILED, labelled
from deployments.models import Deployment, Quarantine, Target, Update
from deployments.rules.codes import FETCH_ERRORS, UNKNOWN_TIMEZONE, message_of
from deployments.rules.evidence import HAS_BEGUN, IS_LOCKED, SHOWS_FORMER
from deployments.services.log import INTO_LOG
from deployments.services.sweeps.statements import run


def retriable(deployment: Deployment) -> QuerySet[Target]:
    """Return the targets that failed, or whose device was sent back alone.

    What an operator has ordered back is not among them, nor are devices from which the
    image is kept: they would get no order.
    """
    return _failed(deployment).filter(~Q(Exists(_quarantine(deployment))))


def quarantined(deployment: Deployment) -> QuerySet[Target]:
    """Return those that would be retriable if their quarantine were released."""
    return _failed(deployment).filter(Exists(_quarantine(deployment)))


def _failed(deployment: Deployment) -> QuerySet[Target]:
    return Target.objects.filter(
        _without_order(),
        deployment=deployment,
        is_withdrawn=False,
        status__in=[TargetStatus.FAILED, TargetStatus.ROLLED_BACK],
    )


def _quarantine(deployment: Deployment) -> QuerySet[Quarantine]:
    return Quarantine.objects.active().filter(
        device=OuterRef("device"), firmware=deployment.firmware_id
    )


def retry(deployment: Deployment, now: datetime) -> int:
    """Plan every target anew that may be tried again.

    Returns:
        How many there are.
    """
    return _plan_anew(retriable(deployment), now)


def retry_unreached(
    deployment: Deployment, stage_numbers: Sequence[int], now: datetime
) -> int:
    """Plan the devices of some stages anew that the image has not reached.

    Those that have attempts left do not wait for their next one, and get all of them
    again.

    Returns:
        How many there are.
    """
    unreached = Target.objects.filter(
        _without_order(),
        deployment=deployment,
        stage_number__in=stage_numbers,
        status__in=[TargetStatus.FAILED, TargetStatus.PENDING],
        exposed_at__isnull=False,
        error_code__in=FETCH_ERRORS,
    )
    return _plan_anew(unreached, now)


def _without_order() -> Q:
    unfinished = Update.objects.filter(target=OuterRef("pk"), closed_at__isnull=True)
    return ~Q(Exists(unfinished))


def _plan_anew(targets: QuerySet[Target], now: datetime) -> int:
    return targets.update(
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


def skip_unseen(deployment: Deployment, now: datetime, awake_since: datetime) -> int:
    """Skip the targets of open stages that the deadline has passed without an order.

    One that was told to come back later has the deadline from then on. One whose time
    zone is not known waits for a person, no longer than for a device.
    """
    return run(
        f"""
        WITH moved AS (
            UPDATE deployments_target t
            SET status = 'skipped',
                error_code = CASE t.error_code WHEN '{UNKNOWN_TIMEZONE}'
                    THEN t.error_code ELSE 'never_seen' END,
                message = CASE t.error_code WHEN '{UNKNOWN_TIMEZONE}'
                    THEN t.message ELSE '{message_of("never_seen")}'
                    END,
                next_attempt_at = NULL, settled_at = %(now)s, updated_at = %(now)s
            FROM deployments_stage st
            WHERE t.deployment_id = %(deployment)s AND t.status = 'pending'
              AND t.exposed_at IS NULL
              AND st.deployment_id = t.deployment_id AND st.number = t.stage_number
              -- Said on its own: GREATEST leaves NULLs out.
              AND st.opened_at IS NOT NULL
              AND GREATEST(st.opened_at, %(resumed)s::timestamptz, %(awake)s,
                      CASE WHEN t.error_code <> '{UNKNOWN_TIMEZONE}'
                          THEN t.next_attempt_at END)
                  + %(deadline)s < %(now)s
            RETURNING t.deployment_id, t.device_id, t.stage_number, t.message
        ), logged AS (
            {INTO_LOG}
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
        message="it did not come back for its next attempt",
        values={
            "deadline": deployment.offline_deadline,
            "resumed": deployment.resumed_at,
            "awake": awake_since,
        },
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
        message="the deployment was cancelled before its next attempt",
    )
    return ended + run(
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


def _end_retries(
    deployment: Deployment,
    now: datetime,
    *,
    which: str,
    otherwise: str,
    message: str,
    values: dict[str, Any] | None = None,
) -> int:
    """End targets that wait for another attempt.

    A device that had begun to install and has not shown its former image since goes
    back; one that had not gets the status `otherwise`.
    """
    return run(
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
                message = left(t.message || '; ' || %(message)s::text, 500),
                settled_at = CASE WHEN aimed.next_status <> 'rolling_back'
                    THEN %(now)s::timestamptz END,
                returning_since = CASE WHEN aimed.next_status = 'rolling_back'
                    THEN %(now)s::timestamptz END,
                next_attempt_at = NULL, progress_percent = NULL, updated_at = %(now)s
            FROM aimed WHERE t.id = aimed.id AND t.status = 'pending'
            RETURNING t.deployment_id, t.device_id, t.stage_number, t.status
        ), logged AS (
            {INTO_LOG}
            SELECT deployment_id, %(now)s, 'ERROR', 'device.failed', device_id,
                   stage_number, %(message)s::text || CASE status
                       WHEN 'rolling_back' THEN '; it is ordered back' ELSE '' END
            FROM moved WHERE status <> 'cancelled'
        ), failed AS (
            {labelled("moved", where="each.status <> 'cancelled'")}
        ), failures AS (
            {DEVICES_FAILED.counting("failed")}
        )
        SELECT count(*) FROM moved
        """,
        {
            "deployment": deployment.pk,
            "now": now,
            "otherwise": otherwise,
            "message": message,
            **(values or {}),
        },
    )
