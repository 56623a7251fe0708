"""The way back of a whole deployment: what goes back, and in which order.

Rules:
- A course is a list of steps, each of some stages; `decide_return` says what comes
  next. Each step is ordered once, and found again by every tick until it has settled.
- What stays on the new firmware beside a course is watched as before.
- The end says plainly what is where.
"""

from datetime import datetime

from deployments.choices import (
    UNFINISHED,
    DeploymentStatus,
    LiveFleet,
    TargetStatus,
)
from deployments.models import Deployment, Rollback, Target
from deployments.rules.codes import ROLLBACK_FORBIDDEN, UNCONFIRMED, message_of
from deployments.rules.events import EventName
from deployments.scopes import WHOLE, Scope
from deployments.services import sweeps, transitions
from deployments.services.fleets import begin_hold, end_holds
from deployments.services.log import log
from deployments.services.partial_rollback import ending_in_words, log_ordered, lost_in
from deployments.services.progress import (
    count_stages,
    gate_of,
    hold_rule_of,
    holds_of,
    progress_of,
)
from deployments.services.rollbacks import (
    exposed_targets,
    in_scope,
    keep_rollback,
    left_alone,
    lost_targets,
    why_nothing_went_back,
)
from deployments.services.transitions import (
    fail_stages,
    finish,
    note_wait,
    switch_fleet,
)
from deployments.strategies.blue_green import BLUE_STAGE, BOTH, GREEN_STAGE
from deployments.strategies.decide import breach
from deployments.strategies.regional import FAILED_REGION
from deployments.strategies.rollback_decision import (
    EVERYTHING,
    BeginStep,
    Course,
    EndReturn,
    ReturnFacts,
    StepFacts,
    SwitchBack,
    course_of_blue_green,
    decide_return,
)
from deployments.strategies.types import BeginHold, Wait
from hotswap.common.pluralize import counted


def begin_rollback(
    deployment: Deployment, *, reason: str, now: datetime, stage_number: int | None
) -> None:
    """Stop offering and send back what has to go back; the caller holds the lock.

    Args:
        stage_number: of the stage that failed; None when a person decided.

    Source: FR-FW-006; docs/architecture/tick.md#back.
    """
    course = course_of(deployment, stage_number)
    rollback = transitions.begin_rollback(
        deployment,
        reason=reason,
        now=now,
        stage_number=stage_number,
        scope=_scope_of(deployment, course),
        course=course,
    )
    # The next tick ends it, also where nothing has to go back: what began is seen.
    _return_on(deployment, rollback, now, may_end=False)


def course_of(deployment: Deployment, breached: int | None) -> Course:
    """Say what of a deployment goes back, and in which order.

    Args:
        breached: the stage that failed; None when a person decided.

    Source: Deployment Patterns 2 and 4.
    """
    parameters = deployment.parameters
    if deployment.live_fleet:
        return course_of_blue_green(
            breached,
            is_green_live=deployment.live_fleet == LiveFleet.GREEN,
            is_blue_begun=Target.objects.filter(
                deployment=deployment,
                stage_number=BLUE_STAGE,
                exposed_at__isnull=False,
            ).exists(),
            keeps_green=parameters.get("on_blue_failure") != BOTH,
        )
    if breached and parameters.get("rollback_scope") == FAILED_REGION:
        return ((breached,),)
    return EVERYTHING


def _stages_of(course: Course) -> tuple[int, ...]:
    return tuple(sorted({number for step in course for number in step}))


def _scope_of(deployment: Deployment, course: Course) -> Scope:
    """Return what a course sends back: all, if nothing else was exposed."""
    numbers = _stages_of(course)
    others = exposed_targets(deployment).exclude(stage_number__in=numbers)
    if not numbers or not others.exists():
        return WHOLE
    return Scope(stages=numbers)


def advance_rollback(
    deployment: Deployment, now: datetime, awake_since: datetime
) -> None:
    rollback = (
        Rollback.objects.filter(deployment=deployment, ends_deployment=True)
        .order_by("-started_at")
        .first()
    )
    if rollback is None:
        # One that began before rollbacks were kept.
        rollback = keep_rollback(
            deployment,
            reason=deployment.rollback_reason,
            now=deployment.rollback_started_at or now,
            stage_number=None,
            course=EVERYTHING,
        )
    if _course(rollback) == EVERYTHING:
        sweeps.prove(deployment, now)
        sweeps.fail_timed_out(deployment, now, awake_since)
        sweeps.fail_unproved(deployment, now, awake_since)
        sweeps.return_late_installs(deployment, now)
        sweeps.give_up_returns(deployment, now, awake_since)
    else:
        # What stays on the new firmware is watched as before.
        sweeps.sweep_devices(deployment, now, awake_since)
        _extend_rollback(deployment, rollback, now)
        sweeps.stop_unstarted(deployment, now)
    for step in _course(rollback)[: rollback.begun]:
        sweeps.send_back(deployment, now, Scope(stages=step))
    _return_on(deployment, rollback, now)


def _extend_rollback(deployment: Deployment, rollback: Rollback, now: datetime) -> None:
    """Add the stages to a partial rollback that have failed since it began."""
    gate = gate_of(deployment)
    stages = list(deployment.stages.all())
    known = {number for step in rollback.course for number in step}
    for facts in progress_of(stages, count_stages(deployment)):
        if facts.opened_at is None or facts.number in known:
            continue
        reason = breach(facts, gate)
        if reason is None:
            continue
        rollback.course.append([facts.number])
        scope = _scope_of(deployment, _course(rollback))
        rollback.scope = scope.to_json()
        rollback.save(update_fields=["course", "scope"])
        fail_stages(deployment, scope)
        log(
            deployment,
            EventName.ROLLBACK_EXTENDED,
            reason,
            now=now,
            stage_number=facts.number,
        )


def _return_on(
    deployment: Deployment, rollback: Rollback, now: datetime, *, may_end: bool = True
) -> None:
    """Go as far on the way back as the facts allow."""
    course = _course(rollback)
    end_holds(deployment, now)
    while True:
        decision = decide_return(
            course,
            _return_facts(deployment, course, rollback.begun),
            gate_of(deployment).rollback_threshold_percent,
            now,
            rule=hold_rule_of(deployment),
            holds=holds_of(deployment),
        )
        match decision:
            case BeginStep(index):
                rollback.begun = index + 1
                rollback.save(update_fields=["begun"])
                count = sweeps.send_back(deployment, now, Scope(stages=course[index]))
                log_ordered(deployment, count, now)
                if course != EVERYTHING:
                    sweeps.stop_unstarted(deployment, now)
            case SwitchBack():
                switch_fleet(deployment, LiveFleet.BLUE, now)
            case BeginHold(point, until):
                begin_hold(deployment, point, until, now)
            case Wait(reason, until):
                note_wait(deployment, reason, until)
                return
            case EndReturn(reason):
                if may_end:
                    _finish_rollback(deployment, rollback, reason, now)
                return


def _course(rollback: Rollback) -> Course:
    return tuple(tuple(step) for step in rollback.course) or EVERYTHING


def _return_facts(deployment: Deployment, course: Course, begun: int) -> ReturnFacts:
    steps = [
        _step_facts(deployment, Scope(stages=step), is_last=index + 1 == len(course))
        for index, step in enumerate(course[:begun])
    ]
    return ReturnFacts(
        steps=tuple(steps),
        unfinished=Target.objects.filter(
            deployment=deployment, status__in=UNFINISHED
        ).count(),
        one_at_a_time=bool(deployment.live_fleet),
        is_green_live=deployment.live_fleet == LiveFleet.GREEN,
        was_switched=bool(deployment.live_fleet)
        and deployment.stages.filter(
            number=GREEN_STAGE, passed_at__isnull=False
        ).exists(),
    )


def _step_facts(deployment: Deployment, scope: Scope, *, is_last: bool) -> StepFacts:
    targets = in_scope(Target.objects.filter(deployment=deployment), scope)
    unfinished = targets.filter(status__in=UNFINISHED).count()
    if unfinished or is_last:
        # What became of the others is asked when a step is to follow.
        return StepFacts(exposed=0, unfinished=unfinished, lost=0)
    return StepFacts(
        exposed=in_scope(exposed_targets(deployment), scope).count(),
        unfinished=0,
        lost=lost_in(deployment, scope),
    )


def _finish_rollback(
    deployment: Deployment, rollback: Rollback, reason: str, now: datetime
) -> None:
    """End a deployment that went back, and say plainly what is where."""
    scope = Scope(stages=_stages_of(_course(rollback)[: rollback.begun]))
    lost = in_scope(lost_targets(deployment), scope)
    count = lost.count()
    deployment.rollbacks.filter(finished_at__isnull=True).update(finished_at=now)
    parts = []
    if count:
        parts.append(
            f"{UNCONFIRMED}: {counted(count, 'device has', 'devices have')}"
            " not proved the former image"
        )
        forbidden = lost.filter(error_code=ROLLBACK_FORBIDDEN).count()
        if forbidden:
            why = message_of(ROLLBACK_FORBIDDEN)
            parts.append(f"{forbidden} of them may not go back: {why}")
    stays = Target.objects.filter(
        deployment=deployment, status=TargetStatus.SUCCESS
    ).exists()
    if reason:
        parts.append(reason)
    elif scope.stages and stays:
        parts.append(ending_in_words(deployment, scope))
    if parts:
        _fail(deployment, "; ".join(parts), now)
        return
    targets = Target.objects.filter(deployment=deployment)
    if not targets.filter(status=TargetStatus.ROLLED_BACK).exists():
        _fail(deployment, why_nothing_went_back(deployment), now)
        return
    total = exposed_targets(deployment).count()
    others = left_alone(deployment).count()
    finish(
        deployment,
        DeploymentStatus.ROLLED_BACK,
        f"{total - others} of {total} exposed devices run their former image; "
        f"{others} were updated by a later deployment and are left alone"
        if others
        else f"all {total} exposed devices run their former image",
        now,
    )


def _fail(deployment: Deployment, reason: str, now: datetime) -> None:
    finish(deployment, DeploymentStatus.FAILED, reason, now, failure_reason=reason)
