"""Begin and end child processes as an agent has to."""

import contextlib
import os
import subprocess

REAP_SECONDS = 3.0

_OWN_PREFIXES = ("HOTSWAP_", "WATCHDOG_")
# A child that had it could speak to systemd in the agent's name.
_OWN_NAMES = frozenset({"NOTIFY_SOCKET"})


def child_environment() -> dict[str, str]:
    """Give the environment of this process without the agent's own variables."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OWN_PREFIXES) and name not in _OWN_NAMES
    }


def reap(process: subprocess.Popen[bytes]) -> None:
    """Take note that a process that was killed has ended.

    Not without end: a signal that strikes `Popen.poll` may leave the lock taken that
    `Popen.wait` waits for.
    """
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(REAP_SECONDS)
