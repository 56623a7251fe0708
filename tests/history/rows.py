"""The rows of a history, and the words in them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

CLOCK_SLACK = timedelta(seconds=30)
"""How far two moments of one history may disagree.

A tick and a request each write the time at which they began, and may be stopped
between that and their statements. Where the order of two deeds matters, the numbers of
the events say it exactly; moments are compared with this much room.
"""

PROOFS = ("device.updated", "device.returned")
FAILURES = (
    "device.failed",
    "device.retry",
    "device.fell_back",
    "device.return_failed",
)
OPENINGS = ("device.notified", "device.ordered_back")
FINAL_DEPLOYMENTS = ("Completed", "RolledBack", "Failed", "Cancelled")
FINAL_TARGETS = ("success", "failed", "rolled_back", "skipped", "cancelled")
# Such devices never were evidence, as long as they had no order.
NEUTRAL_CODES = (
    "already_installed",
    "disabled",
    "moved_on",
    "quarantined",
    "secure_boot_required",
    "security_version",
    "wrong_model",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a watched device may not exceed: percents, a ratio, and for how long."""

    cpu: float = 95
    cpu_duration: timedelta = timedelta(minutes=5)
    memory: float = 90
    memory_duration: timedelta = timedelta(minutes=5)
    errors: float = 0.10
    error_duration: timedelta = timedelta(0)
    offline_after: timedelta = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Deployment:
    """The deployment, as stored.

    Attributes:
        shares: the cumulative percentages that its launch asked for, where its
            strategy has any.
        in_flight: how many stages may be open at once.
        watch_duration: for how long its devices are watched after its end.
        awake_since: since when silence has been looked for without a break.
    """

    id: str
    status: str
    target_count: int
    health_threshold: float
    minimum_exposure: float = 90.0
    shares: tuple[float, ...] = ()
    in_flight: int = 1
    limits: Limits = Limits()
    watch_duration: timedelta = timedelta(hours=1)
    finished_at: datetime | None = None
    awake_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a deployment, as stored."""

    number: int
    boundary: int
    size: int
    wait_seconds: float
    opened_at: datetime | None = None
    passed_at: datetime | None = None
    is_accepted: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """One device within the deployment, as stored."""

    device: str
    rank: int
    stage: int
    status: str
    from_checksum: str = ""
    error_code: str = ""
    is_exposed: bool = True


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the log; numbers grow, and along one device or stage are exact."""

    number: int
    at: datetime
    event: str
    device: str = ""
    stage: int | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """One order to one device, as stored."""

    id: str
    deployment: str
    device: str
    kind: str
    checksum: str
    version: str
    status: str
    reboot_required: bool
    boot_id_before: str
    offered_at: datetime
    last_sequence: int = 0
    claimed_at: datetime | None = None
    closed_at: datetime | None = None
    error_code: str = ""
    exempt: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What a device said of an order, as stored."""

    number: int
    order: str
    received_at: datetime
    sequence: int
    status: str
    was_applied: bool
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """A heartbeat of a device, as stored."""

    device: str
    at: datetime
    version: str
    cpu: float | None = None
    memory: float | None = None
    errors: float | None = None
    is_first_of_boot: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """All rows of one deployment; orders and reports of its devices from any."""

    deployment: Deployment
    stages: tuple[Stage, ...] = ()
    targets: tuple[Target, ...] = ()
    events: tuple[Event, ...] = ()
    orders: tuple[Order, ...] = ()
    reports: tuple[Report, ...] = ()
    readings: tuple[Reading, ...] = ()

    def own_orders(self) -> list[Order]:
        """Give the orders of this deployment, in the order of their offers."""
        return sorted(
            (each for each in self.orders if each.deployment == self.deployment.id),
            key=lambda each: each.offered_at,
        )


@dataclass(frozen=True, slots=True)
class Witness:
    """What a device itself knows.

    Attributes:
        ran: digests of the images it ran, in order, the first from before any order.
        acknowledged: order, sequence and status of each report that got a 200.
        orders: ids of the orders it was given.
    """

    ran: tuple[str, ...] = ()
    acknowledged: tuple[tuple[str, int, str], ...] = ()
    orders: tuple[str, ...] = ()


@dataclass(slots=True)
class Faults:
    """What was found so far."""

    found: list[str] = field(default_factory=list)

    def note(self, is_fault: bool, text: str) -> None:
        if is_fault:
            self.found.append(text)


def in_log_order(events: Iterable[Event]) -> list[Event]:
    """Sort events by their numbers."""
    return sorted(events, key=lambda each: each.number)
