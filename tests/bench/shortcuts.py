"""What a device's requests leave in the database, written for many devices at once.

Where a bench is about the server's own work on 100,000 devices, their requests are
replaced by set-based SQL. It writes the rows that poll, reports and heartbeats of
healthy devices leave, moves statuses along the same tables, and only ever for orders
that the device could have been given. The proof itself is left to the server's tick.
"""

import json
from datetime import timedelta
from typing import Any

from django.db import connection
from django.utils import timezone

from deployments.models import Deployment
from firmware.services.manifests import manifest_for
from health.services.watching import limits_to_json

OFFER = """
    WITH offered AS (
        UPDATE deployments_target t
        SET status = 'notified', attempt = 1, from_version = d.firmware_version,
            from_checksum = d.firmware_checksum, from_firmware_id = r.firmware_id,
            exposed_at = %(now)s, updated_at = %(now)s
        FROM devices_device d
        JOIN devices_firmwarerun r ON r.device_id = d.id AND r.until IS NULL
        WHERE t.deployment_id = %(deployment)s AND t.status = 'pending'
          AND t.rank <= %(open_rank)s AND d.id = t.device_id
        RETURNING t.id, t.device_id, t.stage_number
    ), ordered AS (
        INSERT INTO deployments_update (
            id, target_id, deployment_id, device_id, kind, firmware_id, manifest_id,
            attempt, status, reboot_required, boot_id_before, baseline, exempt,
            last_sequence, offered_at, deadline, installing_at, rebooting_at,
            claimed_at, error_code, message, durations, traceparent
        )
        SELECT gen_random_uuid(), id, %(deployment)s, device_id, 'install',
               %(firmware)s, %(manifest)s, 1, 'confirming', true, s.boot_id, '{}', '{}',
               4, %(now)s, %(now)s + %(timeout)s::interval, %(now)s, %(now)s, %(now)s,
               '', '', '{}', ''
        FROM offered JOIN health_devicestate s USING (device_id)
        RETURNING id, device_id
    ), reported AS (
        INSERT INTO deployments_report
            (update_id, received_at, sequence, status, was_applied, body)
        SELECT id, %(now)s, n, (ARRAY['downloading', 'installing', 'rebooting',
                                      'confirming'])[n], true, '{}'
        FROM ordered, generate_series(1, 4) AS n
    ), logged AS (
        INSERT INTO deployments_event
            (deployment_id, at, level, event, device_id, stage_number, message)
        SELECT %(deployment)s, %(now)s, 'INFO', event, device_id, stage_number, ''
        FROM offered, unnest(ARRAY['device.notified', 'device.installing',
                                   'device.rebooting', 'device.claimed']) AS event
    ), run AS (
        UPDATE devices_firmwarerun r SET until = %(now)s
        FROM offered WHERE r.device_id = offered.device_id AND r.until IS NULL
    ), changed AS (
        UPDATE devices_device d
        SET previous_firmware_version = d.firmware_version,
            firmware_version = %(version)s, firmware_checksum = %(sha256)s
        FROM offered WHERE d.id = offered.device_id
    )
    UPDATE health_devicestate s
    SET watch_id = ordered.id, watch_checksum = %(sha256)s,
        watch_until = NULL,
        watch_interval_seconds = %(interval)s, limits = %(limits)s,
        offline_after_seconds = %(offline)s, silence_counts_from = %(now)s,
        boot_count = s.boot_count + 1, boot_id = s.boot_id || 'x',
        firmware_version = %(version)s,
        firmware_checksum = %(sha256)s, image_since = %(now)s,
        last_seen_at = %(now)s, last_heartbeat_at = %(now)s,
        online_until = %(now)s + interval '2 minutes',
        healthy_since = %(now)s, healthy_at = %(now)s, healthy_count = 1
    FROM ordered WHERE s.device_id = ordered.device_id
"""
# What the offer could not write in its own statement: a row changes once in each.
CLAIM = (
    """
    UPDATE deployments_target SET status = 'confirming'
    WHERE deployment_id = %(deployment)s AND status = 'notified'
      AND id IN (SELECT target_id FROM deployments_update
                 WHERE deployment_id = %(deployment)s AND claimed_at = %(now)s)
    """,
    """
    INSERT INTO devices_firmwarerun
        (device_id, version, checksum, firmware_id, since, how)
    SELECT device_id, %(version)s, %(sha256)s, %(firmware)s, %(now)s, 'reported'
    FROM deployments_update
    WHERE deployment_id = %(deployment)s AND claimed_at = %(now)s
    """,
)
BEAT = """
    UPDATE health_devicestate s
    SET healthy_count = healthy_count + 1, healthy_at = %(now)s,
        last_heartbeat_at = %(now)s,
        last_seen_at = %(now)s, online_until = %(now)s + interval '2 minutes'
    FROM deployments_update u
    WHERE u.deployment_id = ANY(%(deployments)s) AND u.closed_at IS NULL
      AND u.claimed_at < %(now)s - make_interval(secs => %(pause)s)
      AND s.device_id = u.device_id AND s.watch_id = u.id AND s.healthy_count > 0
"""
MANY = 10_000


def update_offerable(deployment: Deployment) -> int:
    """Take every device that may have its order up to its claim and first heartbeat."""
    now = timezone.now()
    firmware = deployment.firmware
    thresholds = deployment.thresholds
    limits = limits_to_json(thresholds.limits)
    values: dict[str, Any] = {
        "now": now,
        "deployment": deployment.pk,
        "open_rank": deployment.open_rank,
        "firmware": firmware.pk,
        "version": firmware.version,
        "sha256": firmware.sha256,
        "manifest": manifest_for(firmware, above=0).pk,
        "timeout": deployment.device_timeout,
        "interval": int(deployment.heartbeat_interval.total_seconds()),
        "limits": json.dumps(limits),
        "offline": int(thresholds.offline_after.total_seconds()),
    }
    with connection.cursor() as cursor:
        cursor.execute(OFFER, values)
        count = int(cursor.rowcount)
        if count > MANY:
            # A fleet comes one after the other, and PostgreSQL counts the rows on the
            # way. What it does not know of yet it would join row by row.
            cursor.execute("ANALYZE deployments_target, deployments_update")
        for statement in CLAIM if count else ():
            cursor.execute(statement, values)
    return count


def beat_again(deployments: list[Deployment], pause: timedelta) -> int:
    """Send one more healthy heartbeat for each claim that is old enough."""
    with connection.cursor() as cursor:
        cursor.execute(
            BEAT,
            {
                "now": timezone.now(),
                "deployments": [deployment.pk for deployment in deployments],
                "pause": pause.total_seconds(),
            },
        )
        return int(cursor.rowcount)
