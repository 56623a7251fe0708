"""Health criteria and rollback thresholds of a deployment, with their defaults.

Stored as plain JSON (seconds, percents, ratios); everything is settable per
deployment, down to seconds.
"""

from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Self

from health.evaluation import Limits


class _Stored:
    __slots__ = ()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read the stored form; what is missing gets its default."""
        known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
        return cls(
            **{
                name: timedelta(seconds=value)
                if known[name].type in (timedelta, "timedelta")
                else value
                for name, value in data.items()
                if name in known
            }
        )

    def to_json(self) -> dict[str, Any]:
        """Write the stored form."""
        stored = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            stored[field.name] = (
                value.total_seconds() if isinstance(value, timedelta) else value
            )
        return stored


@dataclass(frozen=True)
class HealthCriteria(_Stored):
    """How a device proves itself after its claim, and how long it is watched."""

    confirmation_duration: timedelta = timedelta(seconds=60)
    heartbeats_required: int = 2
    watch_duration: timedelta = timedelta(hours=1)

    @property
    def heartbeat_interval(self) -> timedelta:
        """What a watched device is told: between 1 and 30 seconds."""
        seconds = self.confirmation_duration.total_seconds() / self.heartbeats_required
        return timedelta(seconds=int(min(30, max(1, seconds))))


@dataclass(frozen=True)
class RollbackThresholds(_Stored):
    """When a device, or the whole deployment, goes back.

    Usage and rates of success are percents, `error_rate` is a ratio of 0-1.
    """

    offline_after: timedelta = timedelta(minutes=2)
    cpu_usage: float = 95
    cpu_duration: timedelta = timedelta(minutes=5)
    memory_usage: float = 90
    memory_duration: timedelta = timedelta(minutes=5)
    error_rate: float = 0.10
    error_duration: timedelta = timedelta(0)
    success_rate: float = 95
    minimum_sample: int = 1
    minimum_exposure: float = 90

    @property
    def longest_duration(self) -> timedelta:
        """For how long a limit may be exceeded at most before it is a breach."""
        return max(self.cpu_duration, self.memory_duration, self.error_duration)

    @property
    def limits(self) -> Limits:
        """The part that is judged at each heartbeat."""
        return Limits(
            cpu_percent=self.cpu_usage,
            cpu_duration=self.cpu_duration,
            memory_percent=self.memory_usage,
            memory_duration=self.memory_duration,
            error_ratio=self.error_rate,
            error_duration=self.error_duration,
        )
