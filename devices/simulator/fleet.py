"""Run many devices in one process, each through the agent's own code.

Rules:
- One thread a device. Transport, verification, phases and steps are the agent's;
  only disk, process and reboot are replaced by memory.
- A reboot drops the program and goes on with a new boot id.
- A device that comes and goes loses its power between updates only.
- Slots and state live as long as the fleet: starting it again begins with the factory
  image.
"""

import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devices.agent.application import Application
from devices.agent.backoff import Backoff
from devices.agent.clock import StopRequested, SystemClock
from devices.agent.limits import Limits
from devices.agent.loop import Agent
from devices.agent.ports import Device, Ports
from devices.agent.provisioning import provision
from devices.agent.states import AgentState, Phase
from devices.agent.transport import HttpTransport
from devices.agent.verify import TrustedKeys
from devices.simulator.images import (
    ImagePool,
    MemoryInstaller,
    MemoryStaging,
    MemoryStateStore,
)
from devices.simulator.programs import InProcessApplication

logger = logging.getLogger(__name__)

BOOT_SECONDS = 0.1
STOP_SECONDS = 5.0
DEFAULT_MEMORY_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FactoryImage:
    """The image a device is delivered with."""

    path: Path
    version: str


@dataclass(frozen=True, slots=True)
class Presence:
    """For how long a device is on, and off, in turn: at most, and half at least."""

    on_seconds: float
    off_seconds: float


@dataclass(frozen=True, slots=True)
class SimulatedDeviceConfig:
    """One device of the fleet; without a `presence` it is always on."""

    device_id: str
    model: str
    api_key: str = field(repr=False)
    factory_image: FactoryImage
    presence: Presence | None = None


@dataclass(frozen=True, slots=True)
class FleetConfig:
    """What all devices of the fleet have in common.

    `memory_bytes` is the memory of one device; `start_spread_seconds` is the time over
    which the devices are switched on.
    """

    server: str
    self_test_seconds: float = 1.0
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    start_spread_seconds: float = 1.0
    allow_insecure_http: bool = False
    limits: Limits = field(default_factory=Limits)


MakeApplication = Callable[[SimulatedDeviceConfig], Application]
"""Gives the program that a device runs its images with."""


@dataclass(frozen=True, slots=True)
class DeviceSnapshot:
    """What one device is doing now."""

    device_id: str
    version: str
    sha256: str
    boot_id: str
    boots: int
    phase: Phase


@dataclass(frozen=True, slots=True)
class FleetClock(SystemClock):
    """The clock of many threads, with an event that ends every wait."""

    stopping: threading.Event = field(default_factory=threading.Event)

    def wait(self, seconds: float) -> None:
        """See `Clock`."""
        if self.stopping.wait(max(0.0, seconds)):
            raise StopRequested


class PowerLost(BaseException):
    """The device is off for a while; like `StopRequested` no `Exception`."""


@dataclass(slots=True)
class DeviceClock(SystemClock):
    """The clock of one device, with an end of its time on.

    Attributes:
        is_idle: tells whether no update is under way.
        off_at: when it loses its power, or as soon as it is idle then; None for never.
    """

    fleet: FleetClock
    is_idle: Callable[[], bool]
    off_at: float | None = None

    def wait(self, seconds: float) -> None:
        """See `Clock`.

        Raises:
            PowerLost: the device is off now.
        """
        self.fleet.wait(seconds)
        if (
            self.off_at is not None
            and self.monotonic() >= self.off_at
            and self.is_idle()
        ):
            raise PowerLost


class SimulatedDevice:
    """One device and its thread."""

    def __init__(
        self,
        config: SimulatedDeviceConfig,
        fleet: FleetConfig,
        keys: TrustedKeys,
        pool: ImagePool,
        clock: FleetClock,
        make_application: MakeApplication | None,
    ) -> None:
        self._config = config
        self._make_application = make_application
        self._fleet = fleet
        self._keys = keys
        self._clock = clock
        self._installer = MemoryInstaller(pool)
        self._staging = MemoryStaging()
        self._store = MemoryStateStore()
        self._transport = HttpTransport(
            server=fleet.server,
            device_id=config.device_id,
            credentials=config.api_key,
            connect_timeout_seconds=fleet.limits.connect_timeout_seconds,
            read_timeout_seconds=fleet.limits.read_timeout_seconds,
            allow_insecure_http=fleet.allow_insecure_http,
            trusted_keys=tuple(keys.by_id),
        )
        self._power = DeviceClock(clock, is_idle=lambda: self._phase() is Phase.IDLE)
        self._boot_id = ""
        self._boots = 0
        self._thread = threading.Thread(
            target=self._run, name=config.device_id, daemon=True
        )
        provision(
            self._installer, config.factory_image.path, config.factory_image.version
        )

    def start(self) -> None:
        """Switch the device on."""
        self._thread.start()

    def join(self, seconds: float) -> bool:
        """Wait for the end of the device; say whether it came."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def snapshot(self) -> DeviceSnapshot:
        """Give what the device is doing now."""
        record = self._installer.current()
        return DeviceSnapshot(
            device_id=self._config.device_id,
            version=record.version if record else "",
            sha256=record.sha256 if record else "",
            boot_id=self._boot_id,
            boots=self._boots,
            phase=self._phase(),
        )

    def _phase(self) -> Phase:
        return (self._store.load() or AgentState()).phase

    def _run(self) -> None:
        backoff = Backoff(BOOT_SECONDS, 30.0)
        try:
            self._clock.wait(random.uniform(0, self._fleet.start_spread_seconds))
            while True:
                self._begin_time_on()
                try:
                    self._boot()
                    backoff.reset()
                except PowerLost:
                    self._clock.wait(self._time_off())
                except Exception:
                    # A device that crashes boots again; the others are not its
                    # business.
                    logger.exception("device crashed")
                    self._clock.wait(backoff.next_seconds())
                self._clock.wait(BOOT_SECONDS)
        except StopRequested:
            logger.info("stopped")

    def _begin_time_on(self) -> None:
        """Say until when the device is on, unless that is said."""
        presence = self._config.presence
        now = self._power.monotonic()
        if presence and (self._power.off_at is None or now > self._power.off_at):
            share = random.uniform(0.5, 1)
            self._power.off_at = now + presence.on_seconds * share

    def _time_off(self) -> float:
        presence = self._config.presence
        return presence.off_seconds * random.uniform(0.5, 1) if presence else 0.0

    def _boot(self) -> None:
        self._boot_id = str(uuid.uuid4())
        self._boots += 1
        agent = Agent(
            device=Device(
                device_id=self._config.device_id,
                model=self._config.model,
                boot_id=self._boot_id,
                self_test_seconds=self._fleet.self_test_seconds,
                limits=self._fleet.limits,
            ),
            ports=Ports(
                transport=self._transport,
                installer=self._installer,
                staging=self._staging,
                store=self._store,
                application=self._application(),
                keys=self._keys,
                clock=self._power,
            ),
        )
        agent.run()

    def _application(self) -> Application:
        if self._make_application is None:
            return InProcessApplication(self._fleet.memory_bytes)
        return self._make_application(self._config)


class Fleet:
    """Many devices that are started and stopped together.

    Args:
        make_application: by default a device runs the code of its image.
    """

    def __init__(
        self,
        devices: Sequence[SimulatedDeviceConfig],
        config: FleetConfig,
        keys: TrustedKeys,
        *,
        make_application: MakeApplication | None = None,
    ) -> None:
        self._clock = FleetClock()
        self._pool = ImagePool()
        self._devices = [
            SimulatedDevice(
                each, config, keys, self._pool, self._clock, make_application
            )
            for each in devices
        ]

    def start(self) -> None:
        """Switch all devices on, spread over the configured time."""
        for device in self._devices:
            device.start()

    def stop(self) -> bool:
        """Switch all devices off; say whether all ended within 5 s."""
        self._clock.stopping.set()
        ends_at = time.monotonic() + STOP_SECONDS
        have_ended = [
            device.join(max(0.0, ends_at - time.monotonic()))
            for device in self._devices
        ]
        self._pool.close()
        return all(have_ended)

    def snapshots(self) -> list[DeviceSnapshot]:
        """Give what every device is doing now, in the order given."""
        return [device.snapshot() for device in self._devices]
