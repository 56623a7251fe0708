"""Prove what devices claim."""

from datetime import datetime

from deployments.metrics import (
    DEVICE_RETURNS,
    DEVICE_UPDATE_DURATION,
    DEVICES_UPDATED,
    DOWNLOAD_DURATION,
    INSTALL_DURATION,
    labelled,
    reported_duration,
)
from deployments.models import Deployment
from deployments.rules.evidence import IS_PROVED, WRONG_LABEL
from deployments.services.log import INTO_LOG
from deployments.services.sweeps.statements import run

DOWNLOAD_SECONDS = reported_duration("download")
INSTALL_SECONDS = reported_duration("install")
SINCE_OFFER = "extract(epoch FROM %(now)s::timestamptz - offered_at)"


def prove(deployment: Deployment, now: datetime) -> int:
    """Settle the orders whose devices have proved themselves.

    Proof, after the claim: heartbeats that name the ordered SHA-256, from a new boot
    where one was needed, without a breach, healthy without a break for the confirmation
    window. A breach ends an install for good; of a return it takes what was healthy so
    far, and a whole window after it is proof. A version that is not the one of the
    image is a wrong label, not another image: a warning says so once.

    Returns:
        How many devices were proved.

    Source: docs/architecture/proof.md#proof.
    """
    criteria = deployment.criteria
    return run(
        f"""
        WITH proved AS (
            SELECT u.id, s.device_id, f.security_version, f.version, f.sha256,
                   {WRONG_LABEL} AS wrong_label
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
              AND {IS_PROVED}
            ORDER BY u.id
            FOR NO KEY UPDATE OF u SKIP LOCKED
        ), closed AS (
            UPDATE deployments_update u
            SET status = 'success', closed_at = %(now)s, message = proved.wrong_label
            FROM proved WHERE u.id = proved.id
            RETURNING u.target_id, u.device_id, u.kind, u.offered_at, u.durations,
                      proved.version, proved.sha256, proved.security_version,
                      proved.wrong_label
        ), moved AS (
            UPDATE deployments_target t
            SET status = CASE closed.kind WHEN 'install' THEN 'success'
                                          ELSE 'rolled_back' END,
                settled_at = %(now)s, updated_at = %(now)s, progress_percent = NULL,
                -- Why it was ordered back stays what is said of one that went back.
                message = CASE closed.kind WHEN 'install' THEN closed.wrong_label
                                           ELSE t.message END
            FROM closed WHERE t.id = closed.target_id
            RETURNING t.deployment_id, t.device_id, t.stage_number,
                      closed.kind, closed.version, closed.wrong_label,
                      closed.offered_at, closed.durations
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
            {INTO_LOG}
            SELECT deployment_id, %(now)s, 'INFO',
                   CASE kind WHEN 'install' THEN 'device.updated'
                             ELSE 'device.returned' END,
                   device_id, stage_number, 'proved that it runs ' || version
            FROM moved
        ), warned AS (
            {INTO_LOG}
            SELECT deployment_id, %(now)s, 'WARNING', 'device.version_label_differs',
                   device_id, stage_number, wrong_label
            FROM moved WHERE wrong_label <> ''
        ), installed AS (
            {labelled("moved", where="each.kind = 'install'")}
        ), returned AS (
            SELECT *, 'returned' AS outcome
            FROM ({labelled("moved", where="each.kind <> 'install'")}) AS back
        ), updates AS (
            {DEVICES_UPDATED.counting("installed")}
        ), returns AS (
            {DEVICE_RETURNS.counting("returned")}
        ), update_durations AS (
            {DEVICE_UPDATE_DURATION.counting("installed", seconds=SINCE_OFFER)}
        ), downloads AS (
            {DOWNLOAD_DURATION.counting("installed", seconds=DOWNLOAD_SECONDS)}
        ), installs AS (
            {INSTALL_DURATION.counting("installed", seconds=INSTALL_SECONDS)}
        )
        SELECT count(*) FROM moved
        """,
        {
            "deployment": deployment.pk,
            "now": now,
            "beats": criteria.heartbeats_required,
            "window": criteria.confirmation_duration,
        },
    )
