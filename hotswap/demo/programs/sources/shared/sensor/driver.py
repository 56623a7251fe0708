"""The sensor itself: a thermometer on a slow industrial process.

It answers with frames of raw counts of a 12-bit converter. After power-on it measures
in its fine range; when the process has warmed up it changes to the coarse range by
itself and says so in the frame.
"""

import math
import random
from array import array
from collections.abc import Callable
from dataclasses import dataclass

MAX_COUNT = 4095
FINE_COUNTS_PER_DEGREE = 80.0
COARSE_COUNTS_PER_DEGREE = 10.0
SAMPLES_PER_FRAME = 4096
WARM_UP_SECONDS = 2.5
START_DEGREES = 20.0
WORKING_DEGREES = 60.0


@dataclass(frozen=True)
class Frame:
    """One burst of samples; `counts` is one byte string of 16-bit counts."""

    number: int
    is_coarse: bool
    counts: array


class Sensor:
    """Simulate the thermometer from its power-on."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started_at = clock()
        self._random = random.Random(20)
        self._number = 0

    def read(self) -> Frame:
        """Take one burst of samples."""
        self._number += 1
        elapsed = self._clock() - self._started_at
        warmth = 1.0 - math.exp(-elapsed / WARM_UP_SECONDS)
        degrees = START_DEGREES + (WORKING_DEGREES - START_DEGREES) * warmth
        is_coarse = degrees * FINE_COUNTS_PER_DEGREE > MAX_COUNT * 0.9
        scale = COARSE_COUNTS_PER_DEGREE if is_coarse else FINE_COUNTS_PER_DEGREE
        # Sixteen real samples, repeated: the converter oversamples.
        samples = [self._count(degrees * scale) for _ in range(16)]
        return Frame(
            number=self._number,
            is_coarse=is_coarse,
            counts=array("H", samples * (SAMPLES_PER_FRAME // 16)),
        )

    def _count(self, ideal: float) -> int:
        noisy = ideal + self._random.gauss(0.0, 1.5)
        return max(0, min(MAX_COUNT, round(noisy)))
