"""Version 2.5.0: medians instead of means, outliers refused, the rate of change.

The last frames are kept, so that a jump can be judged by what came before it.
"""

from collections import deque
from collections.abc import Callable
from statistics import median

from .calibration import corrected
from .driver import COARSE_COUNTS_PER_DEGREE, FINE_COUNTS_PER_DEGREE, Frame, Sensor
from .health import Tally

STEP_SECONDS = 0.25
KEPT_FRAMES = 8
MAX_JUMP_DEGREES = 15.0
# The process cannot warm up faster.
MAX_DEGREES_PER_SECOND = 20.0
PLAUSIBLE_DEGREES = (-20.0, 120.0)


class Program:
    """Read the sensor and keep a robust temperature and its rate of change."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sensor = Sensor(clock)
        self._tally = Tally()
        self._frames: deque[Frame] = deque(maxlen=KEPT_FRAMES)
        self._degrees: deque[float] = deque(maxlen=KEPT_FRAMES)
        self._accepted_at = clock()
        self._outliers = 0

    def step(self) -> None:
        """Take one reading."""
        begun_at = self._clock()
        frame = self._sensor.read()
        self._frames.append(frame)
        degrees = median_degrees(frame)
        self._tally.note(self._accept(degrees, begun_at))

    def metrics(self) -> dict[str, float]:
        """Give the numbers that the device reports."""
        return {
            "sensorReadings": self._tally.readings,
            "errors": self._tally.errors,
            "errorRate": self._tally.error_rate,
            "temperatureCelsius": round(self._temperature(), 3),
            "degreesPerMinute": round(self._slope() * 60, 3),
            "outliers": self._outliers,
        }

    def memory_bytes(self) -> int:
        """Give the size of what the program keeps."""
        return sum(len(each.counts) * each.counts.itemsize for each in self._frames)

    def _accept(self, degrees: float, begun_at: float) -> bool:
        if not PLAUSIBLE_DEGREES[0] <= degrees <= PLAUSIBLE_DEGREES[1]:
            return False
        # At least as long as lies between this reading and the last good one, however
        # long the program was held up in between.
        seconds = self._clock() - self._accepted_at
        allowed = MAX_JUMP_DEGREES + MAX_DEGREES_PER_SECOND * seconds
        if self._degrees and abs(degrees - self._degrees[-1]) > allowed:
            self._outliers += 1
            return False
        self._accepted_at = begun_at
        self._degrees.append(degrees)
        return True

    def _temperature(self) -> float:
        return median(self._degrees) if self._degrees else 0.0

    def _slope(self) -> float:
        if len(self._degrees) < 2:
            return 0.0
        seconds = (len(self._degrees) - 1) * STEP_SECONDS
        return (self._degrees[-1] - self._degrees[0]) / seconds


def median_degrees(frame: Frame) -> float:
    """Give the median temperature of one frame."""
    count = round(median(frame.counts[:16]))
    scale = COARSE_COUNTS_PER_DEGREE if frame.is_coarse else FINE_COUNTS_PER_DEGREE
    return corrected(count) / scale
