"""What is usual for a device: pure."""

import statistics

import pytest

from health.baseline import FIRST_SAMPLES, Usual

VALUES = [3.0, 9.5, 4.25, 7.0, 5.5, 6.0, 2.0, 8.0, 4.0, 5.0]


def learned(values: list[float]) -> Usual:
    usual = Usual()
    for value in values:
        usual = usual.learn(value)
    return usual


@pytest.mark.parametrize("count", range(1, FIRST_SAMPLES + 1))
def test_the_first_reports_count_alike(count: int) -> None:
    usual = learned(VALUES[:count])

    assert usual.mean == pytest.approx(statistics.fmean(VALUES[:count]))
    assert usual.spread == pytest.approx(statistics.pstdev(VALUES[:count]))
    assert usual.is_established == (count == FIRST_SAMPLES)


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
    assert Usual(10, mean=10.0, variance=4.0).distance(value) == spreads


def test_a_steady_measure_has_no_spread_to_measure_with() -> None:
    usual = Usual()
    for _ in range(50):
        usual = usual.learn(0.1)

    assert usual.distance(0.2) is None
