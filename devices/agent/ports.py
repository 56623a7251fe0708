"""Who a device is, and what its agent works with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from devices.agent.application import Application
from devices.agent.clock import Clock
from devices.agent.download import Staging
from devices.agent.installer import ImageRecord, Installer
from devices.agent.limits import Limits
from devices.agent.secure_boot import SecureBoot
from devices.agent.spans import SpanExporter
from devices.agent.store import StateStore
from devices.agent.transport import Transport
from devices.agent.verify import TrustedKeys


@dataclass(frozen=True, slots=True)
class Device:
    """Who this device is, and in which boot.

    An order to go back to its other slot has to name `device_id`.

    `self_test_seconds` is how long a new image has to stay alive.
    """

    device_id: str
    model: str
    boot_id: str
    self_test_seconds: float
    limits: Limits = field(default_factory=Limits)
    secure_boot: SecureBoot = "unknown"


@dataclass(frozen=True, slots=True)
class Ports:
    """What an agent works with: the server, the medium, the application, the clock.

    Attributes:
        health_check: the owner's last word on an image on trial: gives what is wrong
            with it, "" if nothing is.
        spans: sends what is done of an order to a collector, if one is configured.
        when_idle: called before each poll, while there is no order.
        on_tick: called about every second, also during downloads and waits.
        uptime_seconds: of the device; None to count from the start of the agent.
    """

    transport: Transport
    installer: Installer
    staging: Staging
    store: StateStore
    application: Application
    keys: TrustedKeys
    clock: Clock
    uptime_seconds: Callable[[], float] | None = None
    random: Random = field(default_factory=Random)
    health_check: Callable[[ImageRecord], str] = field(default=lambda _: "")
    spans: SpanExporter | None = None
    when_idle: Callable[[], None] = field(default=lambda: None)
    on_tick: Callable[[], None] = field(default=lambda: None)
