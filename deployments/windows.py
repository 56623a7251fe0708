"""Maintenance windows: when devices may be given orders.

Pure: standard library and a clock that is passed in.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
DEVICE_ZONE = "device"
"""Stands for the time zone that each device names in its tag of this name."""
ZONE_TAG = "timezone"


@dataclass(frozen=True, slots=True)
class MaintenanceWindow:
    """From `start` to `end`, local time, on the named days.

    A window that ends at or before its start goes on into the next day; its day is the
    one on which it starts. `zone` is a name of the IANA database, or "device".
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

    def zone_of(self, tags: dict[str, str]) -> ZoneInfo:
        """Return the zone that counts for a device; UTC if it names none that is."""
        name = tags.get(ZONE_TAG, "UTC") if self.zone == DEVICE_ZONE else self.zone
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            return ZoneInfo("UTC")

    def opening_after(self, now: datetime, zone: ZoneInfo) -> datetime | None:
        """Return the moment from which orders may be given: None if they may be now.

        Returns:
            Aware, in UTC.
        """
        today = now.astimezone(zone).date()
        # A window of yesterday may still be open; the next one starts within a week.
        for offset in range(-1, 8):
            day = today + timedelta(days=offset)
            if DAYS[day.weekday()] not in self.days:
                continue
            opens = datetime.combine(day, self.start, zone).astimezone(UTC)
            last = day if self.end > self.start else day + timedelta(days=1)
            closes = datetime.combine(last, self.end, zone).astimezone(UTC)
            if opens <= now < closes:
                return None
            if opens > now:
                return opens
        raise ValueError("a window needs at least one day")
