"""The health report of a deployment: all that is to be said about it in one answer."""

from datetime import datetime
from typing import Any

from django.db import connection

from deployments.choices import TargetStatus
from deployments.models import Deployment, Event, Target
from deployments.reads.devices import next_step_of, way_to_try_again
from deployments.reads.metrics import (
    MAX_DEVICES,
    deployment_health,
    throughput,
    update_durations,
)
from deployments.reads.rollback_report import deployment_rollback
from deployments.reads.status import deployment_status
from deployments.rules.codes import OPERATOR_CODES, next_step

MAX_EVENTS = 1000
GONE_WRONG = (TargetStatus.FAILED, TargetStatus.ROLLING_BACK, TargetStatus.ROLLED_BACK)


def failure_reasons(deployment: Deployment) -> list[dict[str, Any]]:
    """Return why devices failed or went back, the most frequent reason first."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT error_code, count(*), min(message), count(*) FILTER (
                WHERE status = 'rolled_back')
            FROM deployments_target
            WHERE deployment_id = %s AND status = ANY(%s)
              AND error_code <> '' AND error_code <> ALL(%s)
            GROUP BY error_code
            ORDER BY count(*) DESC, error_code
            """,
            [
                deployment.pk,
                [str(status) for status in GONE_WRONG],
                sorted(OPERATOR_CODES),
            ],
        )
        return [
            {
                "errorCode": code,
                "devices": count,
                "rolledBack": back,
                "example": said,
                "nextStep": next_step(code, way_to_try_again(deployment)),
            }
            for code, count, said, back in cursor.fetchall()
        ]


def _failed_devices(deployment: Deployment) -> dict[str, Any]:
    """Return the first devices of those that failed or went back."""
    wrong = Target.objects.filter(
        deployment=deployment, status__in=GONE_WRONG, device__erased_at__isnull=True
    )
    return {
        "total": wrong.count(),
        "devices": [
            {
                "deviceId": target.device.device_id,
                "status": target.status,
                "stage": target.stage_number,
                "attempts": target.attempt,
                "fromVersion": target.from_version,
                "errorCode": target.error_code,
                "message": target.message,
                "nextStep": next_step_of(deployment, target),
                "updatedAt": target.updated_at,
            }
            for target in wrong.select_related("device").order_by("rank")[:MAX_DEVICES]
        ],
    }


def health_report(deployment: Deployment, now: datetime) -> dict[str, Any]:
    """Return all that is to be said about a deployment, under way or over.

    Source: FR-FW-007, health report.
    """
    status = deployment_status(deployment, now)
    rows = {stage.number: stage for stage in deployment.stages.all()}
    firmware = deployment.firmware
    events = Event.objects.filter(deployment=deployment, device__isnull=True)
    return {
        "deployment": {
            "id": status["id"],
            "name": deployment.name,
            "status": deployment.status,
            "strategy": deployment.strategy,
            "createdBy": deployment.created_by.username
            if deployment.created_by
            else None,
            "createdAt": deployment.created_at,
            "scheduledAt": deployment.scheduled_at,
            "startedAt": deployment.started_at,
            "finishedAt": deployment.finished_at,
            "rollbackReason": deployment.rollback_reason,
            "failureReason": deployment.failure_reason,
        },
        "firmware": {
            "id": str(firmware.pk),
            "version": firmware.version,
            "model": firmware.model.name,
            "checksum": firmware.sha256,
        },
        "plan": {
            "strategy": deployment.strategy,
            "matched": deployment.matched_count,
            "targets": deployment.target_count,
            "stages": len(rows),
            "healthThreshold": deployment.health_threshold,
        },
        "progress": status["progress"],
        "percentComplete": status["percentComplete"],
        "successRate": status["successRate"],
        "stages": [
            stage
            | {
                "waitSeconds": rows[stage["number"]].wait_seconds,
                "settledAt": rows[stage["number"]].settled_at,
                "approvedAt": rows[stage["number"]].approved_at,
                "gate": {
                    "threshold": deployment.health_threshold,
                    "actual": round(100 * stage["success"] / stage["exposed"], 2)
                    if stage["exposed"]
                    else None,
                },
            }
            for stage in status["stages"]
        ],
        "failures": failure_reasons(deployment),
        "failedDevices": _failed_devices(deployment),
        "durations": update_durations(deployment),
        "throughput": throughput(deployment, now),
        "health": {
            name: value
            for name, value in deployment_health(deployment, now).items()
            if name not in ("id", "status", "countedAt")
        },
        "rollback": deployment_rollback(deployment),
        "timeline": [
            {
                "at": event.at,
                "level": event.level,
                "event": event.event,
                "stage": event.stage_number,
                "message": event.message,
            }
            for event in events.order_by("id")[:MAX_EVENTS]
        ],
        "countedAt": now,
    }
