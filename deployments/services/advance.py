"""The tick: find what is due and move each deployment one step.

Rules:
- A tick recomputes everything from facts. Running it twice, late, or on three servers
  at once changes nothing.
- Each deployment moves in a short transaction of its own, under its lock; one that
  another tick holds is left to it.
"""

import logging
import time
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from deployments.choices import (
    UNFINISHED,
    DeploymentStatus,
    Level,
    LiveFleet,
    OnBlueFailure,
    PauseReason,
    RollbackScope,
    StageStatus,
    TargetStatus,
    UpdateStatus,
)
from deployments.models import Deployment, Rollback, Stage, Target, Update
from deployments.rules.codes import ROLLBACK_FORBIDDEN, UNCONFIRMED, message_of
from deployments.rules.events import EventName
from deployments.scopes import WHOLE, Scope
from deployments.services import late_watch, sweeps
from deployments.services.fleets import begin_hold, end_holds, switch
from deployments.services.launch import launch_scheduled
from deployments.services.log import log
from deployments.services.parts import (
    continue_partial_rollbacks,
    ending_in_words,
    log_ordered,
    lost_in,
    told_of,
)
from deployments.services.progress import (
    count_silence,
    count_stages,
    gate_of,
    has_settled,
    hold_rule_of,
    holds_of,
    plan_of,
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
from deployments.strategies.blue_green import BLUE_STAGE, GREEN_STAGE
from deployments.strategies.decide import breach, decide
from deployments.strategies.registry import STRATEGIES
from deployments.strategies.returning import (
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
from deployments.strategies.types import (
    AwaitApproval,
    BeginHold,
    Complete,
    PassStage,
    Pause,
    RollBack,
    StartStage,
    Wait,
)
from deployments.windows import DEVICE_ZONE
from hotswap.common import audit
from hotswap.common.services import touch_clock
from hotswap.common.words import counted

logger = logging.getLogger(__name__)
TICK_CLOCK = "deployments-tick"
TOUCH_SECONDS = 2.0
# One tick may pass every gate that is due and open as many stages.
STEPS_A_STAGE_IN_FLIGHT = 4


def tick(*, now: datetime | None = None) -> int:
    """Advance every deployment that is active or watched; count them."""
    is_real = now is None
    now = now or timezone.now()
    awake_since = touch_clock(name=TICK_CLOCK, now=now)
    touched_at = time.monotonic()
    looked_at = 0
    ids = (
        Deployment.objects.moved_by_ticks()
        .order_by("created_at")
        .values_list("pk", flat=True)
    )
    for deployment_id in list(ids):
        # A long tick runs all the while: nobody shall take it for a standstill.
        if is_real and time.monotonic() - touched_at > TOUCH_SECONDS:
            touch_clock(name=TICK_CLOCK, now=timezone.now())
            touched_at = time.monotonic()
        try:
            looked_at += advance_deployment(deployment_id, now, awake_since)
        except Exception:
            # One deployment that cannot be advanced must not hold up the others; the
            # next tick tries it again, and the log shouts every time.
            logger.exception(
                "Deployment could not be advanced",
                extra={"deploymentId": str(deployment_id)},
            )
    return looked_at


def advance_deployment(
    deployment_id: UUID, now: datetime, awake_since: datetime
) -> bool:
    """Move one deployment as far as the facts allow.

    Args:
        awake_since: since when ticks have run without a gap. Every clock that measures
            a device starts there at the earliest, so that an outage of the server is
            not held against the fleet.

    Returns:
        False when another tick holds it, or it has ended and is not watched any more.
    """
    with transaction.atomic():
        deployment = (
            Deployment.objects.select_for_update(
                skip_locked=True, of=("self",), no_key=True
            )
            .select_related("firmware__model")
            .filter(pk=deployment_id)
            .first()
        )
        if deployment is None:
            return False
        match deployment.status:
            case DeploymentStatus.SCHEDULED:
                if (
                    deployment.scheduled_at is not None
                    and deployment.scheduled_at <= now
                ):
                    launch_scheduled(deployment, now)
            case DeploymentStatus.RUNNING | DeploymentStatus.PAUSED:
                _advance_running(deployment, now, awake_since)
            case DeploymentStatus.ROLLING_BACK:
                _advance_rollback(deployment, now, awake_since)
            case _ if deployment.watching_until is not None:
                _advance_watch(deployment, now, awake_since)
            case _:
                return False
    return True


def _sweep_devices(
    deployment: Deployment, now: datetime, awake_since: datetime
) -> None:
    # First: what is gone is neither at fault nor proved.
    sweeps.end_erased(deployment, now)
    sweeps.fail_breached(deployment, now)
    sweeps.fail_fallen_back(deployment, now)
    sweeps.prove(deployment, now)
    sweeps.fail_timed_out(deployment, now, awake_since)
    sweeps.fail_unproved(deployment, now, awake_since)
    sweeps.recall_strays(deployment, now)
    sweeps.give_up_returns(deployment, now, awake_since)


def _advance_running(
    deployment: Deployment, now: datetime, awake_since: datetime
) -> None:
    _sweep_devices(deployment, now, awake_since)
    continue_partial_rollbacks(deployment, now)
    if deployment.cancel_requested_at is not None:
        sweeps.stop_unstarted(deployment, now)
        _finish_cancel(deployment, now)
        return
    damage = deployment.firmware.damage
    if damage and deployment.status == DeploymentStatus.RUNNING:
        stage = deployment.stages.filter(opened_at__isnull=False).last()
        pause_for_health(
            deployment,
            f"the stored image of {deployment.firmware} is damaged: {damage}",
            now,
            stage_number=stage.number if stage else None,
        )
    _ask_about_unreadable(deployment, now, awake_since)
    _keep_window(deployment, now)
    if deployment.status == DeploymentStatus.RUNNING:
        sweeps.skip_unseen(deployment, now, awake_since)
        sweeps.fail_vanished(deployment, now, awake_since)
    in_flight = STRATEGIES[deployment.strategy].in_flight(deployment.parameters)
    for _ in range(STEPS_A_STAGE_IN_FLIGHT * in_flight):
        if not _step(deployment, now, awake_since):
            return


def _ask_about_unreadable(
    deployment: Deployment, now: datetime, awake_since: datetime
) -> None:
    """Pause for a person where devices are heard and not understood.

    A good image is not taken back because the server cannot tell how it is.
    """
    if deployment.status != DeploymentStatus.RUNNING:
        return
    found = sweeps.find_unreadable(deployment, now, awake_since)
    if found is None:
        return
    # Without a name: the audit trail keeps what this says.
    devices = counted(found.devices, "device is", "devices are")
    pause_for_health(
        deployment,
        f"{devices} neither proved nor at fault: {found.reason}",
        now,
        stage_number=None,
    )


def _step(deployment: Deployment, now: datetime, awake_since: datetime) -> bool:
    """Ask `decide` and apply its answer; tell whether to ask again at once."""
    stages = list(deployment.stages.all())
    gate = gate_of(deployment)
    counts = count_stages(deployment)
    progress = progress_of(stages, counts)
    for stage, facts in zip(stages, progress, strict=True):
        if (
            stage.status == StageStatus.OPEN
            and stage.settled_at is None
            and has_settled(facts, gate)
        ):
            stage.settled_at = now
            stage.save(update_fields=["settled_at"])
            log(
                deployment,
                EventName.STAGE_SETTLED,
                f"{facts.succeeded} of {counted(facts.exposed, 'device')}"
                " proved the update",
                now=now,
                stage_number=stage.number,
            )
    is_paused = deployment.status == DeploymentStatus.PAUSED
    end_holds(deployment, now)
    silence = count_silence(deployment, stages, now, awake_since)
    decision = decide(
        plan_of(deployment, stages),
        gate,
        progress_of(stages, counts, silence),
        now,
        is_paused=is_paused,
        holds=holds_of(deployment),
    )
    if isinstance(decision, RollBack):
        begin_rollback(
            deployment, reason=decision.reason, now=now, stage_number=decision.number
        )
        return False
    if is_paused:
        return False
    match decision:
        case StartStage(number):
            _open_stage(deployment, stages[number - 1], now)
            return True
        case PassStage(number, warning):
            _pass_stage(deployment, stages[number - 1], warning, now)
            return True
        case BeginHold(point, until):
            begin_hold(deployment, point, until, now)
            return True
        case AwaitApproval(number):
            _pause(
                deployment,
                PauseReason.APPROVAL,
                f"stage {number} ({stages[number - 1].name}) waits for an approval",
                now,
                stage_number=number,
            )
            return False
        case Pause(number, reason):
            pause_for_health(deployment, reason, now, stage_number=number)
            return False
        case Complete():
            _complete(deployment, now)
            return False
        case Wait(reason, until):
            _note_wait(deployment, reason, until)
            return False


def _note_wait(deployment: Deployment, reason: str, until: datetime | None) -> None:
    """Write down what a deployment waits for, if that is news."""
    if (deployment.waiting_for, deployment.next_check_at) != (reason, until):
        deployment.waiting_for = reason
        deployment.next_check_at = until
        deployment.save(update_fields=["waiting_for", "next_check_at"])


def _open_stage(deployment: Deployment, stage: Stage, now: datetime) -> None:
    stage.status = StageStatus.OPEN
    stage.opened_at = now
    stage.save(update_fields=["status", "opened_at"])
    deployment.open_rank = stage.boundary
    deployment.waiting_for = ""
    deployment.next_check_at = None
    deployment.updated_at = now
    deployment.save()
    log(
        deployment,
        EventName.STAGE_OPENED,
        f"stage {stage.number} ({stage.name}) is open for "
        f"{counted(stage.size, 'device')}",
        now=now,
        stage_number=stage.number,
    )


def _pass_stage(
    deployment: Deployment, stage: Stage, warning: str | None, now: datetime
) -> None:
    stage.status = StageStatus.PASSED
    stage.passed_at = now
    stage.warning = warning or ""
    stage.save(update_fields=["status", "passed_at", "warning"])
    if warning:
        log(
            deployment,
            EventName.STAGE_WARNING,
            warning,
            now=now,
            stage_number=stage.number,
        )
    log(
        deployment,
        EventName.STAGE_PASSED,
        f"the gate of stage {stage.number} opened",
        now=now,
        stage_number=stage.number,
    )
    if deployment.live_fleet == LiveFleet.BLUE and stage.number == GREEN_STAGE:
        switch(deployment, LiveFleet.GREEN, now)


def pause_for_health(
    deployment: Deployment, reason: str, now: datetime, *, stage_number: int | None
) -> None:
    """Pause because the evidence asks for a person; the caller holds the lock."""
    _pause(
        deployment,
        PauseReason.HEALTH,
        reason,
        now,
        level=Level.WARNING,
        stage_number=stage_number,
    )


def _pause(
    deployment: Deployment,
    why: PauseReason,
    detail: str,
    now: datetime,
    *,
    until: datetime | None = None,
    level: Level = Level.INFO,
    stage_number: int | None = None,
) -> None:
    deployment.status = DeploymentStatus.PAUSED
    deployment.pause_reasons = [why]
    deployment.pause_detail = detail
    deployment.paused_at = now
    deployment.waiting_for = detail
    deployment.next_check_at = until
    deployment.updated_at = now
    deployment.save()
    log(
        deployment,
        EventName.PAUSED,
        detail,
        now=now,
        level=level,
        stage_number=stage_number,
    )
    _record(deployment, "paused", detail)


def _keep_window(deployment: Deployment, now: datetime) -> None:
    """Pause outside of the maintenance window, and go on when it opens.

    Devices at work finish. The pause is not counted against devices that have not
    been seen. A window in each device's own time is looked at when it polls.
    """
    window = deployment.window
    if window is None or window.zone == DEVICE_ZONE:
        return
    zone = window.zone_of({})
    if zone is None:
        if deployment.status == DeploymentStatus.RUNNING:
            _pause(
                deployment,
                PauseReason.WINDOW,
                f"the time zone of its maintenance window, {window.zone}, is not known "
                "on this server",
                now,
                level=Level.WARNING,
            )
        return
    opening = window.opening_after(now, zone)
    is_outside = PauseReason.WINDOW in deployment.pause_reasons
    if opening is not None and deployment.status == DeploymentStatus.RUNNING:
        _pause(
            deployment,
            PauseReason.WINDOW,
            f"outside of its maintenance window until {opening:%Y-%m-%d %H:%M} UTC",
            now,
            until=opening,
        )
    elif opening is None and is_outside:
        stage = deployment.stages.filter(opened_at__isnull=False).last()
        since = deployment.resumed_at
        if stage is not None and stage.opened_at is not None:
            since = max(stage.opened_at, since or stage.opened_at)
        if since is not None and deployment.paused_at is not None:
            deployment.resumed_at = since + (now - deployment.paused_at)
        go_on(deployment, now, "the maintenance window is open")


def go_on(deployment: Deployment, now: datetime, message: str) -> None:
    """End a pause; the caller holds the lock."""
    deployment.status = (
        DeploymentStatus.SCHEDULED
        if deployment.started_at is None
        else DeploymentStatus.RUNNING
    )
    deployment.pause_reasons = []
    deployment.pause_detail = ""
    deployment.paused_at = None
    deployment.waiting_for = ""
    deployment.next_check_at = None
    deployment.updated_at = now
    deployment.save()
    log(deployment, EventName.RESUMED, message, now=now)


def begin_rollback(
    deployment: Deployment, *, reason: str, now: datetime, stage_number: int | None
) -> None:
    """Stop offering and send back what has to go back; the caller holds the lock.

    Args:
        stage_number: of the stage that failed; None when a person decided.

    Source: FR-FW-006; design, Two levels of rollback.
    """
    course = course_of(deployment, stage_number)
    scope = _scope_of(deployment, course)
    rollback = keep_rollback(
        deployment,
        reason=reason,
        now=now,
        stage_number=stage_number,
        scope=scope,
        course=course,
    )
    deployment.status = DeploymentStatus.ROLLING_BACK
    deployment.rollback_reason = reason
    deployment.rollback_started_at = now
    deployment.finished_at = None
    deployment.watching_until = None
    deployment.pause_reasons = []
    deployment.waiting_for = "the devices to prove their former image"
    deployment.next_check_at = None
    deployment.updated_at = now
    deployment.save()
    _fail_stages(deployment, scope)
    # What they were to hold back does not come any more.
    end_holds(deployment, now, is_moot=True)
    log(
        deployment,
        EventName.ROLLBACK_STARTED,
        reason,
        now=now,
        stage_number=stage_number,
        details=told_of(scope),
    )
    _record(deployment, "rollback-started", reason)
    logger.warning(
        "Rollback started",
        extra={"deploymentId": str(deployment.pk), "reason": reason},
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
            keeps_green=parameters.get("on_blue_failure") != OnBlueFailure.BOTH,
        )
    if breached and parameters.get("rollback_scope") == RollbackScope.REGION:
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


def _fail_stages(deployment: Deployment, scope: Scope) -> None:
    stages = Stage.objects.filter(deployment=deployment)
    if scope.is_whole:
        stages = stages.filter(status=StageStatus.OPEN)
    else:
        stages = stages.filter(number__in=scope.stages, opened_at__isnull=False)
    stages.update(status=StageStatus.FAILED)


def _advance_rollback(
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
        sweeps.recall_strays(deployment, now)
        sweeps.give_up_returns(deployment, now, awake_since)
    else:
        # What stays on the new firmware is watched as before.
        _sweep_devices(deployment, now, awake_since)
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
        _fail_stages(deployment, scope)
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
                switch(deployment, LiveFleet.BLUE, now)
            case BeginHold(point, until):
                begin_hold(deployment, point, until, now)
            case Wait(reason, until):
                _note_wait(deployment, reason, until)
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
        deployment.failure_reason = "; ".join(parts)
        _finish(deployment, DeploymentStatus.FAILED, deployment.failure_reason, now)
        return
    targets = Target.objects.filter(deployment=deployment)
    if not targets.filter(status=TargetStatus.ROLLED_BACK).exists():
        deployment.failure_reason = why_nothing_went_back(deployment)
        _finish(deployment, DeploymentStatus.FAILED, deployment.failure_reason, now)
        return
    total = exposed_targets(deployment).count()
    others = left_alone(deployment).count()
    _finish(
        deployment,
        DeploymentStatus.ROLLED_BACK,
        f"{total - others} of {total} exposed devices run their former image; "
        f"{others} were updated by a later deployment and are left alone"
        if others
        else f"all {total} exposed devices run their former image",
        now,
    )


def _advance_watch(
    deployment: Deployment, now: datetime, awake_since: datetime
) -> None:
    decision = late_watch.advance(deployment, now, awake_since)
    continue_partial_rollbacks(deployment, now)
    if decision is not None:
        begin_rollback(
            deployment,
            reason=f"after it was completed, {decision.reason}",
            now=now,
            stage_number=decision.number,
        )


def _finish_cancel(deployment: Deployment, now: datetime) -> None:
    left = Target.objects.filter(deployment=deployment, status__in=UNFINISHED).count()
    if left:
        _note_wait(
            deployment,
            f"{counted(left, 'device that is', 'devices that are')}"
            " installing to finish",
            deployment.next_check_at,
        )
        return
    deployment.pause_reasons = []
    _finish(deployment, DeploymentStatus.CANCELLED, "cancelled", now)


def _complete(deployment: Deployment, now: datetime) -> None:
    left = Target.objects.filter(deployment=deployment, status__in=UNFINISHED).count()
    if left:
        # Returns of single devices, or devices that appeared after their gate opened.
        _note_wait(
            deployment, f"{counted(left, 'device')} to settle", deployment.next_check_at
        )
        return
    proved = Target.objects.filter(
        deployment=deployment, status=TargetStatus.SUCCESS
    ).count()
    _finish(
        deployment,
        DeploymentStatus.COMPLETED,
        f"{proved} of {counted(deployment.target_count, 'device')} proved to run "
        f"{deployment.firmware.version}",
        now,
    )


def _finish(
    deployment: Deployment, status: DeploymentStatus, message: str, now: datetime
) -> None:
    deployment.status = status
    deployment.finished_at = now
    deployment.waiting_for = ""
    deployment.next_check_at = None
    deployment.updated_at = now
    # An order that was given in the very moment of the end must not hold its device.
    Update.objects.filter(deployment=deployment, closed_at__isnull=True).update(
        status=UpdateStatus.SUPERSEDED, closed_at=now
    )
    late_watch.begin(deployment, now)
    deployment.save()
    names = {
        DeploymentStatus.COMPLETED: "completed",
        DeploymentStatus.ROLLED_BACK: "rolled_back",
        DeploymentStatus.CANCELLED: "cancelled",
        DeploymentStatus.FAILED: "failed",
    }
    log(deployment, EventName(f"deployment.{names[status]}"), message, now=now)
    _record(deployment, names[status].replace("_", "-"), message)


def _record(deployment: Deployment, verb: str, message: str) -> None:
    audit.record(
        actor=None,
        verb=f"deployment.{verb}",
        object_kind="deployment",
        object_id=deployment.pk,
        details={"message": message},
    )
