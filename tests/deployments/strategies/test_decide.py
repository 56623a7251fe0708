"""One decision for every strategy: tables of literals, then invariants."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.strategies.canary import CanaryParameters, plan_canary
from deployments.strategies.decide import decide
from deployments.strategies.direct import plan_direct
from deployments.strategies.types import (
    Complete,
    Fleet,
    Gate,
    PassStage,
    Pause,
    Plan,
    RollBack,
    Stage,
    StageProgress,
    StartStage,
    Wait,
)

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
PLAN = Plan((Stage(1, "10 %", 100, HOUR), Stage(2, "100 %", 1000, timedelta(0))))
GATE = Gate(
    health_threshold_percent=99,
    rollback_threshold_percent=95,
    minimum_sample=1,
    minimum_exposure_percent=90,
    pauses_on_warning=False,
)


def stage(number: int = 1, **facts: Any) -> StageProgress:
    """One open, fully exposed stage of 100 devices, unless told otherwise."""
    fields: dict[str, Any] = {
        "size": 100,
        "exposed": 100,
        "succeeded": 0,
        "failed": 0,
        "settled": 0,
        "can_grow": False,
        "opened_at": NOW - 2 * HOUR,
        "settled_at": None,
        "passed_at": None,
    } | facts
    return StageProgress(number, **fields)


def coming(number: int, size: int = 900) -> StageProgress:
    """A stage that is not open yet."""
    return stage(number, size=size, exposed=0, can_grow=True, opened_at=None)


def settled(**facts: Any) -> StageProgress:
    """A stage whose devices all have an outcome, since more than an hour."""
    return stage(settled=100, settled_at=NOW - HOUR, **facts)


def test_the_first_stage_starts_at_once() -> None:
    assert decide(PLAN, GATE, (coming(1, 100), coming(2)), NOW) == StartStage(1)


def test_devices_at_work_are_waited_for() -> None:
    at_work = stage(succeeded=60, settled=60)

    answer = decide(PLAN, GATE, (at_work, coming(2)), NOW)

    assert answer == Wait("40 of 100 devices are still at work")


def test_the_wait_runs_from_when_the_stage_settled() -> None:
    facts = stage(succeeded=100, settled=100, settled_at=NOW - timedelta(minutes=59))

    answer = decide(PLAN, GATE, (facts, coming(2)), NOW)

    assert isinstance(answer, Wait)
    assert answer.until == NOW + timedelta(minutes=1)


def test_a_gate_opens_without_a_warning_at_its_threshold() -> None:
    answer = decide(PLAN, GATE, (settled(succeeded=99, failed=1), coming(2)), NOW)

    assert answer == PassStage(1, None)


def test_a_gate_between_the_thresholds_opens_with_a_warning() -> None:
    answer = decide(PLAN, GATE, (settled(succeeded=98, failed=2), coming(2)), NOW)

    assert isinstance(answer, PassStage)
    assert answer.warning is not None
    assert "98.0 %" in answer.warning


def test_a_warning_pauses_a_deployment_that_asks_for_it_until_it_is_accepted() -> None:
    gate = Gate(99, 95, 1, 90, pauses_on_warning=True)
    facts = settled(succeeded=98, failed=2)
    accepted = settled(succeeded=98, failed=2, is_accepted=True)

    assert isinstance(decide(PLAN, gate, (facts, coming(2)), NOW), Pause)
    assert isinstance(decide(PLAN, gate, (accepted, coming(2)), NOW), PassStage)


@pytest.mark.parametrize(
    ("exposed", "failed", "goes_back"),
    [(100, 5, False), (100, 6, True), (1, 1, True), (6, 1, True), (20, 1, False)],
)
def test_it_goes_back_when_the_best_rate_still_reachable_is_too_low(
    exposed: int, failed: int, goes_back: bool
) -> None:
    facts = stage(exposed=exposed, failed=failed, can_grow=True)

    answer = decide(PLAN, GATE, (facts, coming(2)), NOW)

    assert isinstance(answer, RollBack) == goes_back


def test_the_minimum_sample_is_waited_for_before_going_back() -> None:
    gate = Gate(99, 95, 3, 90, pauses_on_warning=False)

    few = decide(PLAN, gate, (stage(exposed=3, failed=2), coming(2)), NOW)
    enough = decide(PLAN, gate, (stage(exposed=3, failed=3), coming(2)), NOW)

    assert not isinstance(few, RollBack)
    assert isinstance(enough, RollBack)


def test_a_stage_below_the_minimum_sample_that_failed_asks_a_person() -> None:
    gate = Gate(99, 95, 10, 90, pauses_on_warning=False)
    failed = stage(
        size=5, exposed=5, failed=5, settled=5, settled_at=NOW - HOUR
    )  # fmt: skip

    answer = decide(PLAN, gate, (failed, coming(2)), NOW)

    assert isinstance(answer, Pause)
    assert "0.0 %" in answer.reason


def test_proved_devices_that_fell_silent_count_for_nothing_at_the_gate() -> None:
    few = settled(succeeded=100, silent=2)
    many = settled(succeeded=100, silent=6)
    accepted = settled(succeeded=100, silent=6, is_accepted=True)

    warned = decide(PLAN, GATE, (few, coming(2)), NOW)
    paused = decide(PLAN, GATE, (many, coming(2)), NOW)

    assert isinstance(warned, PassStage)
    assert warned.warning is not None
    assert "2 devices that had succeeded cannot be heard now" in warned.warning
    assert isinstance(paused, Pause)
    assert isinstance(decide(PLAN, GATE, (accepted, coming(2)), NOW), PassStage)


def test_a_gate_waits_for_devices_not_heard_since_the_server_came_back() -> None:
    answer = decide(PLAN, GATE, (settled(succeeded=100, unheard=1), coming(2)), NOW)

    assert answer == Wait("1 proved device to be heard again since the server was away")


def test_a_paused_deployment_only_goes_back() -> None:
    ready = settled(succeeded=100)
    bad = settled(succeeded=90, failed=10)

    waits = decide(PLAN, GATE, (ready, coming(2)), NOW, is_paused=True)
    goes_back = decide(PLAN, GATE, (bad, coming(2)), NOW, is_paused=True)

    assert waits == Wait("the deployment is paused")
    assert isinstance(goes_back, RollBack)


def test_breaches_in_a_stage_that_has_passed_still_count() -> None:
    passed = settled(succeeded=90, failed=10, passed_at=NOW - HOUR)

    answer = decide(PLAN, GATE, (passed, stage(2, size=900, exposed=900)), NOW)

    assert isinstance(answer, RollBack)
    assert answer.number == 1


def test_too_little_exposure_waits_while_devices_may_appear_and_then_pauses() -> None:
    growing = stage(exposed=89, succeeded=89, settled=89, can_grow=True)
    ended = stage(exposed=89, succeeded=89, settled=89, can_grow=False)

    assert isinstance(decide(PLAN, GATE, (growing, coming(2)), NOW), Wait)
    assert isinstance(decide(PLAN, GATE, (ended, coming(2)), NOW), Pause)


def test_no_data_never_opens_a_gate_even_when_accepted() -> None:
    gate = Gate(0, 0, 1, 0, pauses_on_warning=False)
    nothing = stage(exposed=0, can_grow=False, is_accepted=True, settled_at=NOW - HOUR)

    assert isinstance(decide(PLAN, gate, (nothing, coming(2)), NOW), Wait)


def test_a_stage_of_devices_that_needed_nothing_passes() -> None:
    empty = stage(size=0, exposed=0)

    assert decide(PLAN, GATE, (empty, coming(2)), NOW) == PassStage(1, None)


def test_all_stages_passed_completes() -> None:
    passed = settled(succeeded=100, passed_at=NOW)
    last = stage(2, succeeded=900, settled=900, size=900, exposed=900, passed_at=NOW)

    assert decide(PLAN, GATE, (passed, last), NOW) == Complete()


def test_the_canary_of_the_specification_goes_on_with_a_warning_at_98_8() -> None:
    """1000 devices: 100, 300, 500, 1000; hour 3 shows 98.8 % and goes on."""
    plan = plan_canary(Fleet(1000), CanaryParameters(10, (30, 50, 100), HOUR))
    third = stage(
        3, size=200, exposed=200, succeeded=197, failed=3, settled=200,
        settled_at=NOW - HOUR,
    )  # fmt: skip
    passed = [
        stage(1, succeeded=100, settled=100, passed_at=NOW),
        stage(2, size=200, exposed=200, succeeded=199, failed=1, passed_at=NOW),
    ]

    answer = decide(plan, GATE, (*passed, third, coming(4, 500)), NOW)

    assert isinstance(answer, PassStage)
    assert answer.warning is not None


def test_several_stages_may_be_in_flight() -> None:
    plan = Plan(PLAN.stages, in_flight=2)

    assert decide(plan, GATE, (stage(), coming(2)), NOW) == StartStage(2)


FACTS = st.builds(
    lambda size, exposed, succeeded, failed, extra, grow, opened, at, passed, ok: (
        StageProgress(
            number=1,
            size=size,
            exposed=min(exposed, size),
            succeeded=min(succeeded, exposed, size),
            failed=min(failed, max(0, min(exposed, size) - succeeded)),
            settled=min(min(exposed, size), succeeded + failed + extra),
            can_grow=grow,
            opened_at=NOW - opened if opened else None,
            settled_at=NOW - at if at is not None and opened else None,
            passed_at=NOW if passed and opened else None,
            is_accepted=ok,
        )
    ),
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 5),
    st.booleans(),
    st.none() | st.timedeltas(timedelta(seconds=1), timedelta(days=2)),
    st.none() | st.timedeltas(timedelta(0), timedelta(days=1)),
    st.booleans(),
    st.booleans(),
)
GATES = st.builds(
    Gate,
    st.floats(0, 100),
    st.floats(0, 100),
    st.integers(1, 10),
    st.floats(0, 100),
    st.booleans(),
)


@settings(max_examples=400)
@given(facts=FACTS, gate=GATES)
def test_a_gate_never_opens_without_complete_evidence(
    facts: StageProgress, gate: Gate
) -> None:
    plan = plan_direct(Fleet(50))

    answer = decide(plan, gate, (facts,), NOW)

    if isinstance(answer, PassStage) and facts.size:
        assert facts.exposed == facts.settled > 0
        assert facts.settled_at is not None
        enough = facts.exposed >= facts.size * gate.minimum_exposure_percent / 100
        assert enough or (facts.is_accepted and not facts.can_grow)


@settings(max_examples=400)
@given(facts=FACTS, gate=GATES)
def test_going_back_wins_over_everything_else(facts: StageProgress, gate: Gate) -> None:
    answer = decide(plan_direct(Fleet(50)), gate, (facts,), NOW)

    judged = facts.succeeded + facts.failed
    if facts.opened_at and facts.exposed and judged >= gate.minimum_sample:
        best = 100 * (facts.exposed - facts.failed) / facts.exposed
        assert isinstance(answer, RollBack) == (best < gate.rollback_threshold_percent)


@given(
    count=st.integers(1, 400),
    outcomes=st.lists(st.booleans(), min_size=400, max_size=400),
)
def test_a_simulated_rollout_always_ends_and_never_exceeds_its_share(
    count: int, outcomes: list[bool]
) -> None:
    plan = plan_canary(Fleet(count), CanaryParameters(10, (30, 100), HOUR))
    now = NOW
    opened: dict[int, datetime] = {}
    settled_at: dict[int, datetime] = {}
    passed: set[int] = set()

    def facts(number: int) -> StageProgress:
        start = plan.stages[number - 2].boundary if number > 1 else 0
        mine = outcomes[start : plan.stages[number - 1].boundary]
        is_open = number in opened
        return StageProgress(
            number=number,
            size=len(mine),
            exposed=len(mine) if is_open else 0,
            succeeded=sum(mine) if is_open else 0,
            failed=len(mine) - sum(mine) if is_open else 0,
            settled=len(mine) if is_open else 0,
            can_grow=not is_open,
            opened_at=opened.get(number),
            settled_at=settled_at.get(number),
            passed_at=now if number in passed else None,
        )

    for _ in range(50):
        progress = tuple(facts(stage.number) for stage in plan.stages)
        match decide(plan, GATE, progress, now):
            case StartStage(number):
                assert number == len(opened) + 1
                assert passed == set(opened)
                opened[number] = settled_at[number] = now
            case PassStage(number, _):
                passed.add(number)
            case Wait(_, until):
                assert until is not None
                assert until > now
                now = until
            case Complete():
                assert passed == {stage.number for stage in plan.stages}
                return
            case RollBack(number, _):
                assert facts(number).failed > 0
                return
            case answer:
                pytest.fail(f"unexpected: {answer}")
    pytest.fail("it did not end")


@pytest.mark.parametrize(
    ("size", "exposed", "unreached", "pauses"),
    [
        (1, 1, 1, True),
        (2, 2, 1, False),
        (2, 2, 2, True),
        (100, 100, 4, False),
        (100, 100, 5, True),
        (100, 3, 2, True),
        (101, 101, 5, False),
        (101, 101, 6, True),
        (100, 100, 0, False),
    ],
)
def test_an_image_that_does_not_reach_many_devices_pauses_at_once(
    size: int, exposed: int, unreached: int, pauses: bool
) -> None:
    facts = stage(
        size=size,
        exposed=exposed,
        unreached=unreached,
        fetch_errors=(("path_not_found", unreached),),
    )

    answer = decide(PLAN, GATE, (facts, coming(2)), NOW)

    assert isinstance(answer, Pause) == pauses
    if isinstance(answer, Pause):
        assert "path_not_found" in answer.reason


def test_what_a_person_knows_to_be_unreached_pauses_only_when_nothing_else_comes() -> (
    None
):
    known = {"unreached": 10, "known_unreached": 10}
    trying = stage(settled=95, succeeded=90, **known)
    tried = stage(settled=100, succeeded=90, **known)
    accepted = settled(succeeded=90, is_accepted=True, **known)
    more = settled(succeeded=89, is_accepted=True, unreached=11, known_unreached=10)

    assert isinstance(decide(PLAN, GATE, (trying, coming(2)), NOW), Wait)
    assert isinstance(decide(PLAN, GATE, (tried, coming(2)), NOW), Pause)
    assert isinstance(decide(PLAN, GATE, (accepted, coming(2)), NOW), PassStage)
    assert isinstance(decide(PLAN, GATE, (more, coming(2)), NOW), Pause)


def test_an_unreached_device_is_no_success_for_a_gate() -> None:
    facts = settled(succeeded=98, unreached=2)

    answer = decide(PLAN, GATE, (facts, coming(2)), NOW)

    assert isinstance(answer, PassStage)
    assert answer.warning is not None
    assert "did not reach 2 devices" in answer.warning
