"""What went wrong with firmware so far, counted for many images by one statement.

Rules:
- A rollback counts when it took a whole deployment back, or when the gate of a stage
  decided it. A part that an operator took back is no evidence against the image.
- A deployment that failed counts if it had started and was not rolled back.
- A quarantine counts while it keeps the image from its device.
"""

from collections.abc import Collection
from uuid import UUID

from django.db import connection

from deployments.choices import DeploymentStatus, OrderKind, UpdateStatus
from firmware.selectors import FirmwareIncidents

COUNTED = "(r.ends_deployment OR r.stage_number IS NOT NULL)"
STATEMENT = f"""
    WITH troubled AS MATERIALIZED (
        SELECT f.id, rolled.back, d.failed, q.devices
        FROM unnest(%(firmware)s::uuid[]) AS f(id)
        CROSS JOIN LATERAL (
            SELECT count(*) AS back
            FROM deployments_rollback r
            JOIN deployments_deployment d ON d.id = r.deployment_id
            WHERE d.firmware_id = f.id AND {COUNTED}
        ) AS rolled
        CROSS JOIN LATERAL (
            SELECT count(*) AS failed
            FROM deployments_deployment d
            WHERE d.firmware_id = f.id AND d.status = %(failed)s
              AND d.started_at IS NOT NULL
              AND NOT EXISTS (
                  SELECT FROM deployments_rollback r
                  WHERE r.deployment_id = d.id AND {COUNTED}
              )
        ) AS d
        CROSS JOIN LATERAL (
            SELECT count(*) AS devices
            FROM deployments_quarantine
            WHERE firmware_id = f.id AND quarantined_at IS NOT NULL
        ) AS q
        WHERE rolled.back + d.failed + q.devices > 0
    )
    SELECT t.*, u.proved, u.failed
    FROM troubled t
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE status = %(order_proved)s) AS proved,
               count(*) FILTER (WHERE status = %(order_failed)s) AS failed
        FROM deployments_update
        WHERE firmware_id = t.id AND kind = %(install)s
    ) AS u
"""  # noqa: S608


def firmware_incidents(
    *, firmware_ids: Collection[UUID]
) -> dict[UUID, FirmwareIncidents]:
    """Return what went wrong with each firmware; those without fault are left out.

    Hook of the firmware app.
    """
    if not firmware_ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            STATEMENT,
            {
                "firmware": list(firmware_ids),
                "failed": DeploymentStatus.FAILED,
                "order_proved": UpdateStatus.SUCCESS,
                "order_failed": UpdateStatus.FAILED,
                "install": OrderKind.INSTALL,
            },
        )
        return {
            firmware_id: FirmwareIncidents(back, failed, devices, proved, proved + lost)
            for firmware_id, back, failed, devices, proved, lost in cursor.fetchall()
        }
