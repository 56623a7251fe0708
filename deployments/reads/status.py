"""The live status of a deployment."""

from datetime import datetime
from typing import Any

from deployments.models import Deployment, Stage
from deployments.reads.waiting import deployment_waiting
from deployments.services.fleets import hold_output
from deployments.services.progress import (
    StageCounts,
    count_stages,
    estimate_completion,
    shared_counts,
    total_of,
)
from hotswap.common.api.serializers import camelize


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
