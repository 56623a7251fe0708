"""What becomes of devices by themselves: into the logs of deployments, and told.

Rules:
- A device that is a target of an open deployment is mentioned in its log. Of few each
  has a line, many share one that names the first.
- All that one look at the fleet has found alike is one notification.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import connection

from deployments.notifications.enqueue import NAMED_DEVICES, enqueue_fleet
from deployments.rules.events import EventName
from deployments.services.log import INTO_LOG
from health.services.transitions import Changes
from hotswap.common.pluralize import counted

LINES_A_DEPLOYMENT = 20
NAMED_IN_LOG = 10
WORDS = {
    EventName.OFFLINE: ("is offline", "are offline"),
    EventName.ONLINE: ("is online again", "are online again"),
    EventName.UNHEALTHY: ("is unhealthy", "are unhealthy"),
    EventName.HEALTHY: ("is healthy again", "are healthy again"),
    EventName.ANOMALY: (
        "shows an anomaly",
        "show anomalies",
    ),
}
NEWS_OF = """
    news AS MATERIALIZED (
        SELECT e.device_id, e.level, e.message, d.device_id AS name
        FROM health_deviceevent e
        JOIN devices_device d ON d.id = e.device_id
        WHERE e.id BETWEEN %(first)s AND %(last)s AND e.event = %(event)s
    )
"""
# Many of one deployment at once have one line.
LOG = f"""
    WITH {NEWS_OF}, concerned AS MATERIALIZED (
        SELECT t.deployment_id, t.stage_number, news.*,
               count(*) OVER of_deployment AS total,
               row_number() OVER (
                   PARTITION BY t.deployment_id ORDER BY news.name) AS place
        FROM news
        JOIN deployments_target t ON t.device_id = news.device_id
        JOIN deployments_deployment p ON p.id = t.deployment_id
        WHERE p.status IN ('Running', 'Paused', 'RollingBack')
          AND t.status NOT IN ('skipped', 'cancelled')
          AND (t.exposed_at IS NOT NULL OR %(event)s <> 'device.anomaly')
        WINDOW of_deployment AS (PARTITION BY t.deployment_id)
    ), lines AS (
        SELECT deployment_id, level, device_id, stage_number, message
        FROM concerned WHERE total <= %(lines)s
        UNION ALL
        SELECT deployment_id, min(level), NULL, NULL,
               max(total) || ' of its devices ' || %(words)s || ': '
                   || string_agg(name, ', ' ORDER BY place)
                   || ' and ' || max(total) - count(*) || ' more'
        FROM concerned
        WHERE total > %(lines)s AND place <= %(named)s
        GROUP BY deployment_id
    )
    {INTO_LOG}
    SELECT deployment_id, %(now)s, level, %(event)s, device_id, stage_number, message
    FROM lines
"""  # noqa: S608
NAMES = f"""
    WITH {NEWS_OF} SELECT name, message FROM news ORDER BY name LIMIT %(named)s
"""  # noqa: S608


def note_devices_changed(*, changes: Sequence[Changes], now: datetime) -> None:
    """Log and tell what a look at the fleet has found, in its transaction."""
    for each in changes:
        event = EventName(each.event.value)
        one, many = WORDS[event]
        values: dict[str, Any] = {
            "first": each.first_id,
            "last": each.last_id,
            "event": event.value,
            "now": now,
        }
        with connection.cursor() as cursor:
            cursor.execute(
                LOG,
                values
                | {"words": many, "lines": LINES_A_DEPLOYMENT, "named": NAMED_IN_LOG},
            )
            cursor.execute(NAMES, values | {"named": NAMED_DEVICES})
            named = [
                {"id": name, "message": message} for name, message in cursor.fetchall()
            ]
        if each.total == 1:
            message = f"{named[0]['id']} {one}: {named[0]['message']}"
        else:
            message = f"{counted(each.total, 'device')} {many}"
        enqueue_fleet(event, message, devices=named, total=each.total, now=now)
