"""Run the image and measure it.

Rules:
- What is reported is measured: CPU and memory by the operating system, the rest from
  the metrics file that the program itself writes.
- The program never outlives the agent: the kernel kills it with its parent, and a
  leftover from before a crash is killed only if it is provably the agent's own.
- The program gets no secret of the agent through its environment.
"""

import contextlib
import ctypes
import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from devices.agent.children import child_environment, reap
from devices.agent.crashpoints import reach
from devices.agent.freshness import FileAge
from devices.agent.installer import Image

logger = logging.getLogger(__name__)

METRICS_VARIABLE = "HOTSWAP_METRICS_FILE"
MAX_METRICS = 58
MAX_METRICS_BYTES = 64 * 1024
MAX_METRIC_NAME_CHARACTERS = 64
STOP_SECONDS = 3.0
_PR_SET_PDEATHSIG = 1
_BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")


class ApplicationError(Exception):
    """The application could not be started."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was seen of the application since the last look.

    `measures` are what the agent itself measures, by the names and in the units of a
    heartbeat: `cpuUsage` in percent of one core, `memoryUsage` in percent of the
    device's memory. What could not be read is missing, as an unknown load is not a low
    one. `metrics` is empty until the program has written some; `metrics_age_seconds` is
    how long ago they were last seen to change.
    """

    measures: Mapping[str, float]
    metrics: Mapping[str, float]
    metrics_age_seconds: float | None


# Of a program that does not run.
IDLE: Mapping[str, float] = {"cpuUsage": 0.0, "memoryUsage": 0.0}


class Application(Protocol):
    """The program that the device exists for.

    Attributes:
        is_own: it is the agent that runs it, and knows when it ends.
    """

    is_own: ClassVar[bool]

    def start(self, image: Image) -> None:
        """Start the program from an image that was just checked.

        Raises:
            ApplicationError: it could not be started at all.
        """

    def stop(self) -> None:
        """End the program; does nothing if it is not running."""

    def is_running(self) -> bool:
        """Say whether the program is alive."""

    def has_reported(self) -> bool:
        """Say whether the program has written its metrics since its start."""

    def exit_message(self) -> str:
        """Say in words how the program ended."""

    def look(self) -> None:
        """See whether its metrics have changed; called about every second."""

    def measure(self) -> Measurement:
        """Measure the program since the last call."""


@dataclass(slots=True)
class ProcessApplication:
    """The program as a child process.

    Attributes:
        command: `{python}`, `{image}` and `{metrics}` are filled in.
        run_dir: holds the pid file and the metrics file.
    """

    is_own: ClassVar[bool] = True
    command: Sequence[str]
    run_dir: Path
    memory_bytes: int
    environment: Mapping[str, str] = field(default_factory=dict)
    keeps_output: bool = False
    _metrics_age: FileAge = field(init=False)
    _process: subprocess.Popen[bytes] | None = field(init=False, default=None)
    _measured_at: float = field(init=False, default=0.0)
    _measured_cpu_seconds: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        """Watch the metrics file."""
        self._metrics_age = FileAge(self._metrics_path)

    def start(self, image: Image) -> None:
        """See `Application`."""
        self.stop()
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._metrics_path.unlink(missing_ok=True)
        words = {
            "{python}": sys.executable,
            "{image}": str(image.path),
            "{metrics}": str(self._metrics_path),
        }
        arguments = [_fill(argument, words) for argument in self.command]
        output = None if self.keeps_output else subprocess.DEVNULL
        try:
            self._process = subprocess.Popen(
                arguments,
                cwd=self.run_dir,
                env=self._environment(image),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # The agent has one thread, so running code between fork and exec
                # is safe here.
                preexec_fn=_die_with_parent(os.getpid()),
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise ApplicationError(f"{arguments[0]}: {error}") from error
        self._measured_at = time.monotonic()
        self._measured_cpu_seconds = 0.0
        self._write_pid(self._process.pid)
        reach("try.application_started")

    def stop(self) -> None:
        """See `Application`."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                reap(process)
        self._pid_path.unlink(missing_ok=True)

    def is_running(self) -> bool:
        """See `Application`."""
        return self._process is not None and self._process.poll() is None

    def has_reported(self) -> bool:
        """See `Application`."""
        return bool(read_metrics(self._metrics_path))

    def exit_message(self) -> str:
        """See `Application`."""
        code = self._process.poll() if self._process else None
        if code is None:
            return "The application is not running."
        if code < 0:
            return f"The application was ended by signal {-code}."
        return f"The application ended by itself with exit code {code}."

    def look(self) -> None:
        """See `Application`."""
        self._metrics_age.seconds()

    def measure(self) -> Measurement:
        """See `Application`."""
        metrics = read_metrics(self._metrics_path)
        if self._process is None or not self.is_running():
            return Measurement(IDLE, metrics, self._metrics_age_seconds())
        now = time.monotonic()
        cpu_seconds = _cpu_seconds(self._process.pid)
        elapsed = max(now - self._measured_at, 1e-3)
        cpu_percent = (cpu_seconds - self._measured_cpu_seconds) / elapsed * 100
        self._measured_at, self._measured_cpu_seconds = now, cpu_seconds
        memory_percent = _resident_bytes(self._process.pid) / self.memory_bytes * 100
        return Measurement(
            measures={
                "cpuUsage": round(min(100.0, max(0.0, cpu_percent)), 2),
                "memoryUsage": round(min(100.0, memory_percent), 2),
            },
            metrics=metrics,
            metrics_age_seconds=self._metrics_age_seconds(),
        )

    def end_leftover(self) -> None:
        """Kill the program of an earlier agent that died, if it still runs.

        A pid alone proves nothing, as pids are reused: boot and start time must be
        those that were noted.
        """
        try:
            noted = json.loads(self._pid_path.read_bytes())
            pid = int(noted["pid"])
            started = _start_ticks(pid)
            is_own = (
                started > 0
                and started == noted["started"]
                and noted["boot"] == _kernel_boot_id()
            )
        except (OSError, ValueError, KeyError, TypeError):
            is_own = False
            pid = 0
        if is_own:
            logger.warning("killed a leftover application", extra={"pid": pid})
            # It dies with its agent, and may do so at this moment.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._pid_path.unlink(missing_ok=True)

    @property
    def _pid_path(self) -> Path:
        return self.run_dir / "application.json"

    @property
    def _metrics_path(self) -> Path:
        return self.run_dir / "metrics.json"

    def _metrics_age_seconds(self) -> float | None:
        age_seconds = self._metrics_age.seconds()
        return None if age_seconds is None else round(age_seconds, 1)

    def _environment(self, image: Image) -> dict[str, str]:
        return {
            **child_environment(),
            **self.environment,
            METRICS_VARIABLE: str(self._metrics_path),
            "HOTSWAP_FIRMWARE_VERSION": image.record.version,
        }

    def _write_pid(self, pid: int) -> None:
        # Only a help for cleaning up: it need not survive a power cut.
        noted = {"pid": pid, "started": _start_ticks(pid), "boot": _kernel_boot_id()}
        temporary = self._pid_path.with_suffix(".new")
        temporary.write_text(json.dumps(noted), encoding="utf-8")
        temporary.replace(self._pid_path)


def read_metrics(path: Path) -> dict[str, float]:
    """Read the finite numbers of a metrics file; {} if there is nothing usable."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_METRICS_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return clean_metrics(found) if isinstance(found, dict) else {}


def clean_metrics(found: Mapping[str, Any]) -> dict[str, float]:
    """Keep the first 58 finite numbers; the error rate is held within 0-1."""
    metrics: dict[str, float] = {}
    for name, value in found.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_usable = bool(name) and is_number and math.isfinite(value)
        if not is_usable or len(metrics) >= MAX_METRICS:
            continue
        metrics[name[:MAX_METRIC_NAME_CHARACTERS]] = value
    if "errorRate" in metrics:
        metrics["errorRate"] = min(1.0, max(0.0, metrics["errorRate"]))
    return metrics


def _fill(argument: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        argument = argument.replace(word, value)
    return argument


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent(parent_pid: int) -> Any:
    def prepare() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have died before the kernel was told.
        if os.getppid() != parent_pid:
            os._exit(1)

    return prepare


def _stat_fields(pid: int) -> list[str]:
    """Give the fields of /proc/PID/stat from the third (state) on."""
    content = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    # The second field is a name in brackets that may hold anything.
    return content.rpartition(")")[2].split()


def _start_ticks(pid: int) -> int:
    try:
        return int(_stat_fields(pid)[19])
    except (OSError, IndexError):
        return 0


def _cpu_seconds(pid: int) -> float:
    try:
        fields = _stat_fields(pid)
        ticks = int(fields[11]) + int(fields[12])
    except (OSError, IndexError):
        return 0.0
    return ticks / os.sysconf("SC_CLK_TCK")


def _resident_bytes(pid: int) -> int:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _kernel_boot_id() -> str:
    try:
        return _BOOT_ID_PATH.read_text(encoding="ascii").strip()
    except OSError:
        return ""
