"""Which places answered lately, as far as this process has seen.

A place that failed is asked last for a while, so that not every request waits for it.
Nothing is decided by this but an order: a place that is thought away is still asked
when no other has an answer.
"""

import threading
import time
from collections.abc import Callable

FAILED_SECONDS = 30.0
SEEN_SECONDS = 5.0


class Reachability:
    """A short memory of failures and successes; safe for threads."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._failed_until: dict[str, float] = {}
        self._seen_until: dict[str, float] = {}

    def note_failure(self, name: str) -> None:
        with self._lock:
            self._failed_until[name] = self._monotonic() + FAILED_SECONDS
            self._seen_until.pop(name, None)

    def note_success(self, name: str) -> None:
        with self._lock:
            self._failed_until.pop(name, None)
            self._seen_until[name] = self._monotonic() + SEEN_SECONDS

    def has_failed(self, name: str) -> bool:
        """Say whether it failed a short while ago."""
        with self._lock:
            return self._failed_until.get(name, 0.0) > self._monotonic()

    def was_seen(self, name: str) -> bool:
        """Say whether it answered so lately that it need not be asked again."""
        with self._lock:
            return self._seen_until.get(name, 0.0) > self._monotonic()

    def forget(self) -> None:
        with self._lock:
            self._failed_until.clear()
            self._seen_until.clear()


reachability = Reachability()
