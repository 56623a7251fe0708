"""The clock of the program that writes the demo's past.

Rules:
- Everything in the project asks `django.utils.timezone.now` for the time, so a clock in
  its place moves all services at once. It is put there before any model is loaded, as
  models keep the function that they were loaded with.
- It never goes back, and every look at it is later than the one before, so that rows
  keep the order in which they were written.
- Only programs of the demo use it.
"""

from datetime import UTC, datetime, timedelta

TICK = timedelta(milliseconds=1)


class MovableClock:
    """The time of day, or a moment of the past that is moved by hand."""

    def __init__(self) -> None:
        self._at: datetime | None = None

    def __call__(self) -> datetime:
        """Give the time, aware, in UTC."""
        if self._at is None:
            return datetime.now(UTC)
        self._at += TICK
        return self._at

    def install(self) -> None:
        """Let the whole process ask this clock; before the models are loaded."""
        from django.utils import timezone

        timezone.now = self

    def set(self, at: datetime) -> None:
        """Stand at a moment.

        Raises:
            ValueError: it is before the moment at which the clock stands.
        """
        if self._at is not None and at < self._at:
            raise ValueError(f"the clock stands at {self._at}, which is after {at}")
        self._at = at

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.set(self() + timedelta(seconds=seconds))

    def release(self) -> None:
        """Show the time of day again."""
        self._at = None
