"""Slots for what holds a thread of the web server while it waits.

Each kind of waiting has slots of its own, so that none can take those of another, and
one thread is left that never waits. What finds no slot is refused, and may come again.
"""

import threading
import time
from collections.abc import Callable

from django.conf import settings

from hotswap.common.postgresql.sharing import release_connection

# How many of sixteen threads may wait for clients at a time.
SHARES = {
    # Bodies of those whom nobody knows yet; of uploads; all others.
    "strangers": 2,
    "uploads": 2,
    "others": 3,
    # Images, and other long answers that are streamed.
    "downloads": 5,
    "streams": 2,
    # Requests that wait for news rather than for their client.
    "waits": 1,
}
# What has had its slot for so long does not give it back at once.
STUCK_SECONDS = 0.5


def share_of_threads(kind: str) -> int:
    """Return how many threads of this process may wait for a reason."""
    return max(1, settings.WEB_THREADS * SHARES[kind] // 16)


class Slots:
    """A number of slots, each for one piece of work of this process."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._changed = threading.Condition()
        self._taken_at: dict[object, float] = {}

    def take(self) -> Callable[[], None] | None:
        """Take a slot; return what gives it back, once, however often it is called.

        Whoever has one waits for others, and lets them have its database connection.

        Returns:
            None where all slots are taken, and none becomes free soon: it waits for
            half a second, and only if one was taken within the last half second.
        """
        token = object()
        release_connection()
        with self._changed:
            if not self._is_free() and not (
                self._may_soon_be_free()
                and self._changed.wait_for(self._is_free, STUCK_SECONDS)
            ):
                return None
            self._taken_at[token] = time.monotonic()

        def give_back() -> None:
            with self._changed:
                if self._taken_at.pop(token, None) is not None:
                    self._changed.notify()

        return give_back

    def _is_free(self) -> bool:
        return len(self._taken_at) < self._number

    def _may_soon_be_free(self) -> bool:
        before = time.monotonic() - STUCK_SECONDS
        return any(taken_at > before for taken_at in self._taken_at.values())
