"""Spreading a start, so that what waits together does not begin together.

Pure: standard library only.
"""

import hashlib
from datetime import timedelta


def jitter_of(spread: timedelta, name: str) -> timedelta:
    """Return the part of a spread that a name has to wait for.

    Random over the names, and the same for one name however often it is asked for and
    on whichever server.

    Returns:
        At least nothing, and less than the spread.
    """
    digest = hashlib.sha256(name.encode()).digest()
    return spread * (int.from_bytes(digest[:6]) / 2**48)
