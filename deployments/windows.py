"""Maintenance windows: when devices may be given orders.

Rules:
- A window is open while the local clock shows a time within it. So one that starts in
  an hour that the clocks leap over opens when they have leapt, one that ends in it
  closes then, and an hour that comes twice is within it twice.
- A window that lies wholly in what the clocks leap over is not lost: it opens when
  they have leapt, for its usual length.
- Its day is that on which it starts, by the local calendar.

Pure: standard library, and a clock that is passed in.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Self
from zoneinfo import ZoneInfo

from devices.timezones import ZONE_TAG, zone_named

DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
DEVICE_ZONE = "device"
"""Stands for the time zone that each device names by its tag."""
DEFAULT_ZONE = "UTC"
"""That of a device without the tag."""
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
# Clocks are not changed twice within so short a time.
STEP = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class _Span:
    """A time, in UTC, during which the clocks of a zone are not changed."""

    begins: datetime
    ends: datetime
    offset: timedelta

    def at(self, clock: datetime) -> datetime:
        """Return when its clocks show a time, be it within the span or not."""
        return (clock - self.offset).replace(tzinfo=UTC)


def _spans(zone: ZoneInfo, begins: datetime, ends: datetime) -> Iterator[_Span]:
    """Cut a time into parts between the changes of the clocks, to the second."""
    start = at = begins
    offset = _offset(zone, at)
    while at < ends:
        later = min(at + STEP, ends)
        if _offset(zone, later) != offset:
            before, after = at, later
            while after - before > SECOND:
                middle = before + (after - before) // 2 // SECOND * SECOND
                if _offset(zone, middle) == offset:
                    before = middle
                else:
                    after = middle
            yield _Span(start, after, offset)
            start, offset = after, _offset(zone, after)
            later = after
        at = later
    yield _Span(start, ends, offset)


def _offset(zone: ZoneInfo, at: datetime) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta(0)


@dataclass(frozen=True, slots=True)
class MaintenanceWindow:
    """From `start` to `end`, local time, on the named days.

    A window that ends at or before its start goes on into the next day. `zone` is a
    name of the IANA database, or "device".
    """

    days: frozenset[str]
    start: time
    end: time
    zone: str

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read the stored form."""
        return cls(
            frozenset(data["days"]),
            time.fromisoformat(data["start"]),
            time.fromisoformat(data["end"]),
            data["timezone"],
        )

    def zone_of(self, tags: dict[str, str]) -> ZoneInfo | None:
        """Return the zone that counts for a device; None if what it names is none."""
        is_own = self.zone == DEVICE_ZONE
        return zone_named(tags.get(ZONE_TAG, DEFAULT_ZONE) if is_own else self.zone)

    def names_no_zone(self, tags: dict[str, str]) -> bool:
        """Tell whether a device's own clock counts, and nobody knows which that is."""
        return self.zone == DEVICE_ZONE and self.zone_of(tags) is None

    def opening_after(self, now: datetime, zone: ZoneInfo) -> datetime | None:
        """Return the moment from which orders may be given: None if they may be now.

        Just before that moment the window is closed, and at it open.

        Returns:
            Aware, in UTC; within eight days.
        """
        today = now.astimezone(zone).date()
        # A window of the day before yesterday may still be open, where a whole day was
        # leapt over; the next one starts within a week.
        first, last = today - 2 * DAY, today + 8 * DAY
        spans = list(_spans(zone, _midnight(first) - DAY, _midnight(last) + 3 * DAY))
        openings = []
        for offset in range((last - first).days + 1):
            day = first + timedelta(days=offset)
            if DAYS[day.weekday()] not in self.days:
                continue
            for opens, closes in self._openings(day, spans):
                if opens <= now < closes:
                    return None
                if opens > now:
                    openings.append(opens)
        return min(openings)

    def _openings(
        self, day: date, spans: list[_Span]
    ) -> Iterator[tuple[datetime, datetime]]:
        """Give when the window of a day is open: once, or twice where time repeats."""
        starts = datetime.combine(day, self.start)
        ends = datetime.combine(day if self.end > self.start else day + DAY, self.end)
        is_lost = True
        for span in spans:
            opens, closes = span.at(starts), span.at(ends)
            if opens < span.ends and closes > span.begins:
                is_lost = False
                yield max(opens, span.begins), min(closes, span.ends)
        if is_lost:
            leapt = next(x.begins for x in spans if x.at(ends) <= x.begins)
            yield leapt, leapt + (ends - starts)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
