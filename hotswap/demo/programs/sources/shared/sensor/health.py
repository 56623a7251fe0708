"""Count what went well and what did not."""

from collections import deque

WINDOW = 20


class Tally:
    """Remember the outcome of the latest readings and the number of all."""

    def __init__(self) -> None:
        self.readings = 0
        self.errors = 0
        self._recent: deque[bool] = deque(maxlen=WINDOW)

    def note(self, is_good: bool) -> None:
        """Note the outcome of one reading."""
        self.readings += 1
        self.errors += not is_good
        self._recent.append(is_good)

    @property
    def error_rate(self) -> float:
        """The share of failed readings among the latest 20, 0-1."""
        return self._recent.count(False) / max(1, len(self._recent))
