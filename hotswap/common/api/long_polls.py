"""Requests that wait for news: `Prefer: wait=30` (RFC 7240) beside `If-None-Match`.

Rules:
- A request waits only while its answer would be 304, and for 30 s at most.
- Each holds a thread, so that few wait at a time (`slots.SHARES`). One more is
  answered at once, as if it had not asked; `Preference-Applied` says what was done.
"""

import re
import threading
import time
from collections.abc import Callable
from typing import Final

from rest_framework.request import Request

from hotswap.common.postgresql.sharing import release_connection
from hotswap.common.slots import share_of_threads

MAX_SECONDS: Final = 30
LOOK_EVERY_SECONDS: Final = 1.0
WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=[;,]|$)", re.IGNORECASE)


def wished_seconds(request: Request) -> int:
    """Return for how long a request may wait: 0-30; a malformed wish counts as none."""
    found = WAIT.search(request.headers.get("Prefer", ""))
    return min(MAX_SECONDS, int(found[1])) if found else 0


class LongPolls:
    """So many requests may wait at a time."""

    def __init__(self, number: int) -> None:
        self._places = threading.BoundedSemaphore(number)

    def wait(
        self,
        is_news: Callable[[], bool],
        seconds: float,
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> bool:
        """Look every second until there is news, or the time is over.

        Args:
            is_news: looks, and remembers what it saw.

        Returns:
            Whether it waited: without a place, or without time, it does not look.
        """
        if seconds <= 0 or not self._places.acquire(blocking=False):
            return False
        try:
            deadline = time.monotonic() + seconds
            while (left := deadline - time.monotonic()) > 0:
                release_connection()
                pause(min(LOOK_EVERY_SECONDS, left))
                if is_news():
                    break
            return True
        finally:
            self._places.release()


long_polls = LongPolls(share_of_threads("waits"))
