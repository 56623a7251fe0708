"""How long plans take, by the timelines of the specification."""

from datetime import timedelta

import pytest

from deployments.strategies.forecast import forecast
from deployments.strategies.registry import STRATEGIES, make_plan
from deployments.strategies.types import Fleet

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
REGIONS = (("US-EAST", 1000), ("US-WEST", 800), ("EU", 1200))


@pytest.mark.parametrize(
    ("strategy", "fleet", "device_time", "expected"),
    [
        ("Direct", Fleet(1), 5 * MINUTE, 5 * MINUTE),
        ("Canary", Fleet(1000), 0 * MINUTE, 3 * HOUR),
        ("Regional", Fleet(3000, REGIONS), 2 * HOUR, 7 * HOUR),
        ("BlueGreen", Fleet(1000), 0 * MINUTE, 4 * HOUR),
        ("Rolling", Fleet(500), 5 * MINUTE, 40 * MINUTE),
    ],
)
def test_the_timelines_of_the_specification(
    strategy: str, fleet: Fleet, device_time: timedelta, expected: timedelta
) -> None:
    plan = make_plan(strategy, fleet, STRATEGIES[strategy].defaults)

    assert forecast(plan, device_time=device_time) == expected


def test_a_pace_makes_a_stage_last_as_long_as_its_orders() -> None:
    plan = make_plan("Direct", Fleet(600), {})

    took = forecast(plan, device_time=MINUTE, devices_per_minute=100)

    assert took == 7 * MINUTE


def test_batches_side_by_side_share_the_pace() -> None:
    parameters = STRATEGIES["Rolling"].defaults | {"batch_wait_duration": 0.0}
    plan = make_plan("Rolling", Fleet(300), parameters)

    took = forecast(plan, device_time=MINUTE, devices_per_minute=100)

    assert took == 4 * MINUTE


def test_the_spread_counts_in_each_stage() -> None:
    plan = make_plan("Canary", Fleet(1000), STRATEGIES["Canary"].defaults)

    assert forecast(plan, device_time=0 * MINUTE, spread=HOUR) == 7 * HOUR
