"""Drive the program in real time and publish its metrics."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from sensor.program import STEP_SECONDS, Program

METRICS_VARIABLE = "HOTSWAP_METRICS_FILE"


def run() -> NoReturn:
    """Step the program until SIGTERM or SIGINT."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda _signal, _frame: sys.exit(0))
    program = Program(time.monotonic)
    metrics_path = Path(os.environ[METRICS_VARIABLE])
    due_at = time.monotonic()
    while True:
        program.step()
        publish(metrics_path, program.metrics())
        due_at = max(due_at + STEP_SECONDS, time.monotonic())
        time.sleep(max(0.0, due_at - time.monotonic()))


def publish(path: Path, metrics: dict[str, float]) -> None:
    """Replace the metrics file in one step, so that no reader sees half of it."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(metrics), encoding="utf-8")
    temporary.replace(path)
