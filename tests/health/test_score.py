"""Score and anomalies: pure."""

import pytest

from health.baseline import RunningStatistics
from health.score import VerdictCounts, is_anomalous
from health.triggers import BY_NAME


@pytest.mark.parametrize(
    ("counts", "percent"),
    [
        (VerdictCounts(), None),
        (VerdictCounts(healthy=3), 100),
        (VerdictCounts(healthy=1, degraded=1), 75),
        (VerdictCounts(healthy=1, degraded=1, unhealthy=1, unknown=1), 37.5),
        (VerdictCounts(unknown=2), 0),
    ],
)
def test_the_score_is_a_mean_over_devices(
    counts: VerdictCounts, percent: float | None
) -> None:
    assert counts.score_percent == percent


@pytest.mark.parametrize(
    ("value", "usual", "found"),
    [
        (30.0, RunningStatistics(10, 10.0, 0.0), True),
        (29.9, RunningStatistics(10, 10.0, 0.0), False),
        (50.0, RunningStatistics(10, 10.0, 100.0), True),
        (49.9, RunningStatistics(10, 10.0, 100.0), False),
        (30.0, RunningStatistics(10, 50.0, 0.0), True),
        (99.0, RunningStatistics(0, 10.0, 0.0), False),
    ],
)
def test_an_anomaly_is_four_spreads_and_the_floor_away(
    value: float, usual: RunningStatistics, found: bool
) -> None:
    assert is_anomalous(BY_NAME["cpu"], value, usual) == found


def test_fewer_errors_than_usual_are_no_anomaly() -> None:
    usual = RunningStatistics(10, 0.5, 0.0)

    assert not is_anomalous(BY_NAME["error_rate"], 0.1, usual)
    assert is_anomalous(BY_NAME["error_rate"], 0.9, usual)
