"""Version 2.6.0: frames are analysed by number, with a cache of past analyses.

Made for a report of trends over any span: each analysis keeps its frame, so that it
can be refined later.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, pstdev

from .calibration import corrected
from .driver import FINE_COUNTS_PER_DEGREE, Frame, Sensor
from .health import Tally

STEP_SECONDS = 0.25
SUPPLY_DEGREES = (15.0, 90.0)


@dataclass(frozen=True)
class Analysis:
    """What one frame says."""

    frame: Frame
    waveform: list[float]
    degrees: float
    noise: float


class Program:
    """Read the sensor and answer for any past frame."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._sensor = Sensor(clock)
        self._tally = Tally()
        self._analyses: dict[int, Analysis] = {}
        self._degrees = 0.0

    def step(self) -> None:
        """Take one reading."""
        analysis = self._analyse(self._sensor.read())
        is_plausible = SUPPLY_DEGREES[0] <= analysis.degrees <= SUPPLY_DEGREES[1]
        if is_plausible:
            self._degrees = analysis.degrees
        self._tally.note(is_plausible)

    def metrics(self) -> dict[str, float]:
        """Give the numbers that the device reports."""
        return {
            "sensorReadings": self._tally.readings,
            "errors": self._tally.errors,
            "errorRate": self._tally.error_rate,
            "temperatureCelsius": round(self._degrees, 3),
            "analyses": len(self._analyses),
        }

    def memory_bytes(self) -> int:
        """Give the size of what the program keeps."""
        return sum(
            len(each.frame.counts) * each.frame.counts.itemsize
            + 32 * len(each.waveform)
            for each in self._analyses.values()
        )

    def _analyse(self, frame: Frame) -> Analysis:
        known = self._analyses.get(frame.number)
        if known is not None:
            return known
        waveform = [count / FINE_COUNTS_PER_DEGREE for count in frame.counts]
        count = round(median(frame.counts[:16]))
        analysis = Analysis(
            frame=frame,
            waveform=waveform,
            degrees=corrected(count) / FINE_COUNTS_PER_DEGREE,
            noise=pstdev(waveform[:16]),
        )
        self._analyses[frame.number] = analysis
        return analysis
