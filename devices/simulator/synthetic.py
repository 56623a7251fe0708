"""A made-up program for devices whose image this process cannot run.

What it does wrong is decided once per device and image, by chance with a fixed seed,
and only a new image does it: the one the device was delivered with works.
"""

import random
from dataclasses import dataclass, field
from typing import ClassVar

from devices.agent.application import IDLE, Measurement
from devices.agent.installer import Image

MEASURES = {"cpuUsage": 22.0, "memoryUsage": 41.0}
GOOD_ERROR_RATE = 0.001
SICK_ERROR_RATE = 0.6


@dataclass(frozen=True, slots=True)
class Temper:
    """How often new images go wrong on the devices of a fleet, as ratios 0-1.

    `fail_rate` of them never come up, so that the device falls back by itself;
    `sick_rate` come up and then report errors.
    """

    fail_rate: float = 0.0
    sick_rate: float = 0.0
    seed: int = 1

    def draw(self, device_id: str, sha256: str) -> tuple[bool, bool]:
        """Return whether an image fails on a device, and whether it makes it sick."""
        chance = random.Random(f"{self.seed} {device_id} {sha256}")
        number = chance.random()
        return (
            number < self.fail_rate,
            self.fail_rate <= number < self.fail_rate + self.sick_rate,
        )


@dataclass(slots=True)
class SyntheticApplication:
    """See `Application`."""

    is_own: ClassVar[bool] = True

    device_id: str
    factory_sha256: str
    temper: Temper
    _is_running: bool = field(init=False, default=False)
    _is_sick: bool = field(init=False, default=False)
    _readings: int = field(init=False, default=0)

    def start(self, image: Image) -> None:
        """See `Application`."""
        sha256 = image.record.sha256
        fails = False
        self._is_sick = False
        if sha256 != self.factory_sha256:
            fails, self._is_sick = self.temper.draw(self.device_id, sha256)
        self._is_running = not fails
        self._readings = 0

    def stop(self) -> None:
        """See `Application`."""
        self._is_running = False

    def is_running(self) -> bool:
        """See `Application`."""
        return self._is_running

    def has_reported(self) -> bool:
        """See `Application`."""
        return self._is_running

    def exit_message(self) -> str:
        """See `Application`."""
        return "The simulated application does not come up."

    def look(self) -> None:
        """See `Application`; nothing is written that could grow old."""

    def measure(self) -> Measurement:
        """See `Application`."""
        if not self._is_running:
            return Measurement(IDLE, {}, None)
        self._readings += 1
        error_rate = SICK_ERROR_RATE if self._is_sick else GOOD_ERROR_RATE
        metrics = {"errorRate": error_rate, "sensorReadings": float(self._readings)}
        return Measurement(MEASURES, metrics, 0.0)
