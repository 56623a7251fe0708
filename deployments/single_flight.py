"""Turns of the threads of one process: one at a time, and not too often.

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

    @property
    def is_taken(self) -> bool:
        """Whether somebody has it, for however long."""
        with self._lock:
            return self._taken_at is not None


class Pace:
    """Keeps what is done of its own accord to a share of the time.

    Args:
        share: what it may take of the time at most, above 0, below 1.
    """

    def __init__(self, share: float) -> None:
        self._rest = 1 / share - 1
        self._lock = threading.Lock()
        self._next_at = float("-inf")

    def note(self, began: float, ended: float) -> None:
        """Note how long it took this time."""
        with self._lock:
            self._next_at = ended + (ended - began) * self._rest

    def wait(self, now: float) -> float:
        """Return in how many seconds it may be done again; 0 at once."""
        with self._lock:
            return max(0.0, self._next_at - now)
