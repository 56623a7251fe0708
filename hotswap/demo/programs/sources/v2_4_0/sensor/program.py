"""Version 2.4.0: the mean of each frame, smoothed over five frames."""

from collections import deque
from collections.abc import Callable

from .calibration import corrected
from .driver import COARSE_COUNTS_PER_DEGREE, FINE_COUNTS_PER_DEGREE, Frame, Sensor
from .health import Tally

STEP_SECONDS = 0.25
PLAUSIBLE_DEGREES = (-20.0, 120.0)


class Program:
    """Read the sensor and keep a smoothed temperature."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._sensor = Sensor(clock)
        self._tally = Tally()
        self._means: deque[float] = deque(maxlen=5)

    def step(self) -> None:
        """Take one reading."""
        degrees = mean_degrees(self._sensor.read())
        is_plausible = PLAUSIBLE_DEGREES[0] <= degrees <= PLAUSIBLE_DEGREES[1]
        if is_plausible:
            self._means.append(degrees)
        self._tally.note(is_plausible)

    def metrics(self) -> dict[str, float]:
        """Give the numbers that the device reports."""
        smoothed = sum(self._means) / max(1, len(self._means))
        return {
            "sensorReadings": self._tally.readings,
            "errors": self._tally.errors,
            "errorRate": self._tally.error_rate,
            "temperatureCelsius": round(smoothed, 3),
        }

    def memory_bytes(self) -> int:
        """Give the size of what the program keeps."""
        return 8 * len(self._means)


def mean_degrees(frame: Frame) -> float:
    """Give the mean temperature of one frame."""
    count = round(sum(frame.counts) / len(frame.counts))
    scale = COARSE_COUNTS_PER_DEGREE if frame.is_coarse else FINE_COUNTS_PER_DEGREE
    return corrected(count) / scale
