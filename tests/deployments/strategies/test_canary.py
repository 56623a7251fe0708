"""Cutting a fleet into rising percentages."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.strategies.canary import CanaryParameters, plan_canary
from deployments.strategies.types import Fleet

HOUR = timedelta(hours=1)
STEPS = st.lists(st.integers(1, 100), min_size=1, max_size=8, unique=True).map(sorted)


@pytest.mark.parametrize(
    ("count", "initial", "increments", "boundaries"),
    [
        (1000, 10, (30, 50, 100), [100, 300, 500, 1000]),
        (53, 10, (30, 100), [6, 16, 53]),
        (3, 10, (30, 50, 100), [1, 2, 3]),
        (1, 10, (30, 50, 100), [1]),
        (10, 50, (), [5, 10]),
        (100_000, 1, (10,), [1000, 10_000, 100_000]),
    ],
)
def test_boundaries_are_rounded_up_and_end_at_the_fleet(
    count: int, initial: int, increments: tuple[int, ...], boundaries: list[int]
) -> None:
    plan = plan_canary(Fleet(count), CanaryParameters(initial, increments, HOUR))

    assert [stage.boundary for stage in plan.stages] == boundaries


@given(count=st.integers(1, 100_000), steps=STEPS)
def test_each_device_is_in_exactly_one_stage_and_no_share_is_exceeded(
    count: int, steps: list[int]
) -> None:
    parameters = CanaryParameters(steps[0], tuple(steps[1:]), HOUR)

    plan = plan_canary(Fleet(count), parameters)

    boundaries = [stage.boundary for stage in plan.stages]
    assert boundaries == sorted(set(boundaries))
    assert boundaries[0] >= 1
    assert boundaries[-1] == count
    allowed = {-(-count * step // 100) for step in parameters.steps}
    assert set(boundaries) <= allowed
    assert [stage.number for stage in plan.stages] == list(
        range(1, len(boundaries) + 1)
    )


def test_only_the_last_stage_has_nothing_to_wait_for() -> None:
    plan = plan_canary(Fleet(100), CanaryParameters(10, (30, 100), HOUR))

    assert [stage.wait for stage in plan.stages] == [HOUR, HOUR, timedelta(0)]


@pytest.mark.parametrize(
    ("initial", "increments"),
    [(0, (100,)), (101, ()), (10, (10,)), (30, (10, 100)), (10, (30, 200))],
)
def test_percentages_that_do_not_rise_within_1_and_100_are_refused(
    initial: int, increments: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="percentage"):
        CanaryParameters(initial, increments, HOUR)


def test_a_fleet_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        plan_canary(Fleet(0), CanaryParameters(10, (), HOUR))
