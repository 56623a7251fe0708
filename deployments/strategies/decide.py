"""One decision for every strategy: what does the evidence allow now?

Rules, in this order:
- A stage whose best rate still reachable is below the rollback threshold sends the
  whole deployment back; stages that have passed are judged too, as their devices are
  still watched.
- A deployment that is paused does nothing else.
- An image that does not reach several devices of an open stage is no evidence against
  it: the path is, and it pauses for a person at once.
- A gate opens on complete and fresh evidence only: enough of the stage exposed,
  everything exposed settled, the wait over, and who has proved itself still heard. No
  data never opens a gate, and the silent count against the rate.
- What is below the rollback threshold by silence alone, or in a stage smaller than the
  minimum sample, does not go on without a person.
- Where stages need approval, a person opens each but the first.
- Where a fleet is to drain, it is held before its stage opens, and before the switch.
- Between the rollback threshold and the health threshold it warns, then goes on or
  pauses, as the deployment says.

Pure: standard library, numbers and a clock that is passed in.
"""

import math
from collections.abc import Mapping
from datetime import datetime

from deployments.rules.codes import next_step
from deployments.strategies.holds import hold_before
from deployments.strategies.types import (
    AwaitApproval,
    Complete,
    Decision,
    Gate,
    HoldFacts,
    PassStage,
    Pause,
    Plan,
    RollBack,
    Stage,
    StageProgress,
    StartStage,
    Wait,
)
from hotswap.common.pluralize import counted

# So many unreached devices of a stage, in percent of the exposed, are no accident;
# a single one is, unless it is the whole stage.
UNREACHED_PERCENT = 5
UNREACHED_LEAST = 2


def decide(
    plan: Plan,
    gate: Gate,
    progress: tuple[StageProgress, ...],
    now: datetime,
    *,
    is_paused: bool = False,
    holds: Mapping[str, HoldFacts] | None = None,
) -> Decision:
    """Say the one next step.

    Args:
        plan: the stages, numbered from 1.
        progress: the facts of each stage of the plan, in its order.
        is_paused: nothing may be done but to go back.
        holds: those that have begun, by their phase.

    Source: FR-FW-003, FR-FW-006; Deployment Patterns.
    """
    opened = [stage for stage in progress if stage.opened_at is not None]
    for stage in opened:
        reason = breach(stage, gate)
        if reason is not None:
            return RollBack(stage.number, reason)
    if is_paused:
        return Wait("the deployment is paused")
    unfinished = [stage for stage in opened if stage.passed_at is None]
    for stage in unfinished:
        reason = _pause_reason(stage)
        if reason is not None:
            return Pause(stage.number, reason)
    waiting: Decision | None = None
    in_flight = 0
    for stage in unfinished:
        answer = _gate(plan.stages[stage.number - 1], stage, gate, now)
        if isinstance(answer, PassStage) and stage.number in plan.passing_points:
            point = plan.passing_points[stage.number]
            return hold_before(point, plan.hold, holds or {}, now) or answer
        if not isinstance(answer, Wait):
            return answer
        in_flight += 1
        waiting = waiting or answer
    if len(opened) < len(plan.stages) and in_flight < plan.in_flight:
        following = progress[len(opened)]
        if plan.needs_approval and opened and not following.is_approved:
            return AwaitApproval(following.number)
        if following.number in plan.opening_points:
            point = plan.opening_points[following.number]
            held = hold_before(point, plan.hold, holds or {}, now)
            return held or StartStage(following.number)
        return StartStage(following.number)
    return waiting or Complete()


def breach(stage: StageProgress, gate: Gate) -> str | None:
    """Say why a stage has to go back; None if it has not."""
    judged = stage.succeeded + stage.failed
    if stage.exposed == 0 or judged < gate.minimum_sample:
        return None
    best = 100 * (stage.exposed - stage.failed) / stage.exposed
    if best >= gate.rollback_threshold_percent:
        return None
    return (
        f"stage {stage.number}: {stage.failed} of {counted(stage.exposed, 'device')} "
        "failed, "
        f"so at most {best:.1f} % can succeed; "
        f"{gate.rollback_threshold_percent:g} % are required"
    )


def is_obstructed(stage: StageProgress) -> bool:
    """Tell whether the image did not reach many devices of a stage, and that is news.

    It is none if a person has resumed with as many before.

    Source: FR-FW-006.
    """
    return _are_many_unreached(stage) and stage.unreached > stage.known_unreached


def _are_many_unreached(stage: StageProgress) -> bool:
    share = math.ceil(stage.exposed * UNREACHED_PERCENT / 100)
    return stage.unreached >= max(1, min(UNREACHED_LEAST, stage.size), share)


def _pause_reason(stage: StageProgress) -> str | None:
    """Say what keeps the image from a stage, if that asks for a person."""
    if is_obstructed(stage):
        return f"{_unreached(stage)} Resuming tries them again."
    # Nobody is left to try, so that it is not waited for either.
    is_in_vain = stage.known_unreached > 0 and stage.settled == stage.exposed
    if is_in_vain and _are_many_unreached(stage) and not stage.is_accepted:
        return (
            f"{_unreached(stage)} They were tried again in vain. Resuming goes on "
            "without them; retrying what failed tries them once more."
        )
    return None


def _unreached(stage: StageProgress) -> str:
    codes = ", ".join(f"{code} {count}" for code, count in stage.fetch_errors)
    advice = next_step(stage.fetch_errors[0][0]) if stage.fetch_errors else ""
    return (
        f"stage {stage.number}: the image did not reach {stage.unreached} of "
        f"{counted(stage.exposed, 'device')} ({codes}); that says nothing against it. "
        f"{advice}"
    )


def _gate(
    planned: Stage, stage: StageProgress, gate: Gate, now: datetime
) -> PassStage | Pause | Wait:
    if stage.size == 0:
        if stage.withdrawn and not stage.is_accepted:
            return Pause(
                stage.number,
                f"an operator took all of {counted(stage.withdrawn, 'device')} out of "
                "the stage: no evidence is left to go on",
            )
        return PassStage(stage.number, None)
    needed = stage.size * gate.minimum_exposure_percent / 100
    if stage.exposed < needed or stage.exposed == 0:
        missing = stage.size - stage.exposed
        if stage.can_grow:
            return Wait(
                f"{missing} of {counted(stage.size, 'device has', 'devices have')}"
                " not asked for it yet"
            )
        if not stage.is_accepted:
            return Pause(
                stage.number,
                f"only {stage.exposed} of "
                f"{counted(stage.size, 'device')} ever asked for it: "
                "too little evidence to go on",
            )
        if stage.exposed == 0:
            return Wait("no device of this stage was ever seen")
    if stage.settled < stage.exposed:
        left = stage.exposed - stage.settled
        return Wait(
            f"{left} of {counted(stage.exposed, 'device is', 'devices are')}"
            " still at work"
        )
    if stage.settled_at is None:
        return Wait("the stage has just finished", now)
    over_at = stage.settled_at + planned.wait
    if now < over_at:
        return Wait("watching the devices before the next step", over_at)
    if stage.unheard:
        devices = counted(stage.unheard, "proved device")
        return Wait(f"{devices} to be heard again since the server was away")
    # Not the rate of the proved alone: of who has fallen silent nobody knows.
    rate = 100 * (stage.succeeded - stage.silent) / stage.exposed
    if rate >= gate.health_threshold_percent:
        return PassStage(stage.number, None)
    warning = (
        f"stage {stage.number}: {rate:.1f} % succeeded, below the health threshold of "
        f"{gate.health_threshold_percent:g} %"
    )
    if stage.silent:
        devices = counted(stage.silent, "device that had", "devices that had")
        warning += f"; {devices} succeeded cannot be heard now and count for nothing"
    if stage.unreached:
        warning += (
            f"; the image did not reach {counted(stage.unreached, 'device')}, "
            "which counts for nothing"
        )
    # Too low to go on, though silence, the path or a small sample keep it from going
    # back.
    needs_person = rate < gate.rollback_threshold_percent
    if (gate.pauses_on_warning or needs_person) and not stage.is_accepted:
        return Pause(stage.number, warning)
    return PassStage(stage.number, warning)
