"""The timelines of the specification, by plan, `decide` and a clock of the test's own.

A device takes a fixed time from its order to its proof, so every stage settles that
long after it opened.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from deployments.strategies.decide import decide
from deployments.strategies.registry import STRATEGIES, make_plan
from deployments.strategies.types import (
    Complete,
    Fleet,
    Gate,
    PassStage,
    RollBack,
    StageProgress,
    StartStage,
    Wait,
)

START = datetime(2026, 3, 2, tzinfo=UTC)
STEP = timedelta(minutes=1)


@dataclass
class Rollout:
    """One deployment in numbers.

    Attributes:
        rates: how many percent of each stage succeed; 100 where nothing is said.
        takes: from the opening of a stage until all of it has settled.
    """

    strategy: str
    fleet: Fleet
    takes: timedelta
    parameters: dict[str, object] = field(default_factory=dict)
    rates: dict[int, float] = field(default_factory=dict)
    warnings: list[int] = field(default_factory=list)

    def run(self) -> list[tuple[str, str]]:
        """Return what happened: the time since the start, and the event."""
        entry = STRATEGIES[self.strategy]
        parameters = entry.defaults | self.parameters
        plan = make_plan(self.strategy, self.fleet, parameters)
        gate = Gate(entry.health_threshold_percent, 95, 1, 90, False)
        sizes = [
            stage.boundary - earlier.boundary
            for earlier, stage in zip(
                [replace(plan.stages[0], boundary=0), *plan.stages],
                plan.stages,
                strict=False,
            )
        ]
        stages = [
            StageProgress(number, size, 0, 0, 0, 0, True, None, None, None)
            for number, size in enumerate(sizes, 1)
        ]
        happened: list[tuple[str, str]] = []
        now = START

        def note(event: str) -> None:
            hours, minutes = divmod(int((now - START).total_seconds()) // 60, 60)
            happened.append((f"{hours:02}:{minutes:02}", event))

        while now - START < timedelta(days=7):
            for index, stage in enumerate(stages):
                is_due = stage.opened_at and now >= stage.opened_at + self.takes
                if is_due and stage.settled_at is None:
                    rate = self.rates.get(stage.number, 100)
                    good = round(stage.size * rate / 100)
                    stages[index] = replace(
                        stage,
                        succeeded=good,
                        failed=stage.size - good,
                        settled=stage.size,
                        settled_at=now,
                    )
            match decide(plan, gate, tuple(stages), now):
                case StartStage(number):
                    old = stages[number - 1]
                    stages[number - 1] = replace(
                        old, exposed=old.size, can_grow=False, opened_at=now
                    )
                    note(f"start {plan.stages[number - 1].name}")
                case PassStage(number, warning):
                    stages[number - 1] = replace(stages[number - 1], passed_at=now)
                    self.warnings += [number] if warning else []
                    note(f"pass {plan.stages[number - 1].name}")
                case RollBack(number, _):
                    note(f"roll back in stage {number}")
                    return happened
                case Complete():
                    note("complete")
                    return happened
                case Wait():
                    now += STEP
        raise AssertionError(f"no end: {happened}")


def test_canary_goes_on_with_a_warning_at_98_8_percent() -> None:
    rollout = Rollout(
        "Canary",
        Fleet(1000),
        takes=timedelta(0),
        # 98.8 % of 500 in all; the third stage has 200 devices.
        rates={1: 100, 2: 99.5, 3: 98.5},
    )

    assert rollout.run() == [
        ("00:00", "start 10 %"),
        ("01:00", "pass 10 %"),
        ("01:00", "start 30 %"),
        ("02:00", "pass 30 %"),
        ("02:00", "start 50 %"),
        ("03:00", "pass 50 %"),
        ("03:00", "start 100 %"),
        ("03:00", "pass 100 %"),
        ("03:00", "complete"),
    ]
    assert rollout.warnings == [3]


def test_regions_pause_in_between_and_need_99_percent() -> None:
    fleet = Fleet(3000, (("US-EAST", 1000), ("US-WEST", 800), ("EU", 1200)))
    rollout = Rollout(
        "Regional",
        fleet,
        takes=timedelta(hours=2),
        rates={1: 99.5, 2: 99.25},
    )

    assert rollout.run() == [
        ("00:00", "start US-EAST"),
        ("02:30", "pass US-EAST"),
        ("02:30", "start US-WEST"),
        ("05:00", "pass US-WEST"),
        ("05:00", "start EU"),
        ("07:00", "pass EU"),
        ("07:00", "complete"),
    ]
    assert rollout.warnings == []


def test_a_bad_region_is_the_last_one() -> None:
    fleet = Fleet(200, (("US-EAST", 100), ("US-WEST", 100)))
    rollout = Rollout("Regional", fleet, timedelta(hours=2), rates={1: 90})

    assert rollout.run() == [
        ("00:00", "start US-EAST"),
        ("02:00", "roll back in stage 1"),
    ]


def test_blue_green_verifies_both_halves() -> None:
    rollout = Rollout("BlueGreen", Fleet(1000), takes=timedelta(0))

    assert rollout.run() == [
        ("00:00", "start green"),
        ("02:00", "pass green"),
        ("02:00", "start blue"),
        ("04:00", "pass blue"),
        ("04:00", "complete"),
    ]


def test_rolling_one_batch_at_a_time_is_the_timeline_of_the_specification() -> None:
    rollout = Rollout(
        "Rolling",
        Fleet(300),
        takes=timedelta(0),
        parameters={"max_concurrent_batches": 1},
    )

    assert [each for each in rollout.run() if "start" in each[1]] == [
        ("00:00", "start batch 1"),
        ("00:15", "start batch 2"),
        ("00:30", "start batch 3"),
    ]


def test_rolling_keeps_three_batches_in_flight() -> None:
    rollout = Rollout("Rolling", Fleet(500), takes=timedelta(minutes=5))

    assert rollout.run() == [
        ("00:00", "start batch 1"),
        ("00:00", "start batch 2"),
        ("00:00", "start batch 3"),
        ("00:20", "pass batch 1"),
        ("00:20", "pass batch 2"),
        ("00:20", "pass batch 3"),
        ("00:20", "start batch 4"),
        ("00:20", "start batch 5"),
        ("00:40", "pass batch 4"),
        ("00:40", "pass batch 5"),
        ("00:40", "complete"),
    ]


def test_a_bad_batch_stops_those_beside_it() -> None:
    rollout = Rollout("Rolling", Fleet(500), timedelta(minutes=5), rates={2: 50})

    assert rollout.run()[-1] == ("00:05", "roll back in stage 2")
