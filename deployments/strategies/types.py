"""What planners make and what `decide` reads. Standard library only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta


class ParameterError(ValueError):
    """A field of a strategy that does not make sense; `field` is its name there."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class EmptyFleetError(ParameterError):
    """One half of a blue-green deployment would have no device."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The devices to be planned for, in numbers.

    `by_region` has the regions in the order in which they are to be updated; its
    counts add up to `device_count`. `green_count` are those that were named as the
    green half; None where it is drawn.
    """

    device_count: int
    by_region: tuple[tuple[str, int], ...] = ()
    green_count: int | None = None

    @classmethod
    def of_regions(cls, counts: Mapping[str, int], order: Sequence[str]) -> "Fleet":
        """Return a fleet by its counts; what the order lacks comes last, by name."""
        names = [*order, *sorted(set(counts) - set(order))]
        found = tuple((name, counts[name]) for name in names if name in counts)
        return cls(sum(counts.values()), found)

    def check(self) -> None:
        """Refuse to plan for nobody.

        Raises:
            ValueError: no device.
        """
        if self.device_count < 1:
            raise ValueError("a plan needs at least one device")


def share_of(device_count: int, percent: int) -> int:
    """Return so many percent of the devices, rounded up."""
    return -(-device_count * percent // 100)


@dataclass(frozen=True, slots=True)
class Stage:
    """A slice of the fleet: the ranks up to `boundary` that no earlier stage has.

    `wait` runs from the moment the stage has settled until its gate may open.
    """

    number: int
    name: str
    boundary: int
    wait: timedelta


@dataclass(frozen=True, slots=True)
class HoldPoint:
    """A point at which a fleet may be held: its name, the fleet, and what follows."""

    phase: str
    fleet: str
    follows: str


@dataclass(frozen=True, slots=True)
class HoldRule:
    """How long a hold lasts; `until_acknowledged` it has no end by time."""

    duration: timedelta
    until_acknowledged: bool


@dataclass(frozen=True, slots=True)
class HoldFacts:
    """A hold that has begun; without `until` only a person ends it."""

    until: datetime | None
    is_over: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages in order; `in_flight` of them may be unfinished at once.

    With `needs_approval` a person approves each stage but the first, which whoever
    launched has approved by launching. With a `hold` there is one before each stage
    that `opening_points` names by its number, and before the gate of one that
    `passing_points` names.
    """

    stages: tuple[Stage, ...]
    in_flight: int = 1
    needs_approval: bool = False
    hold: HoldRule | None = None
    opening_points: Mapping[int, HoldPoint] = field(default_factory=dict)
    passing_points: Mapping[int, HoldPoint] = field(default_factory=dict)


def nothing_after_the_last(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Take the wait off the last stage: no stage comes that it could hold back."""
    return (*stages[:-1], replace(stages[-1], wait=timedelta(0)))


@dataclass(frozen=True, slots=True)
class Gate:
    """When a stage may be followed by the next, in percent 0-100."""

    health_threshold_percent: float
    rollback_threshold_percent: float
    minimum_sample: int
    minimum_exposure_percent: float
    pauses_on_warning: bool


@dataclass(frozen=True, slots=True)
class StageProgress:
    """The facts of one stage.

    Attributes:
        size: devices that can still be evidence (those that had the image already
            are left out).
        exposed: were given the order.
        succeeded: proved.
        failed: failed, on the way back, or back; without those that the image has not
            reached.
        settled: exposed devices whose outcome is final.
        silent: proved devices that are not heard any more; looked at when the gate
            could open.
        unheard: proved devices that were not heard since the server itself came back,
            and have time left to be.
        unreached: exposed devices whose last attempt failed because the image did not
            reach them, whether they have attempts left or not.
        fetch_errors: the codes of those with how many devices reported each, the most
            frequent first.
        known_unreached: how many were unreached when a person last resumed.
        can_grow: an unexposed device may still appear before the offline deadline.
        opened_at, settled_at, passed_at: None as long as it has not happened.
        is_accepted: an operator resumed in spite of the warning of this stage.
        is_approved: a person let this stage open.
        withdrawn: devices that an operator took out; they are not in `size`.
    """

    number: int
    size: int
    exposed: int
    succeeded: int
    failed: int
    settled: int
    can_grow: bool
    opened_at: datetime | None
    settled_at: datetime | None
    passed_at: datetime | None
    is_accepted: bool = False
    is_approved: bool = False
    silent: int = 0
    unheard: int = 0
    unreached: int = 0
    fetch_errors: tuple[tuple[str, int], ...] = ()
    known_unreached: int = 0
    withdrawn: int = 0


@dataclass(frozen=True, slots=True)
class StartStage:
    number: int


@dataclass(frozen=True, slots=True)
class PassStage:
    """The gate of a stage opens, with a warning if it opened below its threshold."""

    number: int
    warning: str | None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do; why, and until when if that is known."""

    reason: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class AwaitApproval:
    """The stage could open, and a person has to say so."""

    number: int


@dataclass(frozen=True, slots=True)
class RollBack:
    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class BeginHold:
    """Nothing is done at this point before `until`, or before it is acknowledged."""

    point: HoldPoint
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Complete:
    pass


Decision = (
    StartStage
    | AwaitApproval
    | PassStage
    | BeginHold
    | Wait
    | Pause
    | RollBack
    | Complete
)
