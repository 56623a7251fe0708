"""Removing what deployments have left behind, when its time is over.

Rules:
- A deployment that is open, watches its devices or waits for an order is left alone,
  and so is one that holds the last order of any device.
- What is locked by somebody else is left for the next time.
- An image is unused when no device runs it, keeps it in its other slot, ran it before,
  or could be ordered back to it by a deployment that its device still runs the image
  of, and no open deployment or order names it.
"""

from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import connection, transaction

from deployments.choices import ACTIVE_DEPLOYMENTS
from deployments.models import (
    Deployment,
    Event,
    Hold,
    Rollback,
    Stage,
    Target,
    Update,
)
from firmware.choices import FirmwareStatus
from hotswap.common import audit

# In the order in which they may go: each refers to none before it.
OF_DEPLOYMENT: Final = (Event, Update, Target, Stage, Rollback, Hold)
# Numbers rise with time, so that the first of them are the oldest: a few are looked at,
# however many there are.
OLDEST_REPORTS: Final = """
    WITH oldest AS (
        SELECT id, update_id, received_at FROM deployments_report ORDER BY id LIMIT %s
    )
    DELETE FROM deployments_report WHERE id IN (
        SELECT r.id FROM deployments_report r
        JOIN oldest ON oldest.id = r.id
        JOIN deployments_update u ON u.id = oldest.update_id
        WHERE oldest.received_at < %s AND u.closed_at IS NOT NULL
        FOR NO KEY UPDATE OF r SKIP LOCKED
    )
"""
LINES: Final = """
    DELETE FROM deployments_event WHERE id IN (
        SELECT e.id FROM deployments_event e
        JOIN deployments_deployment d ON d.id = e.deployment_id
        WHERE d.finished_at < %s AND d.watching_until IS NULL
        AND d.status <> ALL(%s)
        LIMIT %s
        FOR NO KEY UPDATE OF e SKIP LOCKED
    )
"""
REMOVABLE: Final = """
    SELECT d.id FROM deployments_deployment d
    WHERE d.finished_at < %s AND d.watching_until IS NULL AND d.status <> ALL(%s)
    AND NOT EXISTS (
        SELECT FROM deployments_update u
        WHERE u.deployment_id = d.id AND (
            u.closed_at IS NULL OR NOT EXISTS (
                SELECT FROM deployments_update later
                WHERE later.device_id = u.device_id AND later.offered_at > u.offered_at
            )
        )
    )
    ORDER BY d.finished_at, d.id
    LIMIT 1
    FOR NO KEY UPDATE OF d SKIP LOCKED
"""
REPORTS_OF_DEPLOYMENT: Final = """
    DELETE FROM deployments_report WHERE id IN (
        SELECT r.id FROM deployments_report r
        JOIN deployments_update u ON u.id = r.update_id
        WHERE u.deployment_id = %s LIMIT %s
    )
"""
UNUSED_IMAGES: Final = """
    SELECT f.id FROM firmware_firmware f
    WHERE f.status = ANY(%(ended)s) AND f.removed_at IS NULL
    AND f.updated_at < %(before)s
    AND (%(firmware)s::uuid IS NULL OR f.id = %(firmware)s)
    AND NOT EXISTS (
        SELECT FROM devices_device d
        WHERE d.erased_at IS NULL AND (
            d.firmware_checksum = f.sha256
            OR d.model_id = f.model_id AND d.previous_firmware_version = f.version
        )
    )
    AND NOT EXISTS (
        SELECT FROM health_devicestate s WHERE s.other_slot_checksum = f.sha256
    )
    AND NOT EXISTS (
        SELECT FROM deployments_deployment p
        WHERE p.firmware_id = f.id
        AND (p.status = ANY(%(active)s) OR p.watching_until IS NOT NULL)
    )
    AND NOT EXISTS (
        SELECT FROM deployments_update u
        WHERE u.firmware_id = f.id AND u.closed_at IS NULL
    )
    AND NOT EXISTS (
        SELECT FROM deployments_target t
        JOIN deployments_deployment p ON p.id = t.deployment_id
        JOIN firmware_firmware runs ON runs.id = p.firmware_id
        JOIN devices_device d ON d.id = t.device_id
        WHERE t.from_firmware_id = f.id AND d.erased_at IS NULL
        AND (
            p.status = ANY(%(active)s) OR p.watching_until IS NOT NULL
            OR d.firmware_checksum = runs.sha256
        )
    )
    ORDER BY f.updated_at, f.id
    LIMIT %(limit)s
"""


def remove_reports(before: datetime, limit: int) -> int:
    """Remove reports of closed orders that came before a time; return how many."""
    with connection.cursor() as cursor:
        cursor.execute(OLDEST_REPORTS, [limit, before])
        return cursor.rowcount


def remove_log_lines(before: datetime, limit: int) -> int:
    """Remove lines of logs of deployments that ended before a time; return how many."""
    with connection.cursor() as cursor:
        cursor.execute(LINES, [before, list(ACTIVE_DEPLOYMENTS), limit])
        return cursor.rowcount


def remove_deployments(before: datetime, limit: int) -> int:
    """Remove the oldest deployment that ended before a time, with all that is of it.

    Its reports go first, so many at a time, as nothing counts them. The rest goes in
    one transaction: a deployment is there as a whole or not at all.

    Args:
        limit: of reports in one statement.

    Returns:
        1 if one was removed, else 0.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(REMOVABLE, [before, list(ACTIVE_DEPLOYMENTS)])
        row = cursor.fetchone()
        if row is None:
            return 0
        deployment = Deployment.objects.select_related("firmware__model").get(pk=row[0])
        cursor.execute(REPORTS_OF_DEPLOYMENT, [deployment.pk, limit])
        while cursor.rowcount == limit:
            cursor.execute(REPORTS_OF_DEPLOYMENT, [deployment.pk, limit])
        for model in OF_DEPLOYMENT:
            model._base_manager.filter(deployment=deployment)._raw_delete("default")
        audit.record(
            actor=None,
            verb="deployment.removed",
            object_kind="deployment",
            object_id=deployment.pk,
            details={
                "name": deployment.name,
                "firmware": str(deployment.firmware),
                "sha256": deployment.firmware.sha256,
                "status": deployment.status,
                "finishedAt": deployment.finished_at,
            },
        )
        deployment.delete()
    return 1


def unused_images(
    *, before: datetime, limit: int, firmware_id: UUID | None = None
) -> list[UUID]:
    """Return rejected and deprecated firmware that nothing needs, longest idle first.

    Args:
        before: it has not been changed since.
        firmware_id: looks at this one alone.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            UNUSED_IMAGES,
            {
                "ended": [FirmwareStatus.REJECTED, FirmwareStatus.DEPRECATED],
                "active": list(ACTIVE_DEPLOYMENTS),
                "before": before,
                "firmware": firmware_id,
                "limit": limit,
            },
        )
        return [row[0] for row in cursor.fetchall()]
