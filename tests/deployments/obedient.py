"""Devices that live by the clock of a `World`: they do what the server tells them.

Each sends its heartbeats and polls when it was told to, carries its orders out, and
suffers from a fault of the new image as long as it runs it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from deployments.exceptions import UpdateClosedError
from deployments.protocols.native.instruction import instruction_of
from deployments.services.offers import poll
from deployments.services.tick import tick
from health.services.watching import sweep
from tests.deployments.world import ScriptedDevice, World

SILENCE = "silence"
# What a device says in its heartbeats, or that it says nothing.
Fault = Mapping[str, Any] | str
UPDATE_TIME = timedelta(seconds=20)
BETWEEN_TICKS = timedelta(seconds=15)


@dataclass
class ObedientDevice:
    """A device with its two timers.

    Attributes:
        fault: of the new image; None while there is none.
        returns_at: when it is back from the reboot of its order.
    """

    scripted: ScriptedDevice
    beats_at: datetime
    polls_at: datetime
    fault: Fault | None = None
    returns_at: datetime | None = None

    def due_at(self) -> datetime:
        """Return when it acts next."""
        return self.returns_at or min(self.beats_at, self.polls_at)

    def act(self, is_bad: bool) -> None:
        """Do what is due."""
        world, device = self.scripted.world, self.scripted
        if self.returns_at is not None:
            if world.now < self.returns_at:
                return
            self.returns_at = None
            device.reboot_into(device.ordered_image())
            self.beats_at = self.polls_at = world.now
            if not (is_bad and self.fault == SILENCE):
                self._beat(is_bad)
                # An order that was withdrawn meanwhile is dropped; a poll follows.
                with suppress(UpdateClosedError):
                    device.report("confirming")
        if is_bad and self.fault == SILENCE:
            self.beats_at = self.polls_at = world.now + UPDATE_TIME
            return
        if world.now >= self.beats_at:
            self._beat(is_bad)
        if world.now >= self.polls_at:
            self._poll()

    def _beat(self, is_bad: bool) -> None:
        said = self.fault if is_bad and isinstance(self.fault, Mapping) else {}
        answer = self.scripted.beat(**said)
        self.beats_at = self.scripted.world.now + timedelta(
            seconds=answer.next_heartbeat_seconds
        )

    def _poll(self) -> None:
        device, now = self.scripted, self.scripted.world.now
        answer = poll(device=device.device, now=now)
        self.polls_at = now + answer.interval
        if answer.order is None:
            return
        order = instruction_of(answer.order)
        if device.order is None or device.order["updateId"] != order["updateId"]:
            device.order, device.sequence = order, 0
            device.work()
            self.returns_at = now + UPDATE_TIME


@dataclass
class ObedientFleet:
    """A world whose devices live on by themselves."""

    world: World
    bad_checksum: str = ""
    devices: list[ObedientDevice] = field(default_factory=list)
    ticked_at: datetime | None = None

    def add(self, devices: list[ScriptedDevice]) -> None:
        """Let devices live, each with timers of its own phase."""
        for index, device in enumerate(devices):
            at = self.world.now + timedelta(seconds=3 * index)
            self.devices.append(ObedientDevice(device, at, at))

    def live_until(self, at: datetime, until: Callable[[], bool] | None = None) -> None:
        """Let time pass, from one timer to the next, until then or a condition.

        Sweeps and ticks run every 15 s. The condition is one that they bring about.
        """
        world = self.world
        is_over = until is not None and until()
        while world.now < at and not is_over:
            ticks_at = (self.ticked_at or world.now) + BETWEEN_TICKS
            following = min(ticks_at, *(device.due_at() for device in self.devices))
            world.now = min(at, max(following, world.now + timedelta(seconds=1)))
            for device in self.devices:
                if device.due_at() <= world.now:
                    device.act(device.scripted.runs.sha256 == self.bad_checksum)
            if world.now >= ticks_at:
                self.ticked_at = world.now
                sweep(now=world.now)
                tick(now=world.now)
                is_over = until is not None and until()

    @contextmanager
    def what_if(self) -> Iterator[None]:
        """Let something happen that is undone at the end, devices and rows alike."""
        now, ticked_at = self.world.now, self.ticked_at
        kept = [(each, replace(each), replace(each.scripted)) for each in self.devices]
        savepoint = transaction.savepoint()
        try:
            yield
        finally:
            transaction.savepoint_rollback(savepoint)
            self.world.now, self.ticked_at = now, ticked_at
            for device, timers, scripted in kept:
                device.__dict__.update(timers.__dict__ | {"scripted": device.scripted})
                device.scripted.__dict__.update(scripted.__dict__)
