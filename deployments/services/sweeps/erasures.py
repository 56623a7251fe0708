"""End what is still wanted of devices that are erased."""

from datetime import datetime
from typing import Any
from uuid import UUID

from deployments.choices import UNFINISHED
from deployments.models import Deployment
from deployments.rules.codes import message_of
from deployments.services.log import INTO_LOG
from deployments.services.sweeps.statements import run


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
    return run(
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
            {INTO_LOG}
            SELECT deployment_id, %(now)s, 'INFO', 'device.erased', device_id,
                   stage_number, '{message_of("erased")}'
            FROM moved
            RETURNING 1
        )
        SELECT count(*) FROM logged
        """,
        {"now": now, "unfinished": [str(status) for status in UNFINISHED], **values},
    )
