"""Random rollouts of random fleets: what must hold at every step of every history.

Devices appear or never do, take their time, prove themselves or fail, breach a limit
after their proof, fall silent and come back; operators pause and resume. The rollout
asks `decide` and does as it is told.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.strategies.decide import decide
from deployments.strategies.registry import STRATEGIES, make_plan
from deployments.strategies.types import (
    AwaitApproval,
    Complete,
    Decision,
    Fleet,
    Gate,
    PassStage,
    Pause,
    Plan,
    RollBack,
    StageProgress,
    StartStage,
    Wait,
)

START = datetime(2026, 3, 2, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DEADLINE = timedelta(minutes=30)
MOST_STEPS = 3000


@dataclass(frozen=True)
class Fate:
    """What will become of one device, in minutes.

    Attributes:
        appears: after the opening of its stage; None is never.
        takes: from its order to its outcome.
        is_good: whether that is a proof.
        breaches: after its proof; None is never.
        silent: after its proof, from and to; None is never.
    """

    appears: int | None
    takes: int
    is_good: bool
    breaches: int | None
    silent: tuple[int, int] | None


FATES = st.builds(
    Fate,
    appears=st.integers(0, 20) | st.integers(0, 20) | st.none(),
    takes=st.integers(1, 30),
    is_good=st.sampled_from([True] * 9 + [False]),
    breaches=st.sampled_from([None] * 9 + [3, 40]),
    silent=st.sampled_from([None] * 9 + [(0, 10_000), (2, 15)]),
)


@dataclass
class Rollout:
    """One deployment in numbers, and the facts that it is entitled to."""

    plan: Plan
    gate: Gate
    fates: list[Fate]
    now: datetime = START
    opened: dict[int, datetime] = field(default_factory=dict)
    settled: dict[int, datetime] = field(default_factory=dict)
    passed: dict[int, datetime] = field(default_factory=dict)
    accepted: set[int] = field(default_factory=set)
    approved: set[int] = field(default_factory=set)

    def members(self, number: int) -> list[Fate]:
        first = self.plan.stages[number - 2].boundary if number > 1 else 0
        return self.fates[first : self.plan.stages[number - 1].boundary]

    def facts(self, number: int) -> StageProgress:
        its = self.members(number)
        opened = self.opened.get(number)
        exposed = succeeded = failed = silent = growing = 0
        for fate in its:
            if opened is None:
                growing += 1
                continue
            seen = None if fate.appears is None else opened + fate.appears * MINUTE
            if seen is None or seen > self.now:
                growing += self.now < opened + DEADLINE
                continue
            exposed += 1
            done = seen + fate.takes * MINUTE
            if done > self.now:
                continue
            went_bad = fate.breaches is not None and (
                done + fate.breaches * MINUTE <= self.now
            )
            if not fate.is_good or went_bad:
                failed += 1
                continue
            succeeded += 1
            if fate.silent is not None:
                from_, to = (done + minutes * MINUTE for minutes in fate.silent)
                silent += from_ <= self.now < to
        return StageProgress(
            number=number,
            size=len(its),
            exposed=exposed,
            succeeded=succeeded,
            failed=failed,
            settled=succeeded + failed,
            can_grow=growing > 0,
            opened_at=opened,
            settled_at=self.settled.get(number),
            passed_at=self.passed.get(number),
            is_accepted=number in self.accepted,
            is_approved=number in self.approved,
            silent=silent,
        )

    def look(self) -> tuple[StageProgress, ...]:
        """Return the facts, noting the stages that have settled."""
        for stage in self.plan.stages:
            facts = self.facts(stage.number)
            needed = facts.size * self.gate.minimum_exposure_percent / 100
            enough = facts.exposed >= needed or (
                facts.is_accepted and not facts.can_grow
            )
            is_complete = 0 < facts.exposed == facts.settled and enough
            if facts.opened_at and facts.settled_at is None and is_complete:
                self.settled[stage.number] = self.now
        return tuple(self.facts(stage.number) for stage in self.plan.stages)

    def run(self, *, pauses: set[int]) -> Decision:
        """Go on until it is over; check every step."""
        for step in range(MOST_STEPS):
            progress = self.look()
            paused = step in pauses
            answer = decide(self.plan, self.gate, progress, self.now, is_paused=paused)
            self.check(answer, progress, is_paused=paused)
            match answer:
                case StartStage(number):
                    self.opened[number] = self.now
                case PassStage(number, _):
                    self.passed[number] = self.now
                case AwaitApproval(number):
                    self.approved.add(number)
                case Pause(number, _):
                    if number in self.accepted:
                        return answer
                    self.accepted.add(number)
                case RollBack() | Complete():
                    return answer
                case Wait("no device of this stage was ever seen"):
                    # Only a person can end this.
                    return answer
                case Wait():
                    self.now += MINUTE
        pytest.fail(f"no end after {MOST_STEPS} steps")

    def check(
        self,
        answer: Decision,
        progress: tuple[StageProgress, ...],
        *,
        is_paused: bool,
    ) -> None:
        open_now = [p for p in progress if p.opened_at is not None]
        breached = [
            p.number
            for p in open_now
            if p.exposed
            and p.succeeded + p.failed >= self.gate.minimum_sample
            and 100 * (p.exposed - p.failed) / p.exposed
            < self.gate.rollback_threshold_percent
        ]
        # Going back wins over everything, a pause over everything else.
        assert isinstance(answer, RollBack) == bool(breached)
        if is_paused:
            assert isinstance(answer, RollBack | Wait)
        # Nobody is exposed beyond the highest stage that was opened.
        share = max(
            (self.plan.stages[p.number - 1].boundary for p in open_now), default=0
        )
        assert sum(p.exposed for p in progress) <= share
        match answer:
            case StartStage(number):
                assert number == len(open_now) + 1
                unfinished = [p for p in open_now if p.passed_at is None]
                assert len(unfinished) < self.plan.in_flight
                if self.plan.needs_approval and number > 1:
                    assert number in self.approved
            case PassStage(number, warning):
                self.check_gate(progress[number - 1], warning)
            case Complete():
                assert all(p.passed_at is not None for p in progress)

    def check_gate(self, stage: StageProgress, warning: str | None) -> None:
        """The evidence of a gate that opens is complete and fresh."""
        assert stage.exposed == stage.settled > 0
        assert stage.settled_at is not None
        assert self.now >= stage.settled_at + self.plan.stages[stage.number - 1].wait
        needed = stage.size * self.gate.minimum_exposure_percent / 100
        assert stage.exposed >= needed or stage.is_accepted
        heard = 100 * (stage.succeeded - stage.silent) / stage.exposed
        if heard < self.gate.health_threshold_percent:
            assert warning is not None
        if heard < self.gate.rollback_threshold_percent:
            assert stage.is_accepted


def _parameters(draw: Any, strategy: str) -> dict[str, Any]:
    seconds = st.sampled_from([0.0, 60.0, 900.0, 3600.0])
    match strategy:
        case "Canary":
            first, *rest = sorted(
                draw(st.sets(st.integers(1, 100), min_size=1, max_size=4))
            )
            return {
                "initial_percentage": first,
                "increments": rest,
                "wait_duration": draw(seconds),
            }
        case "Regional":
            return {"pause_duration": draw(seconds)}
        case "BlueGreen":
            return {"verification_duration": draw(seconds)}
        case "Rolling":
            return {
                "batch_size": draw(st.integers(1, 20)),
                "batch_wait_duration": draw(seconds),
                "max_concurrent_batches": draw(st.integers(1, 4)),
            }
        case _:
            return {}


@st.composite
def rollouts(draw: Any) -> Rollout:
    regions = draw(st.lists(st.integers(0, 12), min_size=1, max_size=4).filter(any))
    fleet = Fleet(
        sum(regions), tuple((f"r{index}", n) for index, n in enumerate(regions))
    )
    strategy = draw(st.sampled_from(sorted(STRATEGIES)))
    plan = make_plan(strategy, fleet, _parameters(draw, strategy))
    plan = Plan(
        plan.stages,
        STRATEGIES[strategy].in_flight({"max_concurrent_batches": plan.in_flight}),
        draw(st.booleans()),
    )
    health = draw(st.sampled_from([99.5, 99.0, 90.0, 50.0]))
    return Rollout(
        plan,
        Gate(
            health_threshold_percent=health,
            rollback_threshold_percent=min(
                health, draw(st.sampled_from([95.0, 80.0, 10.0]))
            ),
            minimum_sample=draw(st.integers(1, 5)),
            minimum_exposure_percent=draw(st.sampled_from([100.0, 90.0, 50.0, 0.0])),
            pauses_on_warning=draw(st.booleans()),
        ),
        draw(st.lists(FATES, min_size=fleet.device_count, max_size=fleet.device_count)),
    )


@settings(max_examples=250, deadline=None)
@given(rollout=rollouts(), pauses=st.sets(st.integers(0, 200), max_size=40))
def test_every_rollout_ends_and_keeps_every_rule_at_every_step(
    rollout: Rollout, pauses: set[int]
) -> None:
    ended = rollout.run(pauses=pauses)

    assert isinstance(ended, Complete | RollBack | Pause | Wait)
    if isinstance(ended, Complete):
        assert set(rollout.passed) == {s.number for s in rollout.plan.stages}
