"""A signal ends the agent wherever it strikes."""

import os
import random
import signal
import subprocess
import sys
import time

from tests.devices.agent.device_process import REPOSITORY

ROUNDS = 400
HANGS_AFTER_SECONDS = 30

# It says "." when it may be struck, and once more when it has ended so.
WAITING = f"""\
import faulthandler, sys
from devices.agent.clock import StopRequested, StoppableClock, stop_on_signals

faulthandler.dump_traceback_later({HANGS_AFTER_SECONDS}, exit=True)
for _ in range({ROUNDS}):
    clock = StoppableClock()
    try:
        stop_on_signals(clock)
        sys.stdout.write(".")
        sys.stdout.flush()
        while True:
            clock.wait(0.0001)
    except StopRequested:
        assert clock.is_stopping
"""

# The program is looked at and ended as the agent does it.
LOOKING = f"""\
import faulthandler, subprocess, sys
from pathlib import Path
from devices.agent.application import ProcessApplication
from devices.agent.clock import StopRequested, StoppableClock, stop_on_signals
from devices.agent.installer import Image, ImageRecord
from tests.devices.agent.device_process import is_alive

faulthandler.dump_traceback_later({HANGS_AFTER_SECONDS}, exit=True)
application = ProcessApplication(["sleep", "60"], Path(sys.argv[1]), 1)
application.start(Image(ImageRecord("1.0.0", "0" * 64, 1), None))
pid = application._process.pid
for _ in range({ROUNDS}):
    try:
        stop_on_signals(StoppableClock())
        sys.stdout.write(".")
        sys.stdout.flush()
        while True:
            application.is_running()
    except StopRequested:
        pass
application.stop()
sys.exit(is_alive(pid))
"""


def strike(source: str, *arguments: str) -> str:
    """Send SIGTERM at a random moment of each round; give what the process said."""
    process = subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        cwd=REPOSITORY,
        # Coverage has locks of its own, which a signal may leave taken.
        env={
            name: value
            for name, value in os.environ.items()
            if not name.startswith("COV")
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stdout is not None
    chance = random.Random(1)
    while process.stdout.read(1) == b".":
        until = time.perf_counter() + chance.uniform(0, 0.0005)
        while time.perf_counter() < until:
            pass
        os.kill(process.pid, signal.SIGTERM)
    _, said = process.communicate()
    return f"{process.returncode} {said.decode()}".strip()


def test_signal_ends_a_wait_wherever_it_strikes() -> None:
    assert strike(WAITING) == "0"


def test_program_is_ended_wherever_a_signal_strikes_a_look_at_it(tmp_path) -> None:
    assert strike(LOOKING, str(tmp_path)) == "0"
