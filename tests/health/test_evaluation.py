"""Judging heartbeats: pure."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from health.evaluation import Limits, Sample, Timers, exceeded, judge
from health.triggers import BY_NAME

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
LIMITS = Limits()


def sample(
    seconds: float = 0, cpu: float = 5, memory: float = 20, errors: float | None = 0
) -> Sample:
    values = {"cpu": cpu, "memory": memory, "error_rate": errors}
    return Sample(START + timedelta(seconds=seconds), dict.fromkeys(BY_NAME) | values)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (sample(), set()),
        (sample(cpu=95), set()),
        (sample(cpu=95.1), {"cpu"}),
        (sample(memory=90), set()),
        (sample(memory=90.1), {"memory"}),
        (sample(errors=0.10), set()),
        (sample(errors=0.11), {"error_rate"}),
        (sample(errors=None), set()),
        (sample(cpu=100, memory=100, errors=1), {"cpu", "memory", "error_rate"}),
    ],
)
def test_a_limit_is_exceeded_above_it_and_not_at_it(
    measured: Sample, expected: set[str]
) -> None:
    assert exceeded(measured, LIMITS) == expected


# Heartbeats, then the breach that the last one is.
STORIES = {
    "healthy": ([sample()], None),
    "hot for less than its window": ([sample(0, cpu=99), sample(299, cpu=99)], None),
    "hot for its window": ([sample(0, cpu=99), sample(300, cpu=99)], "cpu"),
    "one hot heartbeat after a silence": ([sample(0), sample(900, cpu=99)], None),
    "hot before and after a silence": ([sample(0, cpu=99), sample(900, cpu=99)], "cpu"),
    "hot with a break": (
        [sample(0, cpu=99), sample(200, cpu=50), sample(400, cpu=99)],
        None,
    ),
    "full for its window": ([sample(0, memory=95), sample(301, memory=95)], "memory"),
    "hot, then full": ([sample(0, cpu=99), sample(301, memory=95)], None),
    "errors at once": ([sample(errors=0.5)], "error_rate"),
    "errors no more": ([sample(0, errors=0.5), sample(30, errors=0)], None),
    "errors not said any more": ([sample(0, errors=0.5), sample(9, errors=None)], None),
    "all at once": (
        [
            sample(0, cpu=99, memory=95, errors=0.5),
            sample(300, cpu=99, memory=95, errors=0.5),
        ],
        "error_rate",
    ),
    "hot and full": (
        [sample(0, cpu=99, memory=95), sample(300, cpu=99, memory=95)],
        "memory",
    ),
}


@pytest.mark.parametrize("name", STORIES)
def test_a_breach_is_a_limit_exceeded_for_its_whole_window(name: str) -> None:
    samples, breach = STORIES[name]

    timers: Timers = {}
    for measured in samples:
        judgement = judge(measured, LIMITS, timers)
        timers = judgement.timers

    assert judgement.breach == breach
    assert bool(judgement.detail) == (not judgement.is_healthy)


def test_a_device_over_a_limit_is_not_healthy_before_its_window_ends() -> None:
    judgement = judge(sample(cpu=99), LIMITS, {})

    assert not judgement.is_healthy
    assert judgement.breach is None
    assert judgement.timers == {"cpu": START}


def test_an_exempt_trigger_is_not_judged() -> None:
    at_once = Limits.of(cpu_duration=timedelta(0), memory_duration=timedelta(0))
    limits = replace(at_once, exempt=frozenset({"cpu"}))

    hot = judge(sample(cpu=99), limits, {})
    full = judge(sample(cpu=99, memory=99), limits, {})

    assert hot.is_healthy
    assert hot.breach is None
    assert full.breach == "memory"


def test_the_detail_names_the_measure_the_limit_and_the_length() -> None:
    judgement = judge(sample(360, cpu=99), LIMITS, {"cpu": START})

    assert judgement.detail == "CPU 99.0 % is over 95 % for 360 s"
    assert judge(sample(errors=0.256), LIMITS, {}).detail == (
        "error rate 25.6 % is over 10 %"
    )
