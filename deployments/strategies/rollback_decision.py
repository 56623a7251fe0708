"""The way back: what goes back, in which order, and when the next step may begin.

Rules:
- A course is a list of steps, each a set of stages that go back together; an empty set
  is the whole deployment. In blue-green a step begins when every device of the one
  before has settled.
- Of a blue-green deployment never both halves go back at once, and the half that
  serves is left alone: blue first, then the switch back, then green.
- Green is sent back only when blue has proved its former firmware, by the share of
  devices that the rollback threshold asks for. Else green serves on.

Pure: standard library, numbers and a clock that is passed in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from deployments.strategies.blue_green import BLUE_STAGE, GREEN_STAGE
from deployments.strategies.holds import RETURN_GREEN, SWITCH_BACK, hold_before
from deployments.strategies.types import BeginHold, HoldFacts, HoldRule, Wait
from hotswap.common.pluralize import counted

Course = tuple[tuple[int, ...], ...]
EVERYTHING: Course = ((),)


@dataclass(frozen=True, slots=True)
class BeginStep:
    """The devices of this step of the course are ordered back now."""

    index: int


@dataclass(frozen=True, slots=True)
class SwitchBack:
    """Blue serves again."""


@dataclass(frozen=True, slots=True)
class EndReturn:
    """Nothing is left to do, or, with a reason, nothing more may be done."""

    reason: str = ""


ReturnDecision = BeginStep | SwitchBack | BeginHold | Wait | EndReturn


@dataclass(frozen=True, slots=True)
class StepFacts:
    """A step that has begun, in devices.

    `lost` are those that settled without the proof of their former firmware.
    """

    exposed: int
    unfinished: int
    lost: int


@dataclass(frozen=True, slots=True)
class ReturnFacts:
    """What the next step is decided by.

    Attributes:
        steps: those of the course that have begun.
        unfinished: devices of the whole deployment that have still to finish.
        one_at_a_time: a step waits for the one before, as in blue-green.
        is_green_live: of a blue-green deployment.
        was_switched: green has served at some time.
    """

    steps: tuple[StepFacts, ...]
    unfinished: int
    one_at_a_time: bool = False
    is_green_live: bool = False
    was_switched: bool = False


def course_of_blue_green(
    breached: int | None, *, is_green_live: bool, is_blue_begun: bool, keeps_green: bool
) -> Course:
    """Say what of a blue-green deployment goes back, in which order.

    Args:
        breached: the stage that failed; None when a person decided.
        keeps_green: a failure of blue alone leaves green on the new firmware.

    Source: Deployment Patterns 4.
    """
    if not is_green_live:
        return EVERYTHING
    if not is_blue_begun:
        return ((GREEN_STAGE,),)
    if breached == BLUE_STAGE and keeps_green:
        return ((BLUE_STAGE,),)
    return ((BLUE_STAGE,), (GREEN_STAGE,))


def decide_return(
    course: Course,
    facts: ReturnFacts,
    required_percent: float,
    now: datetime,
    *,
    rule: HoldRule | None = None,
    holds: Mapping[str, HoldFacts] | None = None,
) -> ReturnDecision:
    """Say the one next step on the way back.

    Args:
        required_percent: of the devices of a step must be back before the next one.

    Source: FR-FW-006; Deployment Patterns 4.
    """
    begun = facts.steps
    has_more = len(begun) < len(course)
    left = begun[-1].unfinished if begun else 0
    if left and (facts.one_at_a_time or not has_more):
        return Wait(f"{counted(left, 'device')} to prove the former image")
    if not has_more:
        if facts.unfinished:
            return Wait(f"{counted(facts.unfinished, 'device')} to finish")
        return EndReturn()
    if GREEN_STAGE in course[len(begun)] and facts.is_green_live:
        if begun and not _is_restored(begun[-1], required_percent):
            return EndReturn(
                f"{begun[-1].lost} of {counted(begun[-1].exposed, 'device')} of the "
                "blue fleet have not proved their former firmware, so the green fleet "
                "serves on"
            )
        return hold_before(SWITCH_BACK, rule, holds or {}, now) or SwitchBack()
    if GREEN_STAGE in course[len(begun)] and facts.was_switched:
        held = hold_before(RETURN_GREEN, rule, holds or {}, now)
        return held or BeginStep(len(begun))
    return BeginStep(len(begun))


def _is_restored(step: StepFacts, required_percent: float) -> bool:
    if not step.exposed:
        return True
    return 100 * (step.exposed - step.lost) / step.exposed >= required_percent
