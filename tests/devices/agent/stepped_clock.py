"""The agent on a device whose wall clock is set while it runs.

`python -m tests.devices.agent.stepped_clock --config ...` runs the agent as it is, by a
wall clock that begins where `START` says and is set anew at each of the crash points
that `STEPS` names.

Rules:
- Only the wall clock moves: monotonic time and the files' own times are the system's.
- What the clock was set to outlives a reboot, as a real one's does.
"""

import json
import os
import sys
import time
from datetime import UTC, datetime, tzinfo
from pathlib import Path

START = "HOTSWAP_TEST_CLOCK"
"""Seconds by which the clock is wrong at the start."""
STEPS = "HOTSWAP_TEST_CLOCK_STEPS"
"""JSON: seconds by which the clock is wrong from a point on, by the point's name."""

_time = time.time
_offset_seconds = 0.0


def wall_clock() -> float:
    """Give the seconds since 1970 that the device believes in."""
    return _time() + _offset_seconds


class SteppedDatetime(datetime):
    """The class `datetime` on this device."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "SteppedDatetime":
        """Give the time of day that the device believes in."""
        return cls.fromtimestamp(wall_clock(), tz or UTC)


def main() -> int:
    """Run the agent by this clock."""
    config = Path(sys.argv[sys.argv.index("--config") + 1])
    kept = config.with_name("clock")
    start = kept.read_text() if kept.exists() else os.environ.get(START, "0")
    set_clock(float(start), kept)
    steps: dict[str, float] = json.loads(os.environ.get(STEPS, "{}"))

    from devices.agent import crashpoints

    reach = crashpoints.reach

    def stepping_reach(point: str) -> None:
        if point in steps:
            set_clock(steps[point], kept)
        reach(point)

    crashpoints.reach = stepping_reach
    time.time = wall_clock
    # Only now, so that every module takes what was put in place above.
    from devices.agent.__main__ import main as run_agent

    for name, module in list(sys.modules.items()):
        if name.startswith("devices.agent") and hasattr(module, "datetime"):
            module.datetime = SteppedDatetime  # type: ignore[attr-defined]
    return run_agent()


def set_clock(offset_seconds: float, kept: Path) -> None:
    """Set the clock wrong by so many seconds."""
    global _offset_seconds
    _offset_seconds = offset_seconds
    kept.write_text(str(offset_seconds))


if __name__ == "__main__":
    sys.exit(main())
