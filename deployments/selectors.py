"""Reads across models: the status of a deployment, and why a device waits."""

from datetime import datetime
from typing import Any

from deployments.choices import (
    DeploymentStatus,
    StageStatus,
    TargetStatus,
)
from deployments.models import Deployment, Stage, Target, Update
from deployments.services.progress import (
    StageCounts,
    count_stages,
    estimate_completion,
    total_of,
)
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


def deployment_status(deployment: Deployment, now: datetime) -> dict[str, Any]:
    """Return the live status; every number is counted for this answer.

    `successRate` is a percent of the devices whose outcome is known; `gate` compares
    proved with exposed devices, as the gate itself does.

    Source: FR-FW-007; design, section 5.
    """
    stages = list(deployment.stages.all())
    counts = count_stages(deployment)
    total = total_of(counts)
    stage = current_stage(stages)
    return {
        "id": str(deployment.pk),
        "name": deployment.name,
        "status": deployment.status,
        "pauseReasons": deployment.pause_reasons,
        "cancelRequestedAt": deployment.cancel_requested_at,
        "strategy": deployment.strategy,
        "firmwareVersion": deployment.firmware.version,
        "liveFleet": deployment.live_fleet or None,
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
        "estimatedCompletionAt": estimate_completion(deployment, stages, counts, now),
        "startedAt": deployment.started_at,
        "finishedAt": deployment.finished_at,
        "countedAt": now,
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


def waiting_for(
    target: Target,
    deployment: Deployment,
    stage: Stage,
    update: Update | None,
    state: DeviceState | None,
    busy_with: str | None,
    now: datetime,
) -> str | None:
    """Say in one sentence what a device is waiting for, or None if for nothing."""
    match target.status:
        case T.PENDING:
            return _pending(target, deployment, stage, state, busy_with, now)
        case T.CONFIRMING:
            return _confirming(deployment, update, state)
        case T.ROLLING_BACK:
            if update is None:
                return "to poll, and be ordered back"
            if update.claimed_at is not None:
                return f"going back: {_confirming(deployment, update, state)}"
            return f"going back: it is {update.status}"
        case T.NOTIFIED | T.DOWNLOADING | T.VERIFYING | T.INSTALLING | T.REBOOTING:
            return f"the device, which is {target.status}"
        case _:
            return None


def _pending(
    target: Target,
    deployment: Deployment,
    stage: Stage,
    state: DeviceState | None,
    busy_with: str | None,
    now: datetime,
) -> str:
    if deployment.status == DeploymentStatus.PAUSED:
        return f"the deployment, which is paused: {deployment.pause_detail}"
    if stage.status == StageStatus.PENDING:
        return f"stage {stage.number} ({stage.name}) to open"
    if deployment.firmware.signature_revoked_at is not None:
        return "the image to be signed again: the key that signed it was revoked"
    if busy_with is not None:
        return f"its update by the deployment {busy_with!r}"
    if target.next_attempt_at is not None and target.next_attempt_at > now:
        return (
            f"its next attempt at {target.next_attempt_at:%H:%M:%S} UTC, after: "
            f"{target.message}"
        )
    if state is None or state.online_until <= now:
        return "the device, which is offline"
    return "the device to poll"


def _confirming(
    deployment: Deployment, update: Update | None, state: DeviceState | None
) -> str:
    if update is None or update.claimed_at is None:
        return "its claim"
    if (
        state is None
        or state.last_heartbeat_at is None
        or state.last_heartbeat_at < update.claimed_at
    ):
        return "a heartbeat after its claim"
    if state.firmware_checksum != update.firmware.sha256:
        return f"proof: it claims the update and runs {state.firmware_version}"
    if update.reboot_required and not update.boot_id_before:
        return "proof: its boot before the update is not known"
    if update.reboot_required and state.boot_id == update.boot_id_before:
        return "proof: it has not rebooted"
    if state.healthy_count == 0:
        return f"proof: it is not healthy ({state.verdict_reason})"
    return (
        f"proof: {state.healthy_count} of {deployment.criteria.heartbeats_required} "
        "healthy heartbeats over the confirmation window"
    )


def target_rows(
    deployment: Deployment, targets: list[Target], now: datetime
) -> list[dict[str, Any]]:
    """Return one page of devices with what each is waiting for, by five statements."""
    devices = [target.device_id for target in targets]
    stages = {stage.number: stage for stage in deployment.stages.all()}
    states = DeviceState.objects.in_bulk(devices)
    updates: dict[Any, Update] = {}
    busy: dict[Any, str] = {}
    for update in Update.objects.select_related("firmware", "deployment").filter(
        device__in=devices, closed_at__isnull=True
    ):
        if update.deployment_id == deployment.pk:
            updates[update.device_id] = update
        else:
            busy[update.device_id] = update.deployment.name
    return [
        {
            "deviceId": target.device.device_id,
            "status": target.status,
            "stage": target.stage_number,
            "attempt": target.attempt,
            "fromVersion": target.from_version,
            "progressPercentage": target.progress_percent,
            "waitingFor": waiting_for(
                target,
                deployment,
                stages[target.stage_number],
                updates.get(target.device_id),
                states.get(target.device_id),
                busy.get(target.device_id),
                now,
            ),
            "errorCode": target.error_code,
            "message": target.message,
            "updatedAt": target.updated_at,
        }
        for target in targets
    ]
