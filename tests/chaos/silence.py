"""How long no tick began, as somebody beside all links sees it."""

import threading
import time

from hotswap.stack.ticks import last_tick

LOOK_SECONDS = 0.1


class Silence:
    """Looks all the time whether a tick has begun, by a clock that nobody sets.

    Attributes:
        longest: seconds without a tick since `begin()`, within the block.
    """

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run)
        self._heard_at = time.monotonic()
        self.longest = 0.0

    def __enter__(self) -> "Silence":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def begin(self) -> None:
        """Measure from now on."""
        with self._lock:
            self._heard_at = time.monotonic()
            self.longest = 0.0

    def _run(self) -> None:
        known = last_tick(self._url)
        while not self._over.wait(LOOK_SECONDS):
            found = last_tick(self._url)
            now = time.monotonic()
            with self._lock:
                self.longest = max(self.longest, now - self._heard_at)
                if found not in (None, known):
                    known, self._heard_at = found, now
