"""Devices with faults that chance gives them, the same at every run of a seed."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.bench.device import Device
from tests.bench.wire import Answer

WORDS = ("downloading", "verifying", "installing", "rebooting")
POLL_SECONDS = 30.0
DROPPED = 0.4
SICK_RATE = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What is wrong with one device.

    Attributes:
        vanishes: `before` it installs or `after` it rebooted, for good; else empty.
        fails_self_test: comes back with its former image and says so.
        is_sick: half of its requests fail on the new image.
        failing_returns: so many orders to go back fail before one is carried out.
        drops_reports, mixes_reports: loses some before the claim; repeats them and
            sends them in the wrong order.
    """

    vanishes: str
    fails_self_test: bool
    is_sick: bool
    failing_returns: int
    drops_reports: bool
    mixes_reports: bool

    @classmethod
    def of(cls, name: str, seed: int) -> "Plan":
        chance = random.Random(f"{seed} {name}")
        return cls(
            vanishes=chance.choices(("", "before", "after"), (96, 2, 2))[0],
            fails_self_test=chance.random() < 0.03,
            is_sick=chance.random() < 0.10,
            failing_returns=chance.choices((0, 1, 2), (94, 4, 2))[0],
            drops_reports=chance.random() < 0.10,
            mixes_reports=chance.random() < 0.10,
        )


@dataclass
class FaultyDevice:
    """One device that does what is due whenever it is asked to."""

    device: Device
    plan: Plan
    counted: Callable[[Callable[[], Answer], str], Answer]
    former: tuple[str, str] = ("", "")
    has_vanished: bool = False
    has_run_new: bool = False
    failed_returns: int = 0
    is_sick_now: bool = False
    beat_due: float = 0.0
    poll_due: float = 0.0
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.device.name)
        self.former = (self.device.version, self.device.checksum)
        # Not all of them at once.
        self.poll_due = time.monotonic() + self.chance.random() * POLL_SECONDS
        self.beat_due = self.poll_due + self.chance.random() * POLL_SECONDS

    def account(self) -> dict[str, Any]:
        """Tell what became of it; the device itself knows best."""
        return {
            "vanished": self.has_vanished,
            "ran_new": self.has_run_new,
            "is_home": (self.device.version, self.device.checksum) == self.former,
        }

    def step(self) -> None:
        """Send what is due."""
        if self.has_vanished:
            return
        now = time.monotonic()
        if now >= self.poll_due:
            self.poll_due = now + POLL_SECONDS
            answer = self.counted(self.device.poll, "poll")
            if answer.status == 200:
                self._carry_out(answer.json())
        if not self.has_vanished and now >= self.beat_due:
            self._beat()

    def _beat(self) -> None:
        rate = SICK_RATE if self.is_sick_now else 0.0
        answer = self.counted(lambda: self.device.beat(rate), "beat")
        seconds = 30.0
        if answer.status == 200:
            seconds = answer.json()["nextHeartbeatSeconds"]
        self.beat_due = time.monotonic() + seconds

    def _carry_out(self, order: dict[str, Any]) -> None:
        device = self.device
        known = device.order["updateId"] if device.order else None
        if order["updateId"] == known:
            return
        device.take(order)
        if order["action"] == "rollback":
            self._go_back()
        else:
            self._install()

    def _install(self) -> None:
        device, plan = self.device, self.plan
        self.counted(device.download, "download")
        if plan.vanishes == "before":
            self.has_vanished = True
            return
        self._say_words()
        if plan.fails_self_test:
            device.boot += 1
            self._beat()
            self._report("failed", errorCode="self_test_failed")
            return
        device.reboot()
        self.has_run_new = True
        if plan.vanishes == "after":
            self.has_vanished = True
            return
        self.is_sick_now = plan.is_sick
        self._report("confirming")
        self._beat()

    def _go_back(self) -> None:
        device = self.device
        self.counted(device.download, "download")
        if self.failed_returns < self.plan.failing_returns:
            self.failed_returns += 1
            self._report("failed", errorCode="install_failed")
            self.poll_due = 0.0
            return
        self._say_words()
        device.reboot()
        self.is_sick_now = False
        self._report("confirming")
        self._beat()

    def _say_words(self) -> None:
        for word in WORDS:
            if self.plan.drops_reports and self.chance.random() < DROPPED:
                self.device.sequence += 1
            elif self.plan.mixes_reports:
                sequence = self.device.sequence = self.device.sequence + 2
                for number in (sequence, sequence - 1, sequence):
                    self._report(word, sequence=number)
            else:
                self._report(word)

    def _report(self, status: str, **fields: Any) -> None:
        self.counted(lambda: self.device.report(status, **fields), "report")
