"""An end to a run of tests when its time is over, as `make check` gives it.

`-p tests.time_limit --seconds 75` begins no further test after 75 seconds. One that
runs is not broken off, and the first of all runs in any case. What was not reached has
not failed: the run ends with an error only where a test failed, and says how many tests
it did not reach. Without a test to run it ends well, too.
"""

import time

import pytest


class TimeLimit:
    """Ends a run of tests after some seconds."""

    def __init__(self, seconds: float) -> None:
        """Begin to count at the first test."""
        self.seconds = seconds
        self.ends_at: float | None = None
        self.not_reached = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Pass over a test whose time does not come any more."""
        if self.ends_at is None:
            self.ends_at = time.monotonic() + self.seconds
        elif time.monotonic() >= self.ends_at:
            self.not_reached += 1
            return True
        return None

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """End well without tests: those of a change may all be left to `make test`."""
        if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> None:
        """Say in one line how many tests the time did not reach."""
        if self.not_reached:
            terminalreporter.write_line(
                f"{self.not_reached} tests were not reached in {self.seconds:g} "
                "seconds; make test runs all."
            )


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the time of a run."""
    parser.addoption("--seconds", type=float, required=True)


def pytest_configure(config: pytest.Config) -> None:
    """Count the time of this run."""
    config.pluginmanager.register(TimeLimit(config.getoption("seconds")))
