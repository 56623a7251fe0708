"""Tell the time and wait, both replaceable."""

import signal
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import Protocol


class StopRequested(BaseException):
    """The agent was asked to end.

    Like `KeyboardInterrupt` no `Exception`, as what handles errors must not swallow it:
    the handlers of `logging` would.
    """


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


class SystemClock:
    """The time of the operating system."""

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    def now(self) -> datetime:
        """See `Clock`."""
        return datetime.now(UTC)


@dataclass(slots=True)
class StoppableClock(SystemClock):
    """The clock of a process with one thread; see `stop_on_signals`.

    It has no lock: a signal may strike while it is held, and would wait for itself.
    """

    is_stopping: bool = False

    def wait(self, seconds: float) -> None:
        """See `Clock`."""
        if self.is_stopping:
            raise StopRequested
        time.sleep(max(0.0, seconds))


def stop_on_signals(clock: StoppableClock) -> None:
    """End the main thread by `StopRequested` on SIGTERM or SIGINT, wherever it is."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        # Raising ends a blocking read too. It may strike anywhere, but whatever
        # survives a kill survives this; a second signal must not disturb the end.
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)
        clock.is_stopping = True
        raise StopRequested

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
