"""What is usual for a device: pure."""

import math
import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from health.baseline import FIRST_SAMPLES, RunningStatistics
from health.score import is_anomalous
from health.triggers import TRIGGERS

VALUES = [3.0, 9.5, 4.25, 7.0, 5.5, 6.0, 2.0, 8.0, 4.0, 5.0]


def learned(values: list[float]) -> RunningStatistics:
    usual = RunningStatistics()
    for value in values:
        usual = usual.learn(value)
    return usual


@pytest.mark.parametrize("count", range(1, FIRST_SAMPLES + 1))
def test_the_first_reports_count_alike(count: int) -> None:
    usual = learned(VALUES[:count])

    assert usual.mean == pytest.approx(statistics.fmean(VALUES[:count]))
    assert math.sqrt(usual.variance) == pytest.approx(statistics.pstdev(VALUES[:count]))


def test_one_report_after_them_moves_it_by_a_hundredth() -> None:
    usual = learned([10.0] * 10).learn(20.0)

    assert usual.mean == pytest.approx(10.1)


def test_it_follows_a_lasting_change() -> None:
    usual = learned([10.0] * 10 + [20.0] * 1000)

    assert usual.mean == pytest.approx(20, abs=0.01)
    assert usual.spread == pytest.approx(0, abs=0.2)


def test_the_spread_of_a_steady_noise_is_kept() -> None:
    usual = learned([10.0, 12.0] * 500)

    assert usual.mean == pytest.approx(11, abs=0.1)
    assert usual.spread == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("value", "spreads"), [(10.0, 0.0), (14.0, 2.0), (7.0, -1.5)])
def test_a_distance_is_told_in_spreads(value: float, spreads: float) -> None:
    assert RunningStatistics(10, mean=10.0, variance=4.0).distance(value) == spreads


def test_a_steady_measure_has_no_spread_to_measure_with() -> None:
    usual = RunningStatistics()
    for _ in range(50):
        usual = usual.learn(0.1)

    assert usual.distance(0.2) is None


@given(
    samples=st.integers(1, 30),
    variance=st.floats(0, 1e4),
    prior=st.floats(0, 100),
)
def test_fewer_reports_never_make_for_a_narrower_spread(
    samples: int, variance: float, prior: float
) -> None:
    fewer = RunningStatistics(samples, 0.0, variance, prior)
    more = RunningStatistics(samples + 1, 0.0, variance, prior)

    assert fewer.spread >= more.spread
    assert more.spread >= math.sqrt(variance)
    if samples >= FIRST_SAMPLES:
        assert fewer.spread == math.sqrt(variance)


@given(
    values=st.lists(st.floats(0, 100), min_size=1, max_size=12),
    value=st.floats(0, 100),
    floor=st.floats(0.1, 50),
)
def test_what_is_closer_than_the_floor_is_never_an_anomaly(
    values: list[float], value: float, floor: float
) -> None:
    usual = learned(values)

    if abs(value - usual.mean) < floor:
        trigger = replace(TRIGGERS[0], anomaly_floor=floor)
        assert not is_anomalous(trigger, value, usual)


@pytest.mark.parametrize(
    ("samples", "confidence"),
    [(1, "low"), (4, "low"), (5, "medium"), (9, "medium"), (10, "high"), (99, "high")],
)
def test_it_says_how_sure_it_is(samples: int, confidence: str) -> None:
    assert RunningStatistics(samples).confidence == confidence
