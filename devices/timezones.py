"""Time zones by their IANA names: which there are, and which was perhaps meant.

Pure: standard library alone.
"""

from difflib import get_close_matches
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

ZONE_TAG = "timezone"
"""The tag by which a device names its time zone."""
# A link to the zone of the server itself, and a placeholder for "not set".
NO_PLACES = frozenset({"localtime", "Factory"})


@cache
def zone_names() -> frozenset[str]:
    """Return the names that are known here."""
    return frozenset(available_timezones()) - NO_PLACES


@cache
def _loaded(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def zone_named(name: str) -> ZoneInfo | None:
    """Return the zone of this very name; None if there is none."""
    return _loaded(name) if name in zone_names() else None


def unknown_zone(name: str) -> str:
    """Say that a name is none of a time zone, and which one is like it."""
    message = f"{name[:70]!r} is not a time zone of the IANA database"
    by_fold = {each.casefold(): each for each in sorted(zone_names())}
    wanted = name.strip().replace(" ", "_").casefold()
    # People write the city alone, too.
    for each in sorted(zone_names()):
        by_fold.setdefault(each.rpartition("/")[2].casefold(), each)
    like = get_close_matches(wanted[:70], by_fold, n=1, cutoff=0.88)
    if not like:
        return f"{message}, as Europe/Berlin is"
    return f"{message}; perhaps {by_fold[like[0]]!r} is meant"
