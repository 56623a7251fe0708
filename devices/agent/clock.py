"""Tell the time and wait, both replaceable."""

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol


class StopRequested(Exception):  # noqa: N818 - a request, not an error
    """The agent was asked to end."""


class Clock(Protocol):
    """What the agent needs of time."""

    def monotonic(self) -> float:
        """Give seconds that never go back."""

    def now(self) -> datetime:
        """Give the time of day, aware, in UTC."""

    def wait(self, seconds: float) -> None:
        """Wait.

        Raises:
            StopRequested: the agent shall end.
        """


@dataclass(frozen=True, slots=True)
class StoppableClock:
    """The system's clock, with an event that ends every wait."""

    stopping: threading.Event = field(default_factory=threading.Event)

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    def now(self) -> datetime:
        """See `Clock`."""
        return datetime.now(UTC)

    def wait(self, seconds: float) -> None:
        """See `Clock`."""
        if self.stopping.wait(max(0.0, seconds)):
            raise StopRequested
