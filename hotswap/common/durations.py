"""Durations: ISO 8601 on the wire, `PT30M`; words on pages, `30 min`."""

import re
from datetime import timedelta

import isodate

MAX_DURATION = timedelta(days=366)
# Each unit with its length in seconds, the longest first, and how people write it.
UNITS = (
    ("d", 86_400, r"d|days?"),
    ("h", 3600, r"h|hrs?|hours?"),
    ("min", 60, r"m|mins?|minutes?"),
    ("s", 1, r"s|secs?|seconds?"),
)
IN_WORDS = re.compile(
    "".join(rf"(?:(\d{{1,9}})\s*(?:{words})\s*)?" for _, _, words in UNITS),
    re.ASCII | re.IGNORECASE,
)


def parse_duration(text: str) -> timedelta:
    """Read an ISO 8601 duration.

    Raises:
        ValueError: not ISO 8601, negative, over 366 days, or with years or months,
            whose length depends on the day they start.
    """
    try:
        value = isodate.parse_duration(text)
    except (isodate.ISO8601Error, TypeError, ValueError, OverflowError):
        raise ValueError("must be an ISO 8601 duration such as PT30M") from None
    if not isinstance(value, timedelta):
        raise ValueError("years and months have no fixed length: use days")
    if not timedelta(0) <= value <= MAX_DURATION:
        raise ValueError("must be between PT0S and P366D")
    return value


def format_duration(value: timedelta) -> str:
    """Write the canonical form: `PT90S` becomes `PT1M30S`, zero is `PT0S`."""
    return isodate.duration_isoformat(value) if value else "PT0S"


def duration_of_words(text: str) -> timedelta | None:
    """Read `90 s`, `30 min`, `1h 30m` or `2 days`; a bare number is seconds.

    Returns:
        None where the text is written in another way, as in ISO 8601.
    """
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return timedelta(seconds=int(text))
    found = IN_WORDS.fullmatch(text)
    if found is None or not any(found.groups()):
        return None
    numbers = zip(found.groups(), UNITS, strict=True)
    return timedelta(
        seconds=sum(int(number or 0) * length for number, (_, length, _) in numbers)
    )


def duration_in_words(value: timedelta) -> str:
    """Write a duration in full: `1 h 30 min`; fractions of a second are kept."""
    left = value.total_seconds()
    parts = []
    for unit, length, _ in UNITS[:-1]:
        number, left = divmod(left, length)
        if number:
            parts.append(f"{number:.0f} {unit}")
    if left or not parts:
        parts.append(f"{left:g} s")
    return " ".join(parts)
