"""Judge heartbeats against limits. Pure: standard library, no clock of its own.

Rules:
- A breach is as long as the time between the heartbeat that began it and the last
  one: silence between heartbeats proves nothing.
- What a device exceeded before its update is not held against the update; the trigger
  is left out and named in `exempt`.
- No data is unknown, never healthy: a heartbeat that does not say a measure that it
  has to say neither begins nor ends a breach of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self

from health.triggers import REQUIRED, TRIGGERS, Trigger

# Since when each limit has been exceeded without a break, by the trigger's name.
Timers = Mapping[str, datetime]


@dataclass(frozen=True, slots=True)
class Limit:
    """What a measure may not exceed, in its own unit, and for how long."""

    value: float
    duration: timedelta


def _defaults() -> dict[str, Limit]:
    return {
        each.name: Limit(each.default_limit, each.default_duration) for each in TRIGGERS
    }


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a watched device by the names of the triggers, and the exemptions.

    Unless given they are the defaults of the specification.
    """

    by_name: Mapping[str, Limit] = field(default_factory=_defaults)
    exempt: frozenset[str] = frozenset()

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Return the defaults with what is given under the names of the thresholds.

        Args:
            given: as in `cpu_usage=80, cpu_duration=timedelta(minutes=1)`.
        """
        limits = cls(
            {
                each.name: Limit(
                    given.pop(each.limit, each.default_limit),
                    given.pop(each.duration, each.default_duration),
                )
                for each in TRIGGERS
            }
        )
        if given:
            raise TypeError(f"no limits are called {', '.join(given)}")
        return limits

    @property
    def longest_duration(self) -> timedelta:
        """For how long a limit may be exceeded at most before it is a breach."""
        return max(limit.duration for limit in self.by_name.values())

    def to_json(self) -> dict[str, Any]:
        """Write the stored form: flat, durations in seconds, without exemptions."""
        stored: dict[str, Any] = {}
        for each in TRIGGERS:
            limit = self.by_name[each.name]
            stored[each.limit] = limit.value
            stored[each.duration] = limit.duration.total_seconds()
        return stored

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read the stored form; what is missing gets its default."""
        given: dict[str, Any] = {}
        for each in TRIGGERS:
            if each.limit in stored:
                given[each.limit] = stored[each.limit]
            if each.duration in stored:
                given[each.duration] = timedelta(seconds=stored[each.duration])
        return cls.of(**given)


@dataclass(frozen=True, slots=True)
class Sample:
    """The measured part of one heartbeat, by the names of the triggers.

    Values are None where the device said nothing.
    """

    at: datetime
    values: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The answer to one heartbeat.

    `breach` names the trigger whose limit was exceeded for its whole duration.
    `detail` says for people which limit is exceeded, also while its time still runs.
    """

    timers: Timers
    is_healthy: bool
    breach: str | None
    detail: str


def exceeded(sample: Sample, limits: Limits) -> frozenset[str]:
    """Name the limits that a sample exceeds, exempt or not."""
    found = set()
    for each in TRIGGERS:
        value = sample.values[each.name]
        if value is not None and value > limits.by_name[each.name].value:
            found.add(each.name)
    return frozenset(found)


def unmeasured(sample: Sample) -> frozenset[str]:
    """Name the triggers that a sample should say something about and does not."""
    return frozenset(each.name for each in REQUIRED if sample.values[each.name] is None)


def judge(sample: Sample, limits: Limits, before: Timers) -> Judgement:
    """Compare a heartbeat with its limits, given what went before.

    Source: FR-FW-005, Rollback Triggers.
    """
    over = exceeded(sample, limits) - limits.exempt
    timers = {name: before.get(name) or sample.at for name in over}
    for name in unmeasured(sample) & before.keys():
        timers[name] = before[name]
    breach, detail = None, ""
    for trigger in reversed(TRIGGERS):
        if trigger.name not in over:
            continue
        window = limits.by_name[trigger.name].duration
        lasted = sample.at - timers[trigger.name]
        excess = _excess(trigger, sample, limits)
        if lasted >= window:
            breach, detail = trigger.name, excess
            if window:
                detail += f" for {lasted.total_seconds():.0f} s"
            break
        if not detail:
            detail = f"{excess}, a breach after {window.total_seconds():.0f} s of it"
    return Judgement(timers, not over, breach, detail)


def _excess(trigger: Trigger, sample: Sample, limits: Limits) -> str:
    """Say by how much a measure is over its limit."""
    value = sample.values[trigger.name] or 0
    limit = trigger.shown_limit(limits.by_name[trigger.name].value)
    return f"{trigger.label} {trigger.shown(value)} is over {limit}"
