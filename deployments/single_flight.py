"""One flight at a time, among the threads of one process.

Pure: a clock that is passed in, and a lock.
"""

import threading


class SingleFlight:
    """Held by one thread at a time; who holds it for too long is overtaken."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._taken_at: float | None = None

    def take(self, now: float) -> bool:
        """Take it unless somebody has had it for less than the time-out."""
        with self._lock:
            held = self._taken_at
            if held is not None and now - held <= self._timeout_seconds:
                return False
            self._taken_at = now
            return True

    def give_back(self, taken_at: float) -> None:
        """Give it back, unless another has overtaken its holder."""
        with self._lock:
            if self._taken_at == taken_at:
                self._taken_at = None
