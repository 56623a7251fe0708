"""What is usual for a device. Pure: standard library, no clock of its own.

Rules:
- The first ten healthy reports, each counting alike, give mean and spread.
- From then on each further one counts for a hundredth, so that the baseline follows
  slow change and no single report moves it much.
- Fewer than ten reports are no baseline: what is usual is not known then.
"""

import math
from dataclasses import dataclass

FIRST_SAMPLES = 10
SLOW_WEIGHT = 0.01
SMALLEST_SPREAD = 1e-6


@dataclass(frozen=True, slots=True)
class Usual:
    """Mean and variance of one measure, and of how many reports they are."""

    samples: int = 0
    mean: float = 0.0
    variance: float = 0.0

    @property
    def is_established(self) -> bool:
        return self.samples >= FIRST_SAMPLES

    @property
    def spread(self) -> float:
        """The standard deviation, in the unit of the measure."""
        return math.sqrt(self.variance)

    @property
    def samples_needed(self) -> int:
        """Of how many reports on it is known."""
        return FIRST_SAMPLES

    def distance(self, value: float) -> float | None:
        """Return how far a value is from the mean, in spreads; below it is negative.

        None where the spread is too small to measure with: a steady measure has one
        of rounding errors alone.
        """
        if self.spread <= SMALLEST_SPREAD:
            return None
        return (value - self.mean) / self.spread

    def learn(self, value: float) -> "Usual":
        """Take in one more report.

        Up to the tenth these are mean and population variance exactly.
        """
        samples = self.samples + 1
        weight = 1 / samples if samples <= FIRST_SAMPLES else SLOW_WEIGHT
        distance = value - self.mean
        step = weight * distance
        return Usual(
            samples,
            self.mean + step,
            (1 - weight) * (self.variance + distance * step),
        )
