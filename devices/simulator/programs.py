"""Run the program of an image inside this process.

Rules:
- What a simulated device reports comes from its image's own code, never from the
  version's name.
- Each image is imported under a private name, so that several versions of the same
  package live side by side.
- A program has its own clock, which goes on one step's time with each step. Steps are
  made up for whenever somebody looks, so a fleet needs no timer per device.
"""

import importlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Protocol, cast

from devices.agent.application import (
    IDLE,
    ApplicationError,
    Measurement,
    clean_metrics,
)
from devices.agent.installer import Image

logger = logging.getLogger(__name__)

MAX_STEPS_AT_ONCE = 40
_import_lock = threading.Lock()


class Program(Protocol):
    """What an image's `sensor.program.Program` can do."""

    def step(self) -> None:
        """Do one piece of work."""

    def metrics(self) -> Mapping[str, Any]:
        """Give the numbers to be reported."""

    def memory_bytes(self) -> int:
        """Give the size of what the program keeps."""


@dataclass(frozen=True, slots=True)
class LoadedProgram:
    """The code of one image."""

    make: Callable[[Callable[[], float]], Program]
    step_seconds: float


def load_program(path: Path, sha256: str) -> LoadedProgram:
    """Import the program of an image that was just checked, once per process.

    Raises:
        ApplicationError: its code cannot be imported.
    """
    namespace = f"_hotswap_image_{sha256[:32]}"
    with _import_lock:
        if namespace not in sys.modules:
            parent = ModuleType(namespace)
            parent.__path__ = [str(path)]
            sys.modules[namespace] = parent
        try:
            module = importlib.import_module(f"{namespace}.sensor.program")
            return LoadedProgram(
                make=cast("Callable[[Callable[[], float]], Program]", module.Program),
                step_seconds=float(module.STEP_SECONDS),
            )
        except Exception as error:
            # Foreign code may fail in any way; on a device this is a crash at start.
            raise ApplicationError(f"{type(error).__name__}: {error}") from error


@dataclass(slots=True)
class InProcessApplication:
    """A program run by whoever looks at it; see `Application`.

    CPU is the time this thread spent in the program, memory what the program says it
    keeps: its process is shared, so the system cannot tell.
    """

    is_own: ClassVar[bool] = True
    memory_bytes: int
    monotonic: Callable[[], float] = time.monotonic
    _program: Program | None = field(init=False, default=None)
    _step_seconds: float = field(init=False, default=1.0)
    _program_time: float = field(init=False, default=0.0)
    _steps: int = field(init=False, default=0)
    _cpu_seconds: float = field(init=False, default=0.0)
    _measured_at: float = field(init=False, default=0.0)
    _end: str = field(init=False, default="The application is not running.")

    def start(self, image: Image) -> None:
        """See `Application`."""
        self.stop()
        if image.path is None:
            raise ApplicationError("The image has no file.")
        loaded = load_program(image.path, image.record.sha256)
        self._step_seconds = loaded.step_seconds
        self._program_time = self._measured_at = self.monotonic()
        self._steps = 0
        self._cpu_seconds = 0.0
        self._guard(lambda: self._begin(loaded))

    def stop(self) -> None:
        """See `Application`."""
        self._program = None

    def is_running(self) -> bool:
        """See `Application`."""
        self._catch_up()
        return self._program is not None

    def has_reported(self) -> bool:
        """See `Application`."""
        self._catch_up()
        return self._program is not None and self._steps > 0

    def exit_message(self) -> str:
        """See `Application`."""
        return self._end

    def look(self) -> None:
        """See `Application`; the program's own clock tells how old its numbers are."""

    def measure(self) -> Measurement:
        """See `Application`."""
        self._catch_up()
        if self._program is None:
            return Measurement(IDLE, {}, None)
        now = self.monotonic()
        elapsed = max(now - self._measured_at, 1e-3)
        cpu_percent = self._cpu_seconds / elapsed * 100
        self._cpu_seconds, self._measured_at = 0.0, now
        memory_percent = self._program.memory_bytes() / self.memory_bytes * 100
        return Measurement(
            measures={
                "cpuUsage": round(min(100.0, cpu_percent), 2),
                "memoryUsage": round(min(100.0, memory_percent), 2),
            },
            metrics=clean_metrics(self._program.metrics()) if self._steps else {},
            metrics_age_seconds=round(max(0.0, now - self._program_time), 1),
        )

    def _begin(self, loaded: LoadedProgram) -> None:
        self._program = loaded.make(lambda: self._program_time)

    def _catch_up(self) -> None:
        program = self._program
        if program is None:
            return
        due = int((self.monotonic() - self._program_time) / self._step_seconds)
        began_at = time.thread_time()
        for _ in range(min(due, MAX_STEPS_AT_ONCE)):
            self._program_time += self._step_seconds
            if not self._guard(program.step):
                break
            self._steps += 1
        self._cpu_seconds += time.thread_time() - began_at

    def _guard(self, work: Callable[[], None]) -> bool:
        """Do a piece of the program's work; it ends if it raises."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - foreign code may fail in any way
            self._program = None
            self._end = (
                f"The application ended by itself: {type(error).__name__}: {error}"
            )
            return False
        return True
