"""Watch a program that something else runs: the system's own services.

Rules:
- Whether it is alive is not known here, so nothing is said of it but its metrics.
- CPU and memory are those of the whole device.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from devices.agent.application import Measurement, read_metrics
from devices.agent.freshness import FileAge, Stamp, stamp_of
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
    _metrics_age: FileAge | None = field(init=False, default=None)
    _stamp_at_start: Stamp = field(init=False, default=())
    _ticks: tuple[int, int] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Watch the metrics file, if there is one."""
        if self.metrics_file is not None:
            self._metrics_age = FileAge(self.metrics_file)

    def start(self, image: Image) -> None:
        """See `Application`: note from when on metrics are this boot's."""
        if self.metrics_file is not None:
            self._stamp_at_start = stamp_of(self.metrics_file)
        self._ticks = _cpu_ticks()

    def stop(self) -> None:
        """See `Application`."""

    def is_running(self) -> bool:
        """See `Application`: nothing speaks against it."""
        return True

    def has_reported(self) -> bool:
        """Say whether metrics were written since the start, if any are to be."""
        if self.metrics_file is None:
            return True
        is_new = stamp_of(self.metrics_file) != self._stamp_at_start
        return is_new and bool(read_metrics(self.metrics_file))

    def exit_message(self) -> str:
        """See `Application`."""
        return "The application is the system's."

    def look(self) -> None:
        """See `Application`."""
        if self._metrics_age is not None:
            self._metrics_age.seconds()

    def measure(self) -> Measurement:
        """See `Application`."""
        before, self._ticks = self._ticks, _cpu_ticks()
        metrics: dict[str, float] = {}
        age_seconds = None
        if self.metrics_file is not None:
            metrics = read_metrics(self.metrics_file)
        if self._metrics_age is not None:
            age_seconds = self._metrics_age.seconds()
        measured = {
            "cpuUsage": _cpu_percent(before, self._ticks),
            "memoryUsage": _memory_percent(),
        }
        return Measurement(
            measures={
                name: value for name, value in measured.items() if value is not None
            },
            metrics=metrics,
            metrics_age_seconds=None if age_seconds is None else round(age_seconds, 1),
        )


def _cpu_percent(
    before: tuple[int, int] | None, after: tuple[int, int] | None
) -> float | None:
    """Give the share of busy ticks between two looks, None if one of them failed."""
    if before is None or after is None:
        return None
    busy, total = after[0] - before[0], after[1] - before[1]
    return round(min(100.0, max(0.0, busy / max(total, 1) * 100)), 2)


def _cpu_ticks() -> tuple[int, int] | None:
    """Give the busy and all ticks of all cores since the boot, None if unreadable."""
    try:
        line = _STAT.read_text(encoding="ascii").splitlines()[0]
        ticks = [int(word) for word in line.split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    return sum(ticks) - sum(ticks[each] for each in _IDLE_FIELDS), sum(ticks)


def _memory_percent() -> float | None:
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        sizes = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
        used = 1 - sizes["MemAvailable"] / sizes["MemTotal"]
    except (OSError, ValueError, IndexError, KeyError, ZeroDivisionError):
        return None
    return round(used * 100, 2)
