"""Every change of the status of a deployment, and of its stages.

Rules:
- The caller holds the lock of the deployment, and has seen that the change fits.
- A status comes with its own fields, and no other status leaves any behind: `CARRIED`
  says which, `_enter` writes all of them.
- Each change is one line of the log, which notifies whoever asks for the event. What
  the server decides also writes a row of the audit trail; what a person does is written
  there by `operate`, with the person's reason.
"""

import copy
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from deployments.choices import (
    DeploymentStatus,
    Level,
    LiveFleet,
    PauseReason,
    StageStatus,
    UpdateStatus,
)
from deployments.metrics import DEPLOYMENT_DURATION, ENDED, at_zero
from deployments.models import Deployment, Rollback, Stage, Update
from deployments.rules.events import EventName
from deployments.scopes import Scope
from deployments.services import late_watch
from deployments.services.fleets import end_holds, fleet_details
from deployments.services.log import log
from deployments.services.partial_rollback import scope_details
from deployments.services.rollbacks import keep_rollback
from deployments.strategies.rollback_decision import Course
from hotswap.common import audit, metrics
from hotswap.common.models import User
from hotswap.common.pluralize import counted

logger = logging.getLogger(__name__)
D = DeploymentStatus

# The fields that belong to a status, as they are where it does not carry them.
BLANK: Final[dict[str, Any]] = {
    "pause_reasons": [],
    "pause_detail": "",
    "paused_at": None,
    "waiting_for": "",
    "next_check_at": None,
    "finished_at": None,
    "failure_reason": "",
}
_WAITS = frozenset({"waiting_for", "next_check_at"})
_PAUSED = frozenset({"pause_reasons", "pause_detail", "paused_at"})
_ENDED = frozenset({"finished_at"})
CARRIED: Final[Mapping[DeploymentStatus, frozenset[str]]] = {
    D.SCHEDULED: _WAITS,
    D.PREPARING: _WAITS,
    D.RUNNING: _WAITS,
    D.PAUSED: _WAITS | _PAUSED,
    D.ROLLING_BACK: _WAITS,
    D.COMPLETED: _ENDED,
    D.ROLLED_BACK: _ENDED,
    D.FAILED: _ENDED | {"failure_reason"},
    D.CANCELLED: _ENDED,
}
ENDED_EVENTS: Final = {
    D.COMPLETED: EventName.COMPLETED,
    D.ROLLED_BACK: EventName.ROLLED_BACK,
    D.FAILED: EventName.FAILED,
    D.CANCELLED: EventName.CANCELLED,
}
SWITCH_EVENTS: Final = {
    LiveFleet.GREEN: EventName.SWITCHED,
    LiveFleet.BLUE: EventName.SWITCHED_BACK,
}


def _enter(
    deployment: Deployment, status: DeploymentStatus, now: datetime, **fields: Any
) -> None:
    """Write a status with all the fields that belong to one.

    Args:
        fields: of those that the status carries; the others are blank.
    """
    assert fields.keys() <= CARRIED[status], f"{status} does not carry {fields}"
    deployment.status = status
    for name, value in copy.deepcopy(BLANK | fields).items():
        setattr(deployment, name, value)
    deployment.updated_at = now
    deployment.save()


def start(
    deployment: Deployment,
    now: datetime,
    *,
    targets: int,
    matched: int,
    left_out: int,
    stages: int,
) -> None:
    """Let a deployment run whose targets are written.

    Args:
        targets, matched, left_out: devices that take part, that were meant, and of
            those the ones that do not fit.
        stages: how many there are.
    """
    deployment.target_count = targets
    deployment.matched_count = matched
    deployment.started_at = now
    # Along the table of moves, in one transaction: nobody sees it preparing.
    _enter(deployment, D.PREPARING, now)
    _enter(deployment, D.RUNNING, now)
    metrics.write(at_zero(deployment))
    log(
        deployment,
        EventName.STARTED,
        f"{counted(targets, 'device')} in {counted(stages, 'stage')}"
        + (f"; {left_out} excluded" if left_out > 0 else ""),
        now=now,
    )


def pause(
    deployment: Deployment,
    why: PauseReason,
    detail: str,
    now: datetime,
    *,
    until: datetime | None = None,
    level: Level | None = None,
    stage_number: int | None = None,
) -> None:
    """Stop giving new orders; devices at work go on.

    Args:
        detail: in words, what it is paused for.
        until: when the server looks again by itself.
        level: of the line in the log, where it is not the usual one.
    """
    is_person = why == PauseReason.OPERATOR
    _enter(
        deployment,
        D.PAUSED,
        now,
        pause_reasons=[why],
        pause_detail=detail,
        paused_at=now,
        waiting_for=f"paused by an operator: {detail}" if is_person else detail,
        next_check_at=until,
    )
    log(
        deployment,
        EventName.PAUSED,
        detail,
        now=now,
        level=level,
        stage_number=stage_number,
    )
    if not is_person:
        _record(deployment, "paused", detail)


def pause_for_health(
    deployment: Deployment, reason: str, now: datetime, *, stage_number: int | None
) -> None:
    """Pause because the evidence asks for a person."""
    pause(
        deployment,
        PauseReason.HEALTH,
        reason,
        now,
        level=Level.WARNING,
        stage_number=stage_number,
    )


def resume(
    deployment: Deployment,
    now: datetime,
    message: str,
    *,
    counted_from: datetime | None,
    by_server: bool = False,
) -> None:
    """End a pause.

    Args:
        message: of the line in the log.
        counted_from: from when waiting for devices is counted; None as before.
        by_server: no person decided it.
    """
    if counted_from is not None:
        deployment.resumed_at = counted_from
    has_started = deployment.started_at is not None
    _enter(deployment, D.RUNNING if has_started else D.SCHEDULED, now)
    log(deployment, EventName.RESUMED, message, now=now)
    if by_server:
        _record(deployment, "resumed", message)


def approve_stage(
    deployment: Deployment, stage: Stage, actor: User, comment: str, now: datetime
) -> None:
    """Let the stage open that waits for an approval, and go on."""
    stage.approved_at = now
    stage.approved_by = actor
    stage.save(update_fields=["approved_at", "approved_by"])
    resume(
        deployment,
        now,
        f"stage {stage.number} ({stage.name}) approved: {comment}",
        counted_from=now,
    )


def open_stage(deployment: Deployment, stage: Stage, now: datetime) -> None:
    """Let the devices of a stage be given their orders."""
    stage.status = StageStatus.OPEN
    stage.opened_at = now
    stage.save(update_fields=["status", "opened_at"])
    deployment.open_rank = stage.boundary
    _enter(deployment, D.RUNNING, now)
    log(
        deployment,
        EventName.STAGE_OPENED,
        f"stage {stage.number} ({stage.name}) is open for "
        f"{counted(stage.size, 'device')}",
        now=now,
        stage_number=stage.number,
    )


def pass_stage(
    deployment: Deployment, stage: Stage, warning: str | None, now: datetime
) -> None:
    """Note that the gate of a stage has opened.

    Args:
        warning: what was below its threshold, and accepted.
    """
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


def switch_fleet(deployment: Deployment, fleet: LiveFleet, now: datetime) -> None:
    """Change the fleet that serves, by one change of one row.

    Source: Deployment Patterns 4 (instant switchover).
    """
    deployment.live_fleet = fleet
    deployment.updated_at = now
    deployment.save(update_fields=["live_fleet", "updated_at"])
    log(
        deployment,
        SWITCH_EVENTS[fleet],
        f"the {fleet} fleet serves from now on",
        now=now,
        details=fleet_details(deployment, fleet),
    )


def run_again(deployment: Deployment, now: datetime) -> None:
    """Open a completed deployment again, for devices that are tried once more."""
    late_watch.resume(deployment, now)
    _enter(deployment, D.RUNNING, now)


def begin_rollback(
    deployment: Deployment,
    *,
    reason: str,
    now: datetime,
    stage_number: int | None,
    scope: Scope,
    course: Course,
) -> Rollback:
    """Stop offering, and write down what is to go back; it is ordered by `rollback`.

    Args:
        stage_number: of the stage that failed; None when a person decided.
        scope, course: what goes back, and in which order.

    Source: FR-FW-006; docs/architecture/tick.md#back.
    """
    rollback = keep_rollback(
        deployment,
        reason=reason,
        now=now,
        stage_number=stage_number,
        scope=scope,
        course=course,
    )
    deployment.rollback_reason = reason
    deployment.rollback_started_at = now
    deployment.watching_until = None
    _enter(
        deployment,
        D.ROLLING_BACK,
        now,
        waiting_for="the devices to prove their former image",
    )
    fail_stages(deployment, scope)
    # What they were to hold back does not come any more.
    end_holds(deployment, now, is_moot=True)
    log(
        deployment,
        EventName.ROLLBACK_STARTED,
        reason,
        now=now,
        stage_number=stage_number,
        details=scope_details(scope),
    )
    _record(deployment, "rollback-started", reason)
    logger.warning(
        "Rollback started",
        extra={"deploymentId": str(deployment.pk), "stage": stage_number},
    )
    return rollback


def fail_stages(deployment: Deployment, scope: Scope) -> None:
    """Note which stages have failed: those that go back, or that were open."""
    stages = Stage.objects.filter(deployment=deployment)
    if scope.is_whole:
        stages = stages.filter(status=StageStatus.OPEN)
    else:
        stages = stages.filter(number__in=scope.stages, opened_at__isnull=False)
    stages.update(status=StageStatus.FAILED)


def request_cancel(
    deployment: Deployment, reason: str, now: datetime, *, stopped: int
) -> None:
    """Note that a deployment is to end; one that has not started ends at once.

    Args:
        stopped: devices that will not be updated.
    """
    deployment.cancel_requested_at = now
    deployment.waiting_for = "devices that are installing to finish"
    deployment.next_check_at = None
    deployment.updated_at = now
    deployment.save()
    log(
        deployment,
        EventName.CANCEL_REQUESTED,
        f"{reason}; {counted(stopped, 'device')} will not be updated",
        now=now,
    )
    if deployment.started_at is None:
        finish(deployment, D.CANCELLED, "cancelled before it started", now)


def finish(
    deployment: Deployment,
    status: DeploymentStatus,
    message: str,
    now: datetime,
    *,
    failure_reason: str = "",
) -> None:
    """End a deployment: completed, rolled back, failed or cancelled.

    Args:
        message: how it ended, for the log.
        failure_reason: of one that failed, for its page.
    """
    # An order that was given in the very moment of the end must not hold its device.
    Update.objects.filter(deployment=deployment, closed_at__isnull=True).update(
        status=UpdateStatus.SUPERSEDED, closed_at=now
    )
    late_watch.begin(deployment, now)
    carried = {"finished_at": now}
    failed = {"failure_reason": failure_reason} if status == D.FAILED else {}
    _enter(deployment, status, now, **carried, **failed)
    event = ENDED_EVENTS[status]
    log(deployment, event, message, now=now)
    counted_ends = [ENDED[status].entry(strategy=deployment.strategy)]
    if deployment.started_at is not None:
        counted_ends.append(
            DEPLOYMENT_DURATION.entry(
                (now - deployment.started_at).total_seconds(),
                strategy=deployment.strategy,
                outcome=status.value,
            )
        )
    metrics.write(counted_ends)
    _record(deployment, event.removeprefix("deployment.").replace("_", "-"), message)


def note_wait(deployment: Deployment, reason: str, until: datetime | None) -> None:
    """Write down what a deployment waits for, if that is news."""
    if (deployment.waiting_for, deployment.next_check_at) != (reason, until):
        deployment.waiting_for = reason
        deployment.next_check_at = until
        deployment.save(update_fields=["waiting_for", "next_check_at"])


def _record(deployment: Deployment, verb: str, message: str) -> None:
    audit.record(
        actor=None,
        verb=f"deployment.{verb}",
        object_kind="deployment",
        object_id=deployment.pk,
        details={"message": message},
        changed=deployment,
    )
