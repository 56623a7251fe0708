"""Watch a program that something else runs: the system's own services.

Rules:
- Whether it is alive is not known here, so nothing is said of it but its metrics.
- CPU and memory are those of the whole device.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from devices.agent.application import Measurement, read_metrics
from devices.agent.installer import Image

_STAT = Path("/proc/stat")
_MEMINFO = Path("/proc/meminfo")
_IDLE_FIELDS = (3, 4)


@dataclass(slots=True)
class SystemApplication:
    """See `Application`; starting and stopping are the system's.

    Attributes:
        metrics_file: written by whatever does the work, None if nothing writes any.
    """

    is_own: ClassVar[bool] = False
    metrics_file: Path | None = None
    _seen_at_start: int = field(init=False, default=0)
    _busy: int = field(init=False, default=0)
    _total: int = field(init=False, default=0)

    def start(self, image: Image) -> None:
        """See `Application`: note from when on metrics are this boot's."""
        self._seen_at_start = self._written_at()
        self._busy, self._total = _cpu_ticks()

    def stop(self) -> None:
        """See `Application`."""

    def is_running(self) -> bool:
        """See `Application`: nothing speaks against it."""
        return True

    def has_reported(self) -> bool:
        """Say whether metrics were written since the start, if any are to be."""
        if self.metrics_file is None:
            return True
        is_new = self._written_at() != self._seen_at_start
        return is_new and bool(read_metrics(self.metrics_file))

    def exit_message(self) -> str:
        """See `Application`."""
        return "The application is the system's."

    def measure(self) -> Measurement:
        """See `Application`."""
        busy, total = _cpu_ticks()
        elapsed = max(total - self._total, 1)
        cpu_percent = (busy - self._busy) / elapsed * 100
        self._busy, self._total = busy, total
        metrics: dict[str, float] = {}
        age_seconds = None
        if self.metrics_file is not None:
            metrics = read_metrics(self.metrics_file)
            written_at = self._written_at()
            if written_at:
                age_seconds = round(max(0.0, time.time() - written_at / 1e9), 1)
        return Measurement(
            cpu_percent=round(min(100.0, max(0.0, cpu_percent)), 2),
            memory_percent=_memory_percent(),
            metrics=metrics,
            metrics_age_seconds=age_seconds,
        )

    def _written_at(self) -> int:
        """Give when the metrics were written, in nanoseconds, 0 if never."""
        try:
            return self.metrics_file.stat().st_mtime_ns if self.metrics_file else 0
        except OSError:
            return 0


def _cpu_ticks() -> tuple[int, int]:
    """Give the busy and all ticks of all cores since the boot."""
    try:
        line = _STAT.read_text(encoding="ascii").splitlines()[0]
        ticks = [int(word) for word in line.split()[1:9]]
    except (OSError, ValueError, IndexError):
        return 0, 0
    return sum(ticks) - sum(ticks[each] for each in _IDLE_FIELDS), sum(ticks)


def _memory_percent() -> float:
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        sizes = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
        used = 1 - sizes["MemAvailable"] / sizes["MemTotal"]
    except (OSError, ValueError, IndexError, KeyError, ZeroDivisionError):
        return 0.0
    return round(used * 100, 2)
