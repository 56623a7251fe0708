"""Devices as a program in Go (`loader/`), and what the programs of a stack cost."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil

from hotswap.stack.stack import Stack
from tests.live import PROJECT_DIR

LOADER = PROJECT_DIR / "tests" / "load" / "loader"
# Of a stack: what a device costs.
PROGRAMS = ("web", "worker", "beat", "postgres", "redis")


def build() -> Path:
    """Build the program that is the devices, and return it.

    Raises:
        SystemExit: there is no Go, or it does not build.
    """
    go = shutil.which("go")
    if go is None:
        raise SystemExit("the devices need Go 1.21: install the package `golang`")
    program = PROJECT_DIR / "build" / "loader"
    program.parent.mkdir(exist_ok=True)
    done = subprocess.run([go, "build", "-o", program, "."], cwd=LOADER, check=False)
    if done.returncode != 0:
        raise SystemExit("the loader does not build")
    return program


def send_devices(program: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Run a job of the program, and return what it saw; `loader/main.go` has both."""
    done = subprocess.run(
        [program], input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def cpu_seconds(stack: Stack) -> dict[str, float]:
    """Return what each program of a stack has used so far."""
    found = {}
    for name in PROGRAMS:
        leader = psutil.Process(stack.pid(name))
        found[name] = 0.0
        for process in (leader, *leader.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            # Those that have ended are their parents' children.
            found[name] += sum(times[:4]) if process == leader else sum(times[:2])
    return found
