"""The health of many devices in numbers. Pure: standard library, no clock of its own.

Rules:
- The health score is the mean over the devices of healthy 1, degraded 0.5, unhealthy
  or unknown 0, as a percent. No device, no score.
- An anomaly is a value that lies far from what is usual for that very device: by four
  of its own spreads at least, and by a floor below which no difference matters.
  Error rates count only above what is usual.
- Without a baseline, and of a silent device, nothing is said. A baseline of few reports
  has wider spreads, and whoever shows the anomaly says how sure it is.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from health.baseline import RunningStatistics, spread_sql
from health.triggers import Trigger
from hotswap.common.pluralize import counted

SPREADS = 4.0


@dataclass(frozen=True, slots=True)
class VerdictCounts:
    """Devices by verdict."""

    healthy: int = 0
    degraded: int = 0
    unhealthy: int = 0
    unknown: int = 0

    @property
    def total(self) -> int:
        return self.healthy + self.degraded + self.unhealthy + self.unknown

    @property
    def score_percent(self) -> float | None:
        """The health score, 0-100; None without devices."""
        if not self.total:
            return None
        return 100 * (self.healthy + 0.5 * self.degraded) / self.total


def is_anomalous(trigger: Trigger, value: float, usual: RunningStatistics) -> bool:
    """Tell whether a value of a measure is far from what is usual."""
    if not usual.is_known:
        return False
    distance = value - usual.mean
    if trigger.is_anomalous_only_above and distance < 0:
        return False
    return abs(distance) >= max(trigger.anomaly_floor, SPREADS * usual.spread)


# The same in SQL, over the columns of a state.
def anomaly_sql(trigger: Trigger) -> str:
    """Return the condition that the latest value of a measure is far from usual."""
    distance = f"({trigger.column} - {trigger.mean})"
    if not trigger.is_anomalous_only_above:
        distance = f"abs{distance}"
    samples = trigger.baseline_samples
    spread = spread_sql(samples, trigger.variance, trigger.prior_spread)
    return (
        f"({samples} > 0 AND {distance} >= "
        f"GREATEST({trigger.anomaly_floor}, {SPREADS} * {spread}))"
    )


def describe_anomalies(
    values: Iterable[tuple[Trigger, float | None, RunningStatistics]],
) -> str:
    """Say which values are far from what is usual, and how sure that is.

    Args:
        values: of each measure its value, None where nothing was said, and what is
            usual for it.

    Returns:
        A sentence for people; "" where there is nothing to say.
    """
    return "; ".join(
        f"{trigger.label} {trigger.shown(value)}, usually {trigger.shown(usual.mean)} "
        f"({usual.confidence} confidence, {counted(usual.samples, 'report')})"
        for trigger, value, usual in values
        if value is not None and is_anomalous(trigger, value, usual)
    )
