"""The history of heartbeats: written with each, thinned out for charts, dropped by age.

Rules:
- Each day (UTC) has a partition; a default one takes whatever has none, so that a
  missing partition loses nothing and delays nothing.
- `make_partitions` may run at any time, twice, or not at all for a week.
- Partitions are made and dropped by functions of the database, which run as the owner
  of the tables (`health/migrations/sql`).
- A chart has at most 300 points; where a device was silent there are none.
"""

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import OperationalError, connection, transaction

from devices.models import Device
from health.exceptions import InvalidRangeError
from health.models import DeviceEvent
from health.services.watching import online_for
from health.triggers import TRIGGERS
from hotswap.common import locks
from hotswap.common.errors import FieldError
from hotswap.common.retention import delete_some

logger = logging.getLogger(__name__)

MAX_POINTS = 300
MAX_MARKERS = 100
DEFAULT_SPAN = timedelta(hours=24)
MAX_SPAN = timedelta(days=366)
DAYS_AHEAD = 7
# Heartbeats wait behind whoever waits for a table: better to try again later.
LONGEST_WAIT = "SET LOCAL lock_timeout = '2s'"


# --- Reading ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Point:
    """The readings of one bucket.

    `measures` are mean and maximum by the names of the triggers, of what was reported:
    percent 0-100, ratios 0-1.
    """

    at: datetime
    readings: int
    measures: dict[str, tuple[float, float]]
    first_at: datetime
    last_at: datetime
    boots: int
    metric: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class History:
    """What a device reported from `since` until before `until`, thinned out.

    `gaps` are the times in which the device was silent for longer than a device that
    is online may be; `updates` are the moments at which it began to run another image.
    `metric` names the application metric that the points hold besides, "" for none.
    """

    since: datetime
    until: datetime
    bucket: timedelta
    points: list[Point]
    gaps: list[tuple[datetime, datetime]]
    updates: list[tuple[datetime, str]]
    metric: str


def silence_limit() -> timedelta:
    """Return the longest time between two heartbeats of a device that is online."""
    return online_for(heartbeat=settings.HEARTBEAT_INTERVAL, poll=None)


def device_history(
    *,
    device: Device,
    now: datetime,
    since: datetime | None = None,
    until: datetime | None = None,
    metric: str = "",
) -> History:
    """Thin out the readings of a device to 300 points at most, by one statement.

    Args:
        since: 24 h before `until` unless given.
        until: now unless given; excluded.
        metric: the application metric to show as well, by its name in the heartbeats.

    Raises:
        InvalidRangeError: the range is empty, or longer than 366 days.
    """
    until = until or now
    try:
        since = since or until - DEFAULT_SPAN
        span = until - since
    except OverflowError:
        raise _wrong("`from` is out of range") from None
    if span <= timedelta(0):
        raise _wrong("`from` must be before `to`")
    if span > MAX_SPAN:
        raise _wrong(f"`from` may be {MAX_SPAN.days} days before `to` at most")
    bucket = timedelta(seconds=max(1, math.ceil(span.total_seconds() / MAX_POINTS)))
    measures = ", ".join(f"avg({each.column}), max({each.column})" for each in TRIGGERS)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT date_bin(make_interval(secs => %(seconds)s), at, %(since)s) AS bin,
                   count(*), min(at), max(at),
                   count(*) FILTER (WHERE is_first_of_boot),
                   -- Exact: the sum of large floats would leave their range.
                   avg((application_metrics ->> %(metric)s)::numeric),
                   max((application_metrics ->> %(metric)s)::numeric),
                   {measures}
            FROM health_reading
            WHERE device_id = %(device)s AND at >= %(since)s AND at < %(until)s
            GROUP BY bin
            ORDER BY bin
            """,  # noqa: S608
            {
                "seconds": bucket.total_seconds(),
                "since": since,
                "until": until,
                "device": device.pk,
                "metric": metric,
            },
        )
        points = [
            Point(
                at=row[0],
                readings=row[1],
                first_at=row[2],
                last_at=row[3],
                boots=row[4],
                metric=None if row[5] is None else (float(row[5]), float(row[6])),
                measures={
                    each.name: (mean, most)
                    for each, mean, most in zip(
                        TRIGGERS, row[7::2], row[8::2], strict=True
                    )
                    if mean is not None
                },
            )
            for row in cursor.fetchall()
        ]
    limit = silence_limit()
    runs = device.firmware_runs.filter(since__gte=since, since__lt=until)
    return History(
        since=since,
        until=until,
        bucket=bucket,
        points=points,
        gaps=[
            (before.last_at, after.first_at)
            for before, after in itertools.pairwise(points)
            if after.first_at - before.last_at > limit
        ],
        updates=list(
            runs.order_by("since").values_list("since", "version")[:MAX_MARKERS]
        ),
        metric=metric,
    )


@dataclass(frozen=True, slots=True)
class MeanPoint:
    """The readings of several devices in one bucket.

    `measures` are means by the names of the triggers, each in its own unit.
    """

    at: datetime
    devices: int
    measures: dict[str, float]


def mean_history(
    *, devices: Sequence[UUID], since: datetime, until: datetime, points: int
) -> list[MeanPoint]:
    """Thin out the readings of several devices, together, by one statement.

    Args:
        until: excluded, and after `since`.
        points: so many at most; where all devices were silent there are none.
    """
    seconds = max(1, math.ceil((until - since).total_seconds() / points))
    means = ", ".join(f"avg({each.column})" for each in TRIGGERS)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT date_bin(make_interval(secs => %(seconds)s), at, %(since)s) AS bin,
                   count(DISTINCT device_id), {means}
            FROM health_reading
            WHERE device_id = ANY(%(devices)s) AND at >= %(since)s AND at < %(until)s
            GROUP BY bin
            ORDER BY bin
            """,  # noqa: S608
            {
                "seconds": seconds,
                "since": since,
                "until": until,
                "devices": list(devices),
            },
        )
        return [
            MeanPoint(
                at,
                count,
                {
                    each.name: mean
                    for each, mean in zip(TRIGGERS, found, strict=True)
                    if mean is not None
                },
            )
            for at, count, *found in cursor.fetchall()
        ]


def _wrong(detail: str) -> InvalidRangeError:
    return InvalidRangeError(detail, errors=[FieldError("/from", "invalid", detail)])


def _pair(pair: tuple[float, float] | None, digits: int) -> dict[str, float] | None:
    if pair is None:
        return None
    return {"mean": round(pair[0], digits), "max": round(pair[1], digits)}


def history_as_json(device: Device, history: History) -> dict[str, Any]:
    """Return a history as the API shows it."""
    return {
        "deviceId": device.device_id,
        "from": history.since,
        "to": history.until,
        "bucketSeconds": int(history.bucket.total_seconds()),
        "points": [
            {
                "at": point.at,
                "readings": point.readings,
                **{
                    each.field: _pair(point.measures.get(each.name), each.digits)
                    for each in TRIGGERS
                },
                "applicationMetrics": (
                    {history.metric: {"mean": point.metric[0], "max": point.metric[1]}}
                    if point.metric
                    else {}
                ),
                "boots": point.boots,
            }
            for point in history.points
        ],
        "gaps": [{"from": since, "to": until} for since, until in history.gaps],
        "updates": [
            {"at": at, "firmwareVersion": version} for at, version in history.updates
        ],
    }


# --- Partitions -------------------------------------------------------------------


def make_partitions(*, now: datetime) -> int:
    """Make the partitions of today and the week ahead that are missing.

    Each is a short transaction of its own. One that would make heartbeats wait for
    more than two seconds is left for the next run.

    Returns:
        How many were made.
    """
    today = now.astimezone(UTC).date()
    known = set(partition_days())
    return sum(
        _tried(_create, today + timedelta(days=ahead))
        for ahead in range(DAYS_AHEAD + 1)
        if today + timedelta(days=ahead) not in known
    )


def drop_partitions(before: datetime, limit: int) -> int:
    """Drop the days of heartbeats that were over before a time; return how many.

    One that would make heartbeats wait for more than two seconds is left for the next
    run.

    Args:
        limit: of heartbeats that no partition took, which go by rows.
    """
    oldest = before.astimezone(UTC).date()
    dropped = sum(_tried(_drop, day) for day in partition_days() if day < oldest)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            DELETE FROM health_reading_default WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM health_reading_default WHERE at < %s LIMIT %s
            ))
            """,
            [_midnight(oldest), limit],
        )
    return dropped


def forget_device_events(before: datetime, limit: int) -> int:
    """Forget lines of the logs of devices, by whole days (UTC); return how many."""
    oldest = _midnight(before.astimezone(UTC).date())
    return delete_some(DeviceEvent.objects.filter(at__lt=oldest), limit)


def partition_days() -> list[date]:
    """Return the days that have a partition."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT to_date(right(child.relname, 8), 'YYYYMMDD')
            FROM pg_inherits
            JOIN pg_class child ON child.oid = inhrelid
            WHERE inhparent = 'health_reading'::regclass
              AND child.relname ~ '^health_reading_[0-9]{8}$'
            ORDER BY 1
            """
        )
        return [row[0] for row in cursor.fetchall()]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _tried(work: Any, day: date) -> bool:
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(LONGEST_WAIT)
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [locks.PARTITIONS])
            if not cursor.fetchone()[0] or (work is _create) == (
                day in partition_days()
            ):
                return False
            work(cursor, day)
    except OperationalError:
        logger.warning("A partition was busy", extra={"day": day.isoformat()})
        return False
    return True


def _create(cursor: Any, day: date) -> None:
    cursor.execute("SELECT health_create_reading_partition(%s)", [day])


def _drop(cursor: Any, day: date) -> None:
    cursor.execute("SELECT health_drop_reading_partition(%s)", [day])
