"""Reads across models: the status of a deployment, and why a device waits."""

from datetime import datetime
from typing import Any

from django.db.models import F, Q

from deployments.choices import (
    RETRIABLE,
    DeploymentStatus,
    OrderKind,
    TargetStatus,
)
from deployments.models import Deployment, Stage, Target, Update
from deployments.next_steps import COPY, RETRY, RETRY_LATER, next_step
from deployments.services.fleets import hold_output
from deployments.services.progress import (
    StageCounts,
    count_stages,
    estimate_completion,
    shared_counts,
    total_of,
)
from deployments.waiting import Surroundings, deployment_waiting, target_waiting
from health.models import DeviceState
from hotswap.common.api.serializers import camelize

T = TargetStatus


def _counts(counts: StageCounts) -> dict[str, int]:
    numbers = {"total": counts.total}
    numbers.update(
        {camelize(status): count for status, count in counts.by_status.items()}
    )
    return numbers


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def current_stage(stages: list[Stage]) -> Stage | None:
    """Return the highest stage that was opened."""
    opened = [stage for stage in stages if stage.opened_at is not None]
    return opened[-1] if opened else None


def deployment_status(
    deployment: Deployment, now: datetime, *, may_share: bool = False
) -> dict[str, Any]:
    """Return the live status, with its numbers counted for this answer.

    `successRate` is a percent of the devices whose outcome is known; `gate` compares
    proved with exposed devices, as the gate itself does.

    Args:
        may_share: the counts of a large deployment may be those of another answer, up
            to 1.5 s old; `countedAt` says so.

    Source: FR-FW-007; design, section 5.
    """
    stages = list(deployment.stages.all())
    counts, counted_at = (
        shared_counts(deployment, now) if may_share else (count_stages(deployment), now)
    )
    total = total_of(counts)
    stage = current_stage(stages)
    waiting = deployment_waiting(deployment)
    estimate = estimate_completion(deployment, stages, counts, now)
    return {
        "id": str(deployment.pk),
        "name": deployment.name,
        "status": deployment.status,
        "pauseReasons": deployment.pause_reasons,
        "cancelRequestedAt": deployment.cancel_requested_at,
        "waitingFor": waiting.reason if waiting else None,
        "waitingUntil": waiting.until if waiting else None,
        "strategy": deployment.strategy,
        "firmwareVersion": deployment.firmware.version,
        "liveFleet": deployment.live_fleet or None,
        "hold": hold_output(deployment),
        "stage": None
        if stage is None
        else {
            "number": stage.number,
            "of": len(stages),
            "name": stage.name,
            "status": stage.status,
            "openedAt": stage.opened_at,
            "nextCheckAt": deployment.next_check_at,
            "waitingFor": deployment.waiting_for,
        },
        "progress": _counts(total),
        "percentComplete": _rounded(total.percent_complete),
        "successRate": _rounded(total.success_rate),
        "healthThreshold": deployment.health_threshold,
        "rollbackReason": deployment.rollback_reason,
        "failureReason": deployment.failure_reason,
        "estimatedCompletionAt": estimate.at if estimate else None,
        "estimateBasis": estimate.basis if estimate else None,
        "startedAt": deployment.started_at,
        "finishedAt": deployment.finished_at,
        "watchingUntil": deployment.watching_until,
        "countedAt": counted_at,
        "stages": [
            {
                "number": each.number,
                "name": each.name,
                "status": each.status,
                "size": each.size,
                "openedAt": each.opened_at,
                "passedAt": each.passed_at,
                "warning": each.warning,
                "exposed": counts.get(each.number, StageCounts()).exposed,
                "successRate": _rounded(
                    counts.get(each.number, StageCounts()).success_rate
                ),
                **_counts(counts.get(each.number, StageCounts())),
            }
            for each in stages
        ],
    }


def _comes_first(deployment: Deployment, devices: list[Any]) -> dict[Any, str]:
    """Name the deployment that each device has to do with before this one.

    Of two that want one device the older comes first; going back comes before that.
    """
    order = Target.objects.filter(
        Q(status=T.ROLLING_BACK)
        | Q(
            status=T.PENDING,
            deployment__status=DeploymentStatus.RUNNING,
            deployment__cancel_requested_at__isnull=True,
            deployment__created_at__lt=deployment.created_at,
            rank__lte=F("deployment__open_rank"),
        ),
        device__in=devices,
    ).exclude(deployment=deployment)
    return dict(
        order.order_by("-deployment__created_at").values_list(
            "device", "deployment__name"
        )
    )


def way_to_try_again(deployment: Deployment, target_status: str = "") -> str:
    """Return how a device gets the same image again, in words of the API.

    Args:
        target_status: of its target; left out where many are spoken of.
    """
    if deployment.status not in RETRIABLE or deployment.cancel_requested_at:
        return COPY
    is_returning = target_status == TargetStatus.ROLLING_BACK
    return RETRY_LATER if is_returning else RETRY


def next_step_of(deployment: Deployment, target: Target) -> str:
    """Return what to do about a device of a deployment, as things stand."""
    again = way_to_try_again(deployment, target.status)
    return next_step(target.error_code, again)


def target_rows(
    deployment: Deployment, targets: list[Target], now: datetime
) -> list[dict[str, Any]]:
    """Return one page of devices with what each is waiting for, by six statements."""
    devices = [target.device_id for target in targets]
    stages = {stage.number: stage for stage in deployment.stages.all()}
    states = DeviceState.objects.in_bulk(devices)
    updates: dict[Any, Update] = {}
    busy = _comes_first(deployment, devices)
    for update in Update.objects.select_related("firmware", "deployment").filter(
        device__in=devices, closed_at__isnull=True
    ):
        if update.deployment_id == deployment.pk:
            updates[update.device_id] = update
        else:
            busy[update.device_id] = update.deployment.name
    rows = []
    for target in targets:
        device = target.device_id
        waiting = target_waiting(
            target,
            deployment,
            Surroundings(
                stage=stages[target.stage_number],
                update=updates.get(device),
                state=states.get(device),
                busy_with=busy.get(device),
            ),
            now,
        )
        rows.append(
            {
                "deviceId": target.device.device_id,
                "status": target.status,
                "stage": target.stage_number,
                "attempt": target.attempt,
                "fromVersion": target.from_version,
                "progressPercentage": target.progress_percent,
                "waitingFor": waiting.reason if waiting else None,
                "waitingUntil": waiting.until if waiting else None,
                "errorCode": target.error_code,
                "message": target.message,
                "nextStep": next_step_of(deployment, target),
                "updatedAt": target.updated_at,
            }
        )
    return rows


def target_detail(
    deployment: Deployment, target: Target, now: datetime
) -> dict[str, Any]:
    """Return one device, with what was measured of it before its last order.

    `baseline` is null before an order, and its `status` is `unknown` where no heartbeat
    was recent enough: the device is then judged by the absolute limits alone.

    Source: FR-FW-005, Pre-deployment: 1 baseline check.
    """
    (row,) = target_rows(deployment, [target], now)
    order = (
        Update.objects.filter(target=target, kind=OrderKind.INSTALL)
        .order_by("-offered_at")
        .first()
    )
    if order is None:
        return row | {"baseline": None}
    known = {"status": "known" if order.baseline else "unknown"}
    return row | {"baseline": known | order.baseline | {"exempt": order.exempt}}
