"""Version 2.7.0: settings of the site are read at start."""

import json
from collections.abc import Callable
from pathlib import Path

from .driver import Sensor
from .health import Tally

STEP_SECONDS = 0.25
SITE_SETTINGS = Path("/etc/hotswap-sensor/site-settings.json")


class Program:
    """Read the sensor as the site's settings say."""

    def __init__(self, clock: Callable[[], float]) -> None:
        settings = json.loads(SITE_SETTINGS.read_text(encoding="utf-8"))
        self._limits = settings["plausibleDegrees"]
        self._sensor = Sensor(clock)
        self._tally = Tally()

    def step(self) -> None:
        """Take one reading."""
        count = self._sensor.read().counts[0]
        self._tally.note(self._limits[0] <= count <= self._limits[1])

    def metrics(self) -> dict[str, float]:
        """Give the numbers that the device reports."""
        return {"sensorReadings": self._tally.readings, "errors": self._tally.errors}

    def memory_bytes(self) -> int:
        """Give the size of what the program keeps."""
        return 0
