"""What was read a moment ago, for whoever asks next.

What takes long to read is remembered for longer, so that no more than a twentieth of a
processor goes into reading it, whoever asks and however often.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

CACHED_SECONDS: Final = 5.0
CACHED_TIMES_AS_LONG: Final = 20
Value = TypeVar("Value")


class Cached:
    """Remembers values for a while; whoever comes meanwhile waits for the first."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        # One read may ask for another.
        self._lock = threading.RLock()
        self._values: dict[str, tuple[float, Any]] = {}

    def get(
        self, name: str, read: Callable[[], Value], seconds: float = CACHED_SECONDS
    ) -> Value:
        with self._lock:
            until, value = self._values.get(name, (0.0, None))
            if until <= self._monotonic():
                started = self._monotonic()
                value = read()
                ended = self._monotonic()
                kept = max(seconds, CACHED_TIMES_AS_LONG * (ended - started))
                self._values[name] = (ended + kept, value)
            found: Value = value
            return found

    def forget(self) -> None:
        with self._lock:
            self._values.clear()


cached: Final = Cached()
