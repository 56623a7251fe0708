"""Judge heartbeats against limits. Pure: standard library, no clock of its own.

Rules:
- A breach is as long as the time between the heartbeat that began it and the last
  one: silence between heartbeats proves nothing.
- What a device was already suffering from before its update is not held against the
  update; the trigger is left out and named in `exempt`.
- No data is unknown, never healthy: a heartbeat that does not say a measure neither
  begins nor ends a breach of it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

CPU = "cpu"
MEMORY = "memory"
ERROR_RATE = "error_rate"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a watched device may not exceed, and for how long.

    `cpu_percent` and `memory_percent` are 0-100, `error_ratio` is 0-1.
    """

    cpu_percent: float
    cpu_duration: timedelta
    memory_percent: float
    memory_duration: timedelta
    error_ratio: float
    error_duration: timedelta
    exempt: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Sample:
    """The measured part of one heartbeat; None where the device said nothing."""

    at: datetime
    cpu_percent: float | None
    memory_percent: float | None
    error_ratio: float | None


@dataclass(frozen=True, slots=True)
class Suffering:
    """Since when each limit has been exceeded without a break."""

    cpu_since: datetime | None = None
    memory_since: datetime | None = None
    error_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """The answer to one heartbeat.

    `breach` names the trigger whose limit was exceeded for its whole window. `detail`
    says for people which limit is exceeded, also while its window still runs.
    """

    suffering: Suffering
    is_healthy: bool
    breach: str | None
    detail: str


def exceeded(sample: Sample, limits: Limits) -> frozenset[str]:
    """Name the limits that a sample exceeds, exempt or not."""
    found = set()
    if sample.cpu_percent is not None and sample.cpu_percent > limits.cpu_percent:
        found.add(CPU)
    if (
        sample.memory_percent is not None
        and sample.memory_percent > limits.memory_percent
    ):
        found.add(MEMORY)
    if sample.error_ratio is not None and sample.error_ratio > limits.error_ratio:
        found.add(ERROR_RATE)
    return frozenset(found)


def unmeasured(sample: Sample) -> frozenset[str]:
    """Name the triggers of CPU and memory that a sample says nothing about."""
    found = set()
    if sample.cpu_percent is None:
        found.add(CPU)
    if sample.memory_percent is None:
        found.add(MEMORY)
    return frozenset(found)


def judge(sample: Sample, limits: Limits, before: Suffering) -> Judgement:
    """Compare a heartbeat with its limits, given what went before.

    Source: FR-FW-005, Rollback Triggers.
    """
    over = exceeded(sample, limits) - limits.exempt
    unknown = unmeasured(sample)

    def since(trigger: str, started: datetime | None) -> datetime | None:
        if trigger in unknown:
            return started
        return (started or sample.at) if trigger in over else None

    suffering = Suffering(
        cpu_since=since(CPU, before.cpu_since),
        memory_since=since(MEMORY, before.memory_since),
        error_since=since(ERROR_RATE, before.error_since),
    )
    breach, detail = None, ""
    # The error rate comes first: it says most about the program itself.
    for trigger, started, window, said in (
        (
            ERROR_RATE,
            suffering.error_since,
            limits.error_duration,
            (
                f"error rate {(sample.error_ratio or 0) * 100:.1f} % "
                f"is over {limits.error_ratio * 100:g} %"
            ),
        ),
        (
            MEMORY,
            suffering.memory_since,
            limits.memory_duration,
            (
                f"memory {sample.memory_percent or 0:.1f} % "
                f"is over {limits.memory_percent:g} %"
            ),
        ),
        (
            CPU,
            suffering.cpu_since,
            limits.cpu_duration,
            f"CPU {sample.cpu_percent or 0:.1f} % is over {limits.cpu_percent:g} %",
        ),
    ):
        if started is None or trigger not in over:
            continue
        if sample.at - started >= window:
            breach = trigger
            detail = said
            if window:
                detail += f" for {(sample.at - started).total_seconds():.0f} s"
            break
        if not detail:
            detail = f"{said}, a breach after {window.total_seconds():.0f} s of it"
    return Judgement(suffering, not over, breach, detail)
