"""What is usual for a device. Pure: standard library, no clock of its own.

Rules:
- The first ten healthy reports, each counting alike, give mean and spread.
- From then on each further one counts for a hundredth, so that the baseline follows
  slow change and no single report moves it much.
- Fewer than ten reports are a baseline too, the less certain the fewer they are: their
  own spread counts for more, and to it comes what values of the measure usually
  scatter by. Fewer reports never make for a narrower spread.
"""

import math
from dataclasses import dataclass, replace

FIRST_SAMPLES = 10
MEDIUM_SAMPLES = 5
SLOW_WEIGHT = 0.01
SMALLEST_SPREAD = 1e-6

LOW, MEDIUM, HIGH = "low", "medium", "high"
CONFIDENCES = (LOW, MEDIUM, HIGH)


@dataclass(frozen=True, slots=True)
class RunningStatistics:
    """Mean and variance of one measure, and of how many reports they are.

    `prior_spread` is what is assumed of the measure as long as it is hardly known, in
    its unit.
    """

    samples: int = 0
    mean: float = 0.0
    variance: float = 0.0
    prior_spread: float = 0.0

    @property
    def is_known(self) -> bool:
        return self.samples > 0

    @property
    def is_certain(self) -> bool:
        return self.samples >= FIRST_SAMPLES

    @property
    def confidence(self) -> str:
        """How sure it is: `low`, `medium` from five reports on, `high` from ten on."""
        if self.is_certain:
            return HIGH
        return MEDIUM if self.samples >= MEDIUM_SAMPLES else LOW

    @property
    def spread(self) -> float:
        """The standard deviation to be reckoned with, in the unit of the measure.

        From ten reports on it is theirs.
        """
        missing = max(0.0, 1 - self.samples / FIRST_SAMPLES)
        widening = max(1.0, FIRST_SAMPLES / max(1, self.samples))
        return math.sqrt(self.variance * widening + missing * self.prior_spread**2)

    def distance(self, value: float) -> float | None:
        """Return how far a value is from the mean, in spreads; below it is negative.

        None where the spread is too small to measure with: a steady measure has one
        of rounding errors alone.
        """
        if self.spread <= SMALLEST_SPREAD:
            return None
        return (value - self.mean) / self.spread

    def learn(self, value: float) -> "RunningStatistics":
        """Take in one more report.

        Up to the tenth these are mean and population variance exactly.
        """
        samples = self.samples + 1
        weight = 1 / samples if samples <= FIRST_SAMPLES else SLOW_WEIGHT
        distance = value - self.mean
        step = weight * distance
        return replace(
            self,
            samples=samples,
            mean=self.mean + step,
            variance=(1 - weight) * (self.variance + distance * step),
        )


def spread_sql(samples: str, variance: str, prior_spread: float) -> str:
    """Return `RunningStatistics.spread` in SQL, of columns of one report or more."""
    return (
        f"sqrt({variance} * GREATEST(1, {FIRST_SAMPLES}.0 / GREATEST(1, {samples}))"
        f" + GREATEST(0, 1 - {samples} / {FIRST_SAMPLES}.0) * {prior_spread**2})"
    )
