"""Whose turn it is, among the threads of one process.

Pure: a clock that is passed in, and a lock.
"""

import threading


class SingleFlight:
    """Held by one thread at a time; who holds it for too long is overtaken."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._taken_at: float | None = None

    def take(self, now: float) -> bool:
        """Take the turn if nobody has it, or has had it for longer than patience."""
        with self._lock:
            held = self._taken_at
            if held is not None and now - held <= self._patience_seconds:
                return False
            self._taken_at = now
            return True

    def give_back(self, taken_at: float) -> None:
        """End a turn, unless another has overtaken it."""
        with self._lock:
            if self._taken_at == taken_at:
                self._taken_at = None
