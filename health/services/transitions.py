"""Finding devices that fell silent, came back, became unhealthy, recovered, or are odd.

Rules:
- Each change is found once, whichever of several servers looks: it is written on the
  state that it was announced, by the statement that finds it.
- What is held by a heartbeat in this moment is left to the next look; nobody waits.
- An anomaly is announced once in each watch, that is for each order.
- Nothing is said of devices that are disabled, revoked or erased.
- After an outage of the sweeps every silence has its whole time again.
- What changes at each heartbeat has no index. A large table is looked at in parts, one
  at each sweep, so that a sweep costs the same whatever the size of the fleet.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.utils.module_loading import import_string

from devices.admission import IS_ADMITTED
from health.choices import HealthEvent
from hotswap.common import locks

# Pages of 8 KiB: some 100,000 devices.
PAGES_A_SWEEP = 16_384
SWEEP_SECONDS = 5

CHANGES = f"""
    WITH due AS MATERIALIZED (
        SELECT s.device_id, CASE
            WHEN s.announced_offline_at IS NULL AND s.online_until <= %(now)s
                THEN 'device.offline'
            WHEN s.announced_offline_at IS NOT NULL THEN 'device.online'
            WHEN s.verdict = 'unhealthy' AND s.announced_unhealthy_at IS NULL
                THEN 'device.unhealthy'
            WHEN s.verdict = 'healthy' AND s.announced_unhealthy_at IS NOT NULL
                THEN 'device.healthy'
            ELSE 'device.anomaly' END AS event
        FROM health_devicestate s
        JOIN devices_device d ON d.id = s.device_id
        WHERE s.ctid >= %(first)s::tid AND s.ctid < %(last)s::tid
          AND CASE
            WHEN s.online_until <= %(now)s THEN s.announced_offline_at IS NULL
                AND %(restarted)s + (s.online_until - s.last_seen_at) <= %(now)s
            ELSE s.announced_offline_at IS NOT NULL
                OR s.verdict = 'unhealthy' AND s.announced_unhealthy_at IS NULL
                OR s.verdict = 'healthy' AND s.announced_unhealthy_at IS NOT NULL
                OR s.anomaly <> '' AND s.announced_anomaly_at IS NULL END
          AND d.enabled AND {IS_ADMITTED}
        FOR NO KEY UPDATE OF s SKIP LOCKED
    ), changed AS (
        UPDATE health_devicestate s
        SET announced_offline_at = CASE due.event
                WHEN 'device.offline' THEN %(now)s WHEN 'device.online' THEN NULL
                ELSE s.announced_offline_at END,
            announced_unhealthy_at = CASE due.event
                WHEN 'device.unhealthy' THEN %(now)s WHEN 'device.healthy' THEN NULL
                ELSE s.announced_unhealthy_at END,
            announced_anomaly_at = CASE due.event
                WHEN 'device.anomaly' THEN %(now)s ELSE s.announced_anomaly_at END
        FROM due WHERE s.device_id = due.device_id
        RETURNING s.device_id, due.event, s.last_seen_at, s.verdict_reason, s.anomaly
    ), logged AS (
        INSERT INTO health_deviceevent (device_id, at, level, event, message)
        SELECT device_id, %(now)s,
               CASE WHEN event IN ('device.online', 'device.healthy')
                   THEN 'INFO' ELSE 'WARNING' END,
               event,
               CASE event
                   WHEN 'device.offline' THEN 'not heard since ' || to_char(
                       last_seen_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
                   WHEN 'device.online' THEN 'it is heard again'
                   WHEN 'device.unhealthy' THEN verdict_reason
                   WHEN 'device.healthy' THEN 'it keeps to its limits again'
                   ELSE anomaly END
        FROM changed
        ORDER BY event
        RETURNING id, event
    )
    SELECT event, count(*), min(id), max(id) FROM logged GROUP BY event ORDER BY min(id)
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Changes:
    """Devices that one look has found to have changed alike.

    Their lines in the table of device events have this event and ids from `first_id` to
    `last_id`.
    """

    event: HealthEvent
    total: int
    first_id: int
    last_id: int


def announce_changes(*, now: datetime, restarted_at: datetime) -> list[Changes]:
    """Find who has changed since the last look, write it down, and pass it on.

    Args:
        restarted_at: since when the sweeps have run without a gap.

    Source: FR-FW-005.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [locks.ANNOUNCEMENTS])
        if cursor.fetchone() != (True,):
            return []
        first, last = _part(cursor, now)
        cursor.execute(
            CHANGES,
            {"now": now, "restarted": restarted_at, "first": first, "last": last},
        )
        found = [
            Changes(HealthEvent(event), *numbers)
            for event, *numbers in cursor.fetchall()
        ]
        if found:
            import_string(settings.DEVICES_CHANGED_HOOK)(changes=found, now=now)
    return found


def _part(cursor: Any, now: datetime) -> tuple[str, str]:
    """Return where the part of the table begins and ends that is due now."""
    cursor.execute(
        "SELECT pg_relation_size('health_devicestate')"
        " / current_setting('block_size')::int"
    )
    (pages,) = cursor.fetchone()
    parts = max(1, -(-pages // PAGES_A_SWEEP))
    number = int(now.timestamp() // SWEEP_SECONDS) % parts
    last = (number + 1) * PAGES_A_SWEEP if number + 1 < parts else 2**32 - 1
    return f"({number * PAGES_A_SWEEP},0)", f"({last},0)"
