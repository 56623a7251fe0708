"""The figures of the fleet that the overview shows, as exact as they are old.

Rules:
- What has to look at every device is read at most every few seconds in each process,
  and says when that was.
- Revoked devices are no part of the fleet: they are let in no more.
- An order has ended when it was proved or has failed. One that was withdrawn says
  nothing about the image.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db import connection
from django.utils import timezone

from deployments.choices import OrderKind, UpdateStatus
from devices.admission import IS_ADMITTED
from firmware.choices import FirmwareStatus
from hotswap.monitoring.caching import Cached

# Specification: success of updates and of rollbacks, in percent.
UPDATE_TARGET_PERCENT: Final = 99.9
ROLLBACK_TARGET_PERCENT: Final = 99.99
FLEET_SECONDS: Final = 5.0
OUTCOME_SECONDS: Final = 5.0
HISTORY_SECONDS: Final = 60.0
DAY: Final = timedelta(days=1)
MONTH: Final = timedelta(days=30)
# Versions that are drawn for themselves; the others are one.
SHOWN_VERSIONS: Final = 7
OTHER_VERSIONS: Final = "others"
NOT_REPORTED: Final = "not reported"
SPREAD_POINTS: Final = 60

_figures: Final = Cached()
# Apart, so that nobody waits for a figure while somebody reads the past.
_history: Final = Cached()

FLEET: Final = f"""
    WITH newest AS MATERIALIZED (
        SELECT DISTINCT ON (model_id) model_id, sha256, version
        FROM firmware_firmware
        WHERE status = %(approved)s
        ORDER BY model_id, precedence DESC, created_at DESC
    )
    SELECT GROUPING(d.region) = 0, d.region, m.name, n.version,
           count(*),
           count(*) FILTER (WHERE s.online_until > %(now)s),
           count(*) FILTER (WHERE s.device_id IS NULL),
           count(*) FILTER (WHERE n.sha256 IS NOT NULL),
           count(*) FILTER (WHERE n.sha256 = d.firmware_checksum)
    FROM devices_device d
    JOIN firmware_devicemodel m ON m.id = d.model_id
    LEFT JOIN newest n ON n.model_id = d.model_id
    LEFT JOIN health_devicestate s ON s.device_id = d.id
    WHERE {IS_ADMITTED}
    GROUP BY GROUPING SETS ((d.region), (m.name, n.version))
    ORDER BY 1, 2, 3
"""  # noqa: S608 - constants alone
OUTCOMES: Final = """
    SELECT kind,
           count(*) FILTER (WHERE status = %(proved)s AND closed_at > %(day)s),
           count(*) FILTER (WHERE status = %(failed)s AND closed_at > %(day)s),
           count(*) FILTER (WHERE status = %(proved)s),
           count(*) FILTER (WHERE status = %(failed)s)
    FROM deployments_update
    WHERE closed_at > %(month)s AND closed_at <= %(now)s
    GROUP BY kind
"""
HOURS: Final = """
    SELECT date_trunc('hour', closed_at, 'UTC'),
           count(*) FILTER (WHERE status = %(proved)s),
           count(*) FILTER (WHERE status = %(failed)s)
    FROM deployments_update
    WHERE closed_at >= %(since)s AND closed_at <= %(now)s AND kind = %(install)s
    GROUP BY 1
"""
FLEET_OF_MODEL: Final = f"""
    SELECT d.id FROM devices_device d JOIN firmware_devicemodel m ON m.id = d.model_id
    WHERE m.name = %(model)s AND {IS_ADMITTED}
"""  # noqa: S608 - constants alone
# Each run of an image begins and, in the past, ends somewhere on the axis.
SPREAD: Final = f"""
    WITH fleet AS ({FLEET_OF_MODEL}), edges AS (
        SELECT r.version, r.since AS at, 1 AS change
        FROM devices_firmwarerun r JOIN fleet d ON d.id = r.device_id
        UNION ALL
        SELECT r.version, r.until, -1
        FROM devices_firmwarerun r JOIN fleet d ON d.id = r.device_id
        WHERE r.until IS NOT NULL
    )
    SELECT version,
           greatest(0, width_bucket(extract(epoch FROM at)::float8,
                                    %(since)s, %(until)s, %(points)s)),
           sum(change)
    FROM edges
    GROUP BY 1, 2
"""  # noqa: S608
FIRST_RUN: Final = f"""
    WITH fleet AS ({FLEET_OF_MODEL})
    SELECT min(r.since) FROM devices_firmwarerun r JOIN fleet d ON d.id = r.device_id
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Part:
    """Devices of a region, of a model, or all.

    Attributes:
        version: the newest approved one of a model; "" elsewhere, and where there is
            none.
        never_seen: devices that were never heard; they are not online either.
        updatable: devices of models that have an approved version.
        newest: those of them that run the newest one.
    """

    name: str
    version: str
    devices: int
    online: int
    never_seen: int
    updatable: int
    newest: int

    @property
    def online_percent(self) -> float | None:
        return 100 * self.online / self.devices if self.devices else None

    @property
    def newest_percent(self) -> float | None:
        return 100 * self.newest / self.updatable if self.updatable else None


@dataclass(frozen=True, slots=True)
class Fleet:
    """All devices, and the same by region and by model."""

    total: Part
    regions: tuple[Part, ...]
    models: tuple[Part, ...]
    counted_at: datetime


@dataclass(frozen=True, slots=True)
class Outcome:
    """How orders have ended in a span of time."""

    proved: int
    failed: int

    @property
    def ended(self) -> int:
        return self.proved + self.failed

    @property
    def percent(self) -> float | None:
        return 100 * self.proved / self.ended if self.ended else None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Orders to install that ended in a day and in 30, and those to go back."""

    updates_of_day: Outcome
    updates_of_month: Outcome
    rollbacks_of_month: Outcome
    counted_at: datetime


@dataclass(frozen=True, slots=True)
class Hour:
    """Orders to install that ended within an hour."""

    start: datetime
    proved: int
    failed: int


@dataclass(frozen=True, slots=True)
class VersionSpread:
    """How many devices of a model ran each version, at times in equal distances.

    Attributes:
        counts: of each version, by the times; the most common of today first.
    """

    model: str
    times: tuple[datetime, ...]
    counts: dict[str, tuple[int, ...]]
    counted_at: datetime


def forget() -> None:
    """Forget what was read, so that the next who asks reads it again."""
    _figures.forget()
    _history.forget()


def fleet_figures() -> Fleet:
    """Return the numbers of devices, at most some seconds old."""
    return _figures.get("fleet", _read_fleet, FLEET_SECONDS)


def outcomes() -> Outcomes:
    """Return how orders have ended lately, at most some seconds old."""
    return _figures.get("outcomes", _read_outcomes, OUTCOME_SECONDS)


def version_spread(model: str, span: timedelta) -> VersionSpread:
    """Return what the devices of a model ran over a span of time, by their reports.

    From what is known of each device's past; at most a minute old, and older where
    reading it takes seconds. The axis begins with the first report within the span.
    """
    return _history.get(
        f"spread {model} {span}", lambda: _read_spread(model, span), HISTORY_SECONDS
    )


def updates_by_hour(hours: int) -> tuple[Hour, ...]:
    """Return the orders that ended in each of the last hours, the present one last."""
    return _figures.get(f"hours {hours}", lambda: _read_hours(hours), OUTCOME_SECONDS)


def _read_fleet() -> Fleet:
    now = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(FLEET, {"now": now, "approved": FirmwareStatus.APPROVED})
        rows = cursor.fetchall()
    regions = [Part(row[1], "", *row[4:]) for row in rows if row[0]]
    models = [Part(row[2], row[3] or "", *row[4:]) for row in rows if not row[0]]
    totals = [
        sum(getattr(each, name) for each in models)
        for name in ("devices", "online", "never_seen", "updatable", "newest")
    ]
    return Fleet(
        Part("", "", *totals),
        tuple(sorted(regions, key=lambda each: -each.devices)),
        tuple(sorted(models, key=lambda each: -each.devices)),
        now,
    )


def _read_outcomes() -> Outcomes:
    now = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(
            OUTCOMES,
            {
                "now": now,
                "day": now - DAY,
                "month": now - MONTH,
                "proved": UpdateStatus.SUCCESS,
                "failed": UpdateStatus.FAILED,
            },
        )
        found = {kind: numbers for kind, *numbers in cursor.fetchall()}
    installs = found.get(OrderKind.INSTALL, [0] * 4)
    returns = found.get(OrderKind.ROLLBACK, [0] * 4)
    return Outcomes(
        Outcome(*installs[:2]), Outcome(*installs[2:]), Outcome(*returns[2:]), now
    )


def _read_hours(hours: int) -> tuple[Hour, ...]:
    now = timezone.now()
    first = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours - 1)
    with connection.cursor() as cursor:
        cursor.execute(
            HOURS,
            {
                "now": now,
                "since": first,
                "install": OrderKind.INSTALL,
                "proved": UpdateStatus.SUCCESS,
                "failed": UpdateStatus.FAILED,
            },
        )
        found = {start: (proved, failed) for start, proved, failed in cursor.fetchall()}
    starts = [first + timedelta(hours=number) for number in range(hours)]
    return tuple(Hour(start, *found.get(start, (0, 0))) for start in starts)


def _read_spread(model: str, span: timedelta) -> VersionSpread:
    now = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(FIRST_RUN, {"model": model})
        first = cursor.fetchone()[0]
        if first is None or first >= now:
            return VersionSpread(model, (), {}, now)
        since = max(first, now - span)
        cursor.execute(
            SPREAD,
            {
                "model": model,
                "since": since.timestamp(),
                "until": now.timestamp(),
                "points": SPREAD_POINTS,
            },
        )
        rows = cursor.fetchall()
    step = (now - since) / SPREAD_POINTS
    times = tuple(since + number * step for number in range(SPREAD_POINTS + 1))
    changes: dict[str, list[int]] = {}
    for version, bucket, change in rows:
        of_version = changes.setdefault(version, [0] * (SPREAD_POINTS + 1))
        # What lies within a step is seen at its end.
        of_version[min(bucket, SPREAD_POINTS)] += int(change)
    return VersionSpread(model, times, _running(changes), now)


def _running(changes: dict[str, list[int]]) -> dict[str, tuple[int, ...]]:
    """Add changes up, and put all but the most common versions together."""
    counts: dict[str, tuple[int, ...]] = {}
    for version, of_version in changes.items():
        total, running = 0, []
        for change in of_version:
            total += change
            running.append(total)
        counts[version or NOT_REPORTED] = tuple(running)
    ranked = sorted(counts, key=lambda each: (-counts[each][-1], -max(counts[each])))
    shown = {version: counts[version] for version in ranked[:SHOWN_VERSIONS]}
    rest = [counts[version] for version in ranked[SHOWN_VERSIONS:]]
    if rest:
        shown[OTHER_VERSIONS] = tuple(sum(each) for each in zip(*rest, strict=True))
    return shown
