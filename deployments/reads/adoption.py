"""How many devices ran a firmware over time, by what they have reported."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connection

from firmware.models import Firmware

POINTS: Final = 60
RUNS: Final = """
    SELECT r.since, r.until
    FROM devices_firmwarerun r
    JOIN devices_device d ON d.id = r.device_id
    WHERE r.checksum = %(sha256)s AND d.model_id = %(model)s AND d.erased_at IS NULL
"""
FIRST: Final = f"SELECT min(since) FROM ({RUNS}) AS runs"  # noqa: S608
EDGES: Final = f"""
    WITH runs AS MATERIALIZED ({RUNS}), edges AS (
        SELECT since AS at, 1 AS change FROM runs
        UNION ALL
        SELECT until, -1 FROM runs WHERE until IS NOT NULL
    )
    SELECT greatest(0, least(%(points)s, width_bucket(
               extract(epoch FROM at)::float8, %(since)s, %(until)s, %(points)s))),
           sum(change)
    FROM edges GROUP BY 1
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Adoption:
    """Devices that ran a firmware at a time."""

    at: datetime
    devices: int


def firmware_adoption(
    firmware: Firmware, now: datetime, span: timedelta
) -> tuple[Adoption, ...]:
    """Return how many devices ran a firmware, at times in equal distances.

    From the first report within the span until now; nothing where no device ever ran
    it. Reads what is known of the past of every device of the model.
    """
    given: dict[str, Any] = {"sha256": firmware.sha256, "model": firmware.model_id}
    with connection.cursor() as cursor:
        cursor.execute(FIRST, given)
        first = cursor.fetchone()[0]
        if first is None or first >= now:
            return ()
        since = max(first, now - span)
        cursor.execute(
            EDGES,
            given
            | {
                "since": since.timestamp(),
                "until": now.timestamp(),
                "points": POINTS,
            },
        )
        changes = {bucket: int(change) for bucket, change in cursor.fetchall()}
    step = (now - since) / POINTS
    running, found = 0, []
    for number in range(POINTS + 1):
        running += changes.get(number, 0)
        found.append(Adoption(since + number * step, running))
    return tuple(found)
