"""Holds as a table: begun, over, or waited for."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deployments.strategies.decide import decide
from deployments.strategies.holds import (
    SWITCH,
    UPDATE_BLUE,
    UPDATE_GREEN,
    hold_before,
    hold_rule,
)
from deployments.strategies.types import (
    BeginHold,
    Gate,
    HoldFacts,
    PassStage,
    Plan,
    RollBack,
    Stage,
    StageProgress,
    StartStage,
    Wait,
)

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(seconds=60)
GATE = Gate(99.5, 95, 1, 90, pauses_on_warning=False)
PLAN = Plan(
    (Stage(1, "green", 2, timedelta(0)), Stage(2, "blue", 4, timedelta(0))),
    hold=hold_rule(60.0, until_acknowledged=False),
    opening_points={1: UPDATE_GREEN, 2: UPDATE_BLUE},
    passing_points={1: SWITCH},
)
OVER = HoldFacts(NOW, is_over=True)


def stage(number: int, **changes: Any) -> StageProgress:
    fields: dict[str, Any] = {
        "number": number,
        "size": 2,
        "exposed": 0,
        "succeeded": 0,
        "failed": 0,
        "settled": 0,
        "can_grow": True,
        "opened_at": None,
        "settled_at": None,
        "passed_at": None,
    }
    return StageProgress(**fields | changes)


PROVED = {
    "exposed": 2,
    "succeeded": 2,
    "settled": 2,
    "can_grow": False,
    "opened_at": NOW,
    "settled_at": NOW,
}


def test_without_a_rule_there_is_no_hold() -> None:
    assert hold_rule(0.0, until_acknowledged=False) is None
    assert hold_before(SWITCH, None, {}, NOW) is None


@pytest.mark.parametrize(
    ("seconds", "acknowledged", "until"),
    [(60.0, False, LATER), (60.0, True, None), (0.0, True, None)],
)
def test_a_hold_ends_by_its_time_or_by_a_person_alone(
    seconds: float, acknowledged: bool, until: datetime | None
) -> None:
    rule = hold_rule(seconds, until_acknowledged=acknowledged)

    assert hold_before(SWITCH, rule, {}, NOW) == BeginHold(SWITCH, until)


def test_green_is_held_before_its_stage_opens() -> None:
    idle = (stage(1), stage(2))
    held = {UPDATE_GREEN.phase: HoldFacts(LATER, is_over=False)}

    begins = decide(PLAN, GATE, idle, NOW)
    waits = decide(PLAN, GATE, idle, NOW, holds=held)
    opens = decide(PLAN, GATE, idle, NOW, holds={UPDATE_GREEN.phase: OVER})

    assert begins == BeginHold(UPDATE_GREEN, LATER)
    assert waits == Wait("the green fleet to drain before it is updated", LATER)
    assert opens == StartStage(1)


def test_blue_is_held_before_the_switch_and_again_before_its_update() -> None:
    verified = (stage(1, **PROVED), stage(2))
    switched = (stage(1, **PROVED, passed_at=NOW), stage(2))
    holds = {UPDATE_GREEN.phase: OVER}

    assert decide(PLAN, GATE, verified, NOW, holds=holds) == BeginHold(SWITCH, LATER)
    holds[SWITCH.phase] = OVER
    assert decide(PLAN, GATE, verified, NOW, holds=holds) == PassStage(1, None)
    assert decide(PLAN, GATE, switched, NOW, holds=holds) == BeginHold(
        UPDATE_BLUE, LATER
    )
    holds[UPDATE_BLUE.phase] = OVER
    assert decide(PLAN, GATE, switched, NOW, holds=holds) == StartStage(2)


def test_a_hold_holds_no_rollback_back() -> None:
    failed = {**PROVED, "succeeded": 0, "failed": 2}

    answer = decide(PLAN, GATE, (stage(1, **failed), stage(2)), NOW)

    assert isinstance(answer, RollBack)
