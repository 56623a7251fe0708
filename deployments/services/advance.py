"""A step forward: gather the facts, ask `decide`, apply the answer.

The caller, a tick, holds the lock of the deployment.
"""

from datetime import datetime

from deployments.choices import (
    UNFINISHED,
    DeploymentStatus,
    Level,
    LiveFleet,
    PauseReason,
    TargetStatus,
)
from deployments.models import Deployment, Stage, Target
from deployments.rules.events import EventName
from deployments.services import late_watch, sweeps
from deployments.services.fleets import begin_hold, end_holds
from deployments.services.log import log
from deployments.services.partial_rollback import continue_partial_rollbacks
from deployments.services.progress import facts_of_gates, read_facts
from deployments.services.rollback_course import begin_rollback
from deployments.services.transitions import (
    finish,
    note_wait,
    open_stage,
    pass_stage,
    pause,
    pause_for_health,
    resume,
    switch_fleet,
)
from deployments.strategies.blue_green import GREEN_STAGE
from deployments.strategies.decide import decide
from deployments.strategies.registry import STRATEGIES
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
from hotswap.common.pluralize import counted

# One tick may pass every gate that is due and open as many stages.
STEPS_A_STAGE_IN_FLIGHT = 4


def advance_running(
    deployment: Deployment, now: datetime, awake_since: datetime
) -> None:
    sweeps.sweep_devices(deployment, now, awake_since)
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
    facts = read_facts(deployment)
    stages = facts.stages
    for stage, progress in facts.settled:
        stage.settled_at = now
        stage.save(update_fields=["settled_at"])
        log(
            deployment,
            EventName.STAGE_SETTLED,
            f"{progress.succeeded} of {counted(progress.exposed, 'device')}"
            " proved the update",
            now=now,
            stage_number=stage.number,
        )
    is_paused = deployment.status == DeploymentStatus.PAUSED
    end_holds(deployment, now)
    at_gates, holds = facts_of_gates(deployment, facts, now, awake_since)
    decision = decide(
        facts.plan, facts.gate, at_gates, now, is_paused=is_paused, holds=holds
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
            open_stage(deployment, stages[number - 1], now)
            return True
        case PassStage(number, warning):
            _pass_stage(deployment, stages[number - 1], warning, now)
            return True
        case BeginHold(point, until):
            begin_hold(deployment, point, until, now)
            return True
        case AwaitApproval(number):
            pause(
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
            note_wait(deployment, reason, until)
            return False


def _pass_stage(
    deployment: Deployment, stage: Stage, warning: str | None, now: datetime
) -> None:
    pass_stage(deployment, stage, warning, now)
    if deployment.live_fleet == LiveFleet.BLUE and stage.number == GREEN_STAGE:
        switch_fleet(deployment, LiveFleet.GREEN, now)


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
            pause(
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
        pause(
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
        counted_from = None
        if since is not None and deployment.paused_at is not None:
            counted_from = since + (now - deployment.paused_at)
        resume(
            deployment,
            now,
            "the maintenance window is open",
            counted_from=counted_from,
            by_server=True,
        )


def advance_watch(deployment: Deployment, now: datetime, awake_since: datetime) -> None:
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
        note_wait(
            deployment,
            f"{counted(left, 'device that is', 'devices that are')}"
            " installing to finish",
            deployment.next_check_at,
        )
        return
    finish(deployment, DeploymentStatus.CANCELLED, "cancelled", now)


def _complete(deployment: Deployment, now: datetime) -> None:
    left = Target.objects.filter(deployment=deployment, status__in=UNFINISHED).count()
    if left:
        # Returns of single devices, or devices that appeared after their gate opened.
        note_wait(
            deployment, f"{counted(left, 'device')} to finish", deployment.next_check_at
        )
        return
    proved = Target.objects.filter(
        deployment=deployment, status=TargetStatus.SUCCESS
    ).count()
    finish(
        deployment,
        DeploymentStatus.COMPLETED,
        f"{proved} of {counted(deployment.target_count, 'device')} proved to run "
        f"{deployment.firmware.version}",
        now,
    )
