"""Cutting a fleet by region, into halves and into batches; what all plans share."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.strategies.blue_green import plan_blue_green
from deployments.strategies.canary import CanaryParameters, plan_canary
from deployments.strategies.direct import plan_direct
from deployments.strategies.regional import plan_regional
from deployments.strategies.rolling import (
    MAX_BATCHES,
    RollingParameters,
    plan_rolling,
)
from deployments.strategies.types import Fleet, ParameterError, Plan

HOUR = timedelta(hours=1)
QUARTER = timedelta(minutes=15)
NONE = timedelta(0)


def shape(plan: Plan) -> list[tuple[str, int, timedelta]]:
    return [(stage.name, stage.boundary, stage.wait) for stage in plan.stages]


def test_regions_follow_in_the_order_given() -> None:
    fleet = Fleet(3000, (("US-EAST", 1000), ("US-WEST", 800), ("EU", 1200)))

    plan = plan_regional(fleet, pause=HOUR)

    assert shape(plan) == [
        ("US-EAST", 1000, HOUR),
        ("US-WEST", 1800, HOUR),
        ("EU", 3000, NONE),
    ]
    assert plan.in_flight == 1


def test_a_region_without_devices_vanishes() -> None:
    fleet = Fleet(3, (("US-EAST", 0), ("US-WEST", 3), ("EU", 0)))

    assert shape(plan_regional(fleet, pause=HOUR)) == [("US-WEST", 3, NONE)]


@pytest.mark.parametrize(
    ("count", "stages"),
    [
        (1000, [("green", 500, HOUR), ("blue", 1000, HOUR)]),
        (7, [("green", 4, HOUR), ("blue", 7, HOUR)]),
        (1, [("green", 1, HOUR)]),
    ],
)
def test_green_is_the_larger_half_and_both_are_verified(
    count: int, stages: list[tuple[str, int, timedelta]]
) -> None:
    assert shape(plan_blue_green(Fleet(count), verification=HOUR)) == stages


def test_batches_have_one_size_and_the_last_the_rest() -> None:
    plan = plan_rolling(Fleet(250), RollingParameters(100, QUARTER, 3))

    assert shape(plan) == [
        ("batch 1", 100, QUARTER),
        ("batch 2", 200, QUARTER),
        ("batch 3", 250, QUARTER),
    ]
    assert plan.in_flight == 3


def test_too_many_batches_are_refused_with_the_least_size() -> None:
    with pytest.raises(ParameterError, match="at least 100 are needed") as refusal:
        plan_rolling(Fleet(100_000), RollingParameters(1, QUARTER, 3))

    assert refusal.value.field == "batchSize"


FLEETS = st.lists(
    st.tuples(st.uuids().map(str), st.integers(0, 5000)), min_size=1, max_size=6
).map(lambda regions: Fleet(sum(count for _, count in regions), tuple(regions)))


@given(
    fleet=FLEETS.filter(lambda fleet: fleet.device_count > 0),
    steps=st.lists(st.integers(1, 100), min_size=1, max_size=6, unique=True),
    batch_size=st.integers(30, 6000),
)
def test_each_device_is_in_exactly_one_stage(
    fleet: Fleet, steps: list[int], batch_size: int
) -> None:
    first, *rest = sorted(steps)
    plans = [
        plan_direct(fleet),
        plan_regional(fleet, pause=HOUR),
        plan_canary(fleet, CanaryParameters(first, tuple(rest), HOUR)),
        plan_blue_green(fleet, verification=HOUR),
        plan_rolling(fleet, RollingParameters(batch_size, QUARTER, 2)),
    ]

    for plan in plans:
        boundaries = [stage.boundary for stage in plan.stages]
        assert boundaries == sorted(set(boundaries))
        assert boundaries[0] > 0
        assert boundaries[-1] == fleet.device_count
        assert [stage.number for stage in plan.stages] == [
            *range(1, len(plan.stages) + 1)
        ]
        assert len(plan.stages) <= MAX_BATCHES


@pytest.mark.parametrize(
    "plan",
    [
        plan_direct,
        lambda fleet: plan_regional(fleet, pause=HOUR),
        lambda fleet: plan_blue_green(fleet, verification=HOUR),
        lambda fleet: plan_rolling(fleet, RollingParameters(1, QUARTER, 1)),
    ],
)
def test_nobody_is_no_fleet(plan) -> None:
    with pytest.raises(ValueError, match="at least one device"):
        plan(Fleet(0))
