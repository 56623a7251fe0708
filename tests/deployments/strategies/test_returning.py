"""The way back as a table: which step follows, and when."""

from datetime import UTC, datetime, timedelta

import pytest

from deployments.strategies.holds import RETURN_GREEN, SWITCH_BACK
from deployments.strategies.rollback_decision import (
    EVERYTHING,
    BeginStep,
    Course,
    EndReturn,
    ReturnFacts,
    StepFacts,
    SwitchBack,
    course_of_blue_green,
    decide_return,
)
from deployments.strategies.types import BeginHold, HoldFacts, HoldRule, Wait

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
BOTH: Course = ((2,), (1,))
BACK = StepFacts(exposed=10, unfinished=0, lost=0)
RULE = HoldRule(timedelta(seconds=30), until_acknowledged=False)
OVER = HoldFacts(NOW, is_over=True)


def facts(*steps: StepFacts, left: int = 0, live: bool = True) -> ReturnFacts:
    return ReturnFacts(
        steps, left, one_at_a_time=True, is_green_live=live, was_switched=True
    )


@pytest.mark.parametrize(
    ("breached", "live", "begun", "keeps", "course"),
    [
        # Before the switch blue was never touched.
        (1, False, False, True, EVERYTHING),
        (None, False, False, True, EVERYTHING),
        # Blue failed: it goes back, and green stays or follows.
        (2, True, True, True, ((2,),)),
        (2, True, True, False, BOTH),
        # Green failed while it served, or a person decided: blue is needed first.
        (1, True, True, True, BOTH),
        (None, True, True, True, BOTH),
        # Blue was not begun: it can serve at once.
        (1, True, False, True, ((1,),)),
        (None, True, False, False, ((1,),)),
    ],
)
def test_the_course_of_a_blue_green_deployment(
    breached: int | None, live: bool, begun: bool, keeps: bool, course: Course
) -> None:
    found = course_of_blue_green(
        breached, is_green_live=live, is_blue_begun=begun, keeps_green=keeps
    )

    assert found == course


def test_the_whole_deployment_goes_back_in_one_step() -> None:
    begun = StepFacts(exposed=0, unfinished=3, lost=0)
    waits = decide_return(EVERYTHING, facts(begun, left=3), 95, NOW)

    assert decide_return(EVERYTHING, facts(live=False), 95, NOW) == BeginStep(0)
    assert waits == Wait("3 devices to prove the former image")
    assert decide_return(EVERYTHING, facts(BACK), 95, NOW) == EndReturn()


def test_blue_goes_first_and_alone() -> None:
    under_way = StepFacts(exposed=10, unfinished=1, lost=0)

    assert decide_return(BOTH, facts(), 95, NOW) == BeginStep(0)
    answer = decide_return(BOTH, facts(under_way, left=9), 95, NOW)
    assert answer == Wait("1 device to prove the former image")


def test_green_goes_back_when_blue_serves_again() -> None:
    assert decide_return(BOTH, facts(BACK), 95, NOW) == SwitchBack()
    assert decide_return(BOTH, facts(BACK, live=False), 95, NOW) == BeginStep(1)
    both = facts(BACK, BACK, live=False)
    assert decide_return(BOTH, both, 95, NOW) == EndReturn()


def test_green_serves_on_if_blue_is_not_proved_back() -> None:
    lost = StepFacts(exposed=10, unfinished=0, lost=1)

    answer = decide_return(BOTH, facts(lost), 95, NOW)

    assert isinstance(answer, EndReturn)
    assert "1 of 10 devices of the blue fleet" in answer.reason
    assert decide_return(BOTH, facts(lost), 90, NOW) == SwitchBack()


def test_the_end_waits_for_devices_outside_of_the_course() -> None:
    answer = decide_return(((2,),), facts(BACK, left=2), 95, NOW)

    assert answer == Wait("2 devices to finish")


def test_regions_do_not_wait_for_each_other() -> None:
    under_way = StepFacts(exposed=0, unfinished=3, lost=0)

    answer = decide_return(((2,), (1,)), ReturnFacts((under_way,), 3), 95, NOW)

    assert answer == BeginStep(1)


def test_the_fleets_are_held_before_the_switch_back_and_the_return_of_green() -> None:
    begins = decide_return(BOTH, facts(BACK), 95, NOW, rule=RULE)
    held = HoldFacts(NOW + timedelta(seconds=30), is_over=False)
    holds = {SWITCH_BACK.phase: held}
    waits = decide_return(BOTH, facts(BACK), 95, NOW, rule=RULE, holds=holds)
    holds = {SWITCH_BACK.phase: OVER}
    switches = decide_return(BOTH, facts(BACK), 95, NOW, rule=RULE, holds=holds)
    switched = facts(BACK, live=False)
    drains = decide_return(BOTH, switched, 95, NOW, rule=RULE, holds=holds)
    holds[RETURN_GREEN.phase] = OVER
    returns = decide_return(BOTH, switched, 95, NOW, rule=RULE, holds=holds)

    assert begins == BeginHold(SWITCH_BACK, NOW + timedelta(seconds=30))
    assert isinstance(waits, Wait)
    assert waits.until == held.until
    assert switches == SwitchBack()
    assert drains == BeginHold(RETURN_GREEN, NOW + timedelta(seconds=30))
    assert returns == BeginStep(1)
