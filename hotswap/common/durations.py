"""ISO 8601 durations on the wire: `PT30M` in, canonical form out."""

from datetime import timedelta

import isodate

MAX_DURATION = timedelta(days=366)


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
