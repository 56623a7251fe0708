"""Run one program and end when it is frozen: `python -m hotswap.stack.guard`.

    python -m hotswap.stack.guard --health http://127.0.0.1:9464/health -- celery ...

For containers and services, whose supervisor starts again what has ended, but not what
lives and does no work.

Rules:
- The program is healthy while its address answers 200. One that was healthy and is not
  for `--seconds` running is killed, and the guard ends with 1.
- A start may take as long as it takes.
- SIGTERM and SIGINT are handed on; the guard ends as the program does.
- Standard library only: it is one more process beside each program.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

LOOK_SECONDS = 5.0
ASK_SECONDS = 5.0
UNHEALTHY_SECONDS = 90.0
# Between two looks, after which the guard itself must have been frozen.
GAP_SECONDS = 30.0
HANDED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def is_healthy(address: str) -> bool:
    """Tell whether an address answers 200 in time."""
    try:
        with urllib.request.urlopen(address, timeout=ASK_SECONDS) as answer:  # noqa: S310 - from the command line
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


@dataclass(slots=True)
class Health:
    """Counts for how long a program that was healthy is not any more.

    A gap in which the guard itself was frozen does not count.
    """

    limit_seconds: float
    _since: float | None = field(init=False, default=None)
    _was_healthy: bool = field(init=False, default=False)
    _looked_at: float | None = field(init=False, default=None)

    def is_over(self, is_well: bool, now: float) -> bool:
        """Take note of one look, at a time of a clock that nobody sets."""
        before, self._looked_at = self._looked_at, now
        if is_well:
            self._was_healthy, self._since = True, None
            return False
        was_frozen = before is not None and now - before > GAP_SECONDS
        if not self._was_healthy or self._since is None or was_frozen:
            self._since = now
            return False
        return now - self._since >= self.limit_seconds


def run(
    command: Sequence[str],
    *,
    ask: Callable[[], bool],
    limit_seconds: float = UNHEALTHY_SECONDS,
    look_seconds: float = LOOK_SECONDS,
) -> int:
    """Run a program to its end, and return the exit code to end with.

    That of the program, 128 and the signal's number if one ended it, 1 if frozen.
    """
    process = subprocess.Popen(command, start_new_session=True)

    def hand_on(number: int, _: object) -> None:
        if process.returncode is None:
            process.send_signal(number)

    for number in HANDED_ON:
        signal.signal(number, hand_on)
    health = Health(limit_seconds)
    while True:
        try:
            code = process.wait(look_seconds)
        except subprocess.TimeoutExpired:
            if not health.is_over(ask(), time.monotonic()):
                continue
            log(f"not healthy for {limit_seconds:.0f} s: killed, to be started again")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return 1
        return code if code >= 0 else 128 - code


def log(message: str) -> None:
    """Write one line as those of the programs."""
    line = {
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "level": "CRITICAL",
        "message": message,
        "logger": "hotswap.stack.guard",
    }
    sys.stderr.write(f"{json.dumps(line)}\n")
    sys.stderr.flush()


def main() -> None:
    """Guard the program of the command line."""
    parser = argparse.ArgumentParser(prog="hotswap.stack.guard", description=__doc__)
    parser.add_argument("--health", required=True, help="address that answers 200")
    parser.add_argument("--seconds", type=float, default=UNHEALTHY_SECONDS)
    parser.add_argument("command", nargs="+", help="after --")
    given = parser.parse_args()
    sys.exit(
        run(
            given.command,
            ask=lambda: is_healthy(given.health),
            limit_seconds=given.seconds,
        )
    )


if __name__ == "__main__":
    main()
