"""Health criteria and rollback thresholds of a deployment, with their defaults.

Stored as plain JSON (seconds, percents, ratios); everything is settable per
deployment, down to seconds.
"""

from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any, Self

from health.evaluation import Limits


class _Stored:
    __slots__ = ()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read the stored form; what is missing gets its default."""
        known = {each.name: each for each in fields(cls)}  # type: ignore[arg-type]
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
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            stored[each.name] = (
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

    Attributes:
        limits: what is judged at each heartbeat. In the stored form, and to the API,
            its parts stand among the other fields.
        success_rate, minimum_exposure: percents.
    """

    offline_after: timedelta = timedelta(minutes=2)
    limits: Limits = field(default_factory=Limits)
    success_rate: float = 95
    minimum_sample: int = 1
    minimum_exposure: float = 90

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Return the defaults with what is given, limits by their own names.

        Args:
            given: as in `cpu_usage=80, success_rate=90`.
        """
        own = {each.name for each in fields(cls)}
        return cls(
            **{name: value for name, value in given.items() if name in own},
            limits=Limits.of(
                **{name: value for name, value in given.items() if name not in own}
            ),
        )

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read the stored form; what is missing gets its default."""
        return replace(super().from_json(data), limits=Limits.from_json(data))

    def to_json(self) -> dict[str, Any]:
        """Write the stored form."""
        stored = super().to_json()
        del stored["limits"]
        return stored | self.limits.to_json()
