"""Order devices back to their former image."""

from datetime import datetime, timedelta

from deployments.metrics import DEVICE_RETURNS, labelled
from deployments.models import Deployment
from deployments.rules.codes import (
    NO_PREVIOUS_IMAGE,
    NO_RETURN_CODES,
    ROLLBACK_FORBIDDEN,
    UNCONFIRMED,
    message_of,
)
from deployments.rules.evidence import HAS_BEGUN, HAS_MOVED_ON, IS_LOCKED, SHOWS_FORMER
from deployments.scopes import IN_SCOPE, WHOLE, Scope
from deployments.services.log import INTO_LOG
from deployments.services.sweeps.statements import identity, run

ROLLBACK_TIMEOUT = timedelta(hours=1)


def send_back(
    deployment: Deployment,
    now: datetime,
    scope: Scope = WHOLE,
    *,
    withdraws: bool = False,
) -> int:
    """Order every exposed device back that runs, or may run, the new image.

    Level-triggered: run at every tick of a rollback, so that an order given in the
    very moment the rollback began is found by the next one. Devices that were never
    exposed are cancelled; those that were updated since are left alone.

    Args:
        scope: which devices are meant; of the others none is touched.
        withdraws: an operator takes them out of a deployment that goes on: what had
            not failed by itself counts for nothing from now on.

    Returns:
        How many devices were newly ordered back.

    Source: FR-FW-006, steps 2 to 4.
    """
    return run(
        f"""
        WITH unexposed AS (
            UPDATE deployments_target t
            SET status = 'cancelled', settled_at = %(now)s, updated_at = %(now)s,
                is_withdrawn = %(withdraws)s,
                error_code = CASE WHEN %(withdraws)s
                    THEN 'left_out_by_operator' ELSE t.error_code END,
                message = CASE WHEN %(withdraws)s
                    THEN '{message_of("left_out_by_operator")}'
                    ELSE t.message END
            WHERE t.deployment_id = %(deployment)s AND t.status = 'pending'
              AND t.exposed_at IS NULL AND {IN_SCOPE}
        ), open_orders AS (
            SELECT u.id FROM deployments_update u
            JOIN deployments_target t ON t.id = u.target_id
            WHERE u.deployment_id = %(deployment)s AND u.closed_at IS NULL
              AND u.kind = 'install' AND {IN_SCOPE}
            ORDER BY u.id
            FOR NO KEY UPDATE OF u SKIP LOCKED
        ), closed AS (
            UPDATE deployments_update u
            SET status = 'superseded', closed_at = %(now)s
            FROM open_orders WHERE u.id = open_orders.id
            RETURNING u.target_id
        ), concerned AS (
            SELECT t.id, false AS was_open FROM deployments_target t
            WHERE t.deployment_id = %(deployment)s
              AND t.status IN ('pending', 'success', 'failed') AND {IN_SCOPE}
            UNION ALL
            SELECT target_id, true FROM closed
        ), judged AS MATERIALIZED (  -- Else each use below would ask again.
            SELECT t.id, t.status, concerned.was_open,
                   {HAS_MOVED_ON} AS has_moved_on,
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
              AND t.error_code <> ALL(%(no_return)s)
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
                    WHEN %(withdraws)s AND t.status <> 'failed'
                        THEN 'returned_by_operator'
                    ELSE t.error_code END,
                is_withdrawn = t.is_withdrawn
                    OR (%(withdraws)s AND t.status <> 'failed'),
                message = CASE
                    WHEN judged.has_moved_on
                        THEN '{message_of("moved_on")}'
                    WHEN t.from_firmware_id IS NULL
                        THEN '{message_of(NO_PREVIOUS_IMAGE)}'
                    WHEN judged.is_locked THEN '{message_of(ROLLBACK_FORBIDDEN)}'
                    WHEN %(withdraws)s AND t.status <> 'failed'
                        THEN '{message_of("returned_by_operator")}'
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
            RETURNING t.status, t.deployment_id, t.device_id
        ), failed AS (
            SELECT *, 'failed' AS outcome
            FROM ({labelled("moved", where="each.status = 'failed'")}) AS stuck
        ), returns AS (
            {DEVICE_RETURNS.counting("failed")}
        )
        SELECT count(*) FROM moved WHERE status = 'rolling_back'
        """,
        {
            **identity(deployment),
            **scope.values,
            "now": now,
            "withdraws": withdraws,
            "no_return": sorted(NO_RETURN_CODES),
        },
    )


def return_late_installs(deployment: Deployment, now: datetime) -> int:
    """Order back the devices that failed and were then seen on the new image.

    A device may have passed the point of no return just as its order was closed. One
    that a later deployment has brought there is no stray.
    """
    return run(
        f"""
        WITH moved AS (
            UPDATE deployments_target t
            SET status = 'rolling_back', settled_at = NULL,
                returning_since = %(now)s, updated_at = %(now)s
            FROM health_devicestate s, firmware_firmware f
            WHERE t.deployment_id = %(deployment)s AND t.status = 'failed'
              AND t.from_firmware_id IS NOT NULL
              AND t.error_code <> ALL(%(no_return)s)
              AND NOT {IS_LOCKED}
              AND s.device_id = t.device_id AND f.id = %(firmware)s
              AND s.firmware_checksum = f.sha256
              AND s.last_heartbeat_at > t.settled_at
              AND NOT {HAS_MOVED_ON}
              AND NOT EXISTS (
                  SELECT 1 FROM deployments_update u
                  WHERE u.device_id = t.device_id AND u.closed_at IS NULL)
            RETURNING t.deployment_id, t.device_id, t.stage_number
        ), logged AS (
            {INTO_LOG}
            SELECT deployment_id, %(now)s, 'WARNING', 'device.failed', device_id,
                   stage_number, 'it runs the new image after all; it is ordered back'
            FROM moved
            RETURNING 1
        )
        SELECT count(*) FROM logged
        """,
        {
            **identity(deployment),
            "now": now,
            "no_return": sorted(NO_RETURN_CODES),
        },
    )


def give_up_returns(
    deployment: Deployment, now: datetime, awake_since: datetime
) -> int:
    """Fail the returns that nobody has proved within an hour.

    The hour runs from when the device was to go back, or the whole deployment was.
    """
    since = max(awake_since, deployment.rollback_started_at or awake_since)
    if since + ROLLBACK_TIMEOUT > now:
        return 0
    return run(
        f"""
        WITH overdue AS (
            SELECT t.id FROM deployments_target t
            WHERE t.deployment_id = %(deployment)s AND t.status = 'rolling_back'
              AND GREATEST(t.returning_since, %(since)s) + %(timeout)s <= %(now)s
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
                message = '{message_of(UNCONFIRMED)}',
                settled_at = %(now)s, updated_at = %(now)s
            FROM overdue WHERE t.id = overdue.id AND t.status = 'rolling_back'
            RETURNING t.deployment_id, t.device_id, t.stage_number, t.message
        ), logged AS (
            {INTO_LOG}
            SELECT deployment_id, %(now)s, 'ERROR', 'device.return_failed',
                   device_id, stage_number, message
            FROM moved
            RETURNING 1
        ), failed AS (
            SELECT *, 'failed' AS outcome FROM ({labelled("moved")}) AS each
        ), returns AS (
            {DEVICE_RETURNS.counting("failed")}
        )
        SELECT count(*) FROM logged
        """,
        {
            "deployment": deployment.pk,
            "now": now,
            "since": since,
            "timeout": ROLLBACK_TIMEOUT,
        },
    )
