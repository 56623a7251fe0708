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

from collections.abc import Sequence
from dataclasses import dataclass

from health.baseline import Usual
from hotswap.common.words import counted

SPREADS = 4.0
CPU_FLOOR = 20.0
MEMORY_FLOOR = 15.0
ERROR_FLOOR = 0.05


# Of CPU, memory and error rate: name, floor, only above, and what makes percent of it.
JUDGED = (
    ("CPU", CPU_FLOOR, False, 1),
    ("memory", MEMORY_FLOOR, False, 1),
    ("error rate", ERROR_FLOOR, True, 100),
)


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


def is_anomalous(
    value: float, usual: Usual, floor: float, *, only_above: bool = False
) -> bool:
    """Tell whether a value is far from what is usual.

    Args:
        floor: the least distance that matters, in the unit of the value.
    """
    if not usual.is_known:
        return False
    distance = value - usual.mean
    if only_above and distance < 0:
        return False
    return abs(distance) >= max(floor, SPREADS * usual.spread)


def describe_anomalies(values: Sequence[tuple[float | None, Usual]]) -> str:
    """Say which values are far from what is usual, and how sure that is.

    Args:
        values: CPU, memory and error rate, None where nothing was said, each with what
            is usual for it.

    Returns:
        A sentence for people; "" where there is nothing to say.
    """
    return "; ".join(
        f"{name} {scale * value:.1f} %, usually {scale * usual.mean:.1f} % "
        f"({usual.confidence} confidence, {counted(usual.samples, 'report')})"
        for (name, floor, only_above, scale), (value, usual) in zip(
            JUDGED, values, strict=True
        )
        if value is not None
        and is_anomalous(value, usual, floor, only_above=only_above)
    )
