"""What a pack tells of a deployment: plan, stages, outcome and proof of each device."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.utils import timezone

from deployments.exceptions import DeploymentNotFoundError
from deployments.models import Deployment, Event, Stage
from deployments.reads.device_lines import device_lines, order_lines
from deployments.reads.health_report import health_report
from deployments.reads.rollback_report import deployment_rollbacks
from firmware.services.evidence import firmware_files
from hotswap.common.durations import format_duration
from hotswap.common.evidence.export import export_evidence, person, plain
from hotswap.common.evidence.pack import EvidenceFile, json_file, ndjson_file
from hotswap.common.models import User
from hotswap.common.wire import to_wire

CHUNK = 2000


def deployment_evidence(*, actor: User, deployment_id: UUID) -> Iterator[bytes]:
    """Give the evidence pack of a deployment; that it goes out is audited.

    Raises:
        DeploymentNotFoundError: there is none.
    """
    deployment = (
        Deployment.objects.select_related("firmware__model", "created_by")
        .filter(pk=deployment_id)
        .first()
    )
    if deployment is None:
        raise DeploymentNotFoundError("there is no such deployment")
    return export_evidence(
        actor=actor,
        kind="deployment",
        object_id=deployment.pk,
        subject={"id": str(deployment.pk), "name": deployment.name},
        files=_files(deployment),
    )


def _files(deployment: Deployment) -> list[EvidenceFile]:
    now = timezone.now()
    return [
        json_file("deployment.json", plain(_described(deployment))),
        json_file("health-report.json", plain(to_wire(health_report(deployment, now)))),
        json_file(
            "rollbacks.json", plain(to_wire(deployment_rollbacks(deployment, now)))
        ),
        EvidenceFile(
            "devices.csv", (line.encode() for line in device_lines(deployment))
        ),
        EvidenceFile("orders.csv", (line.encode() for line in order_lines(deployment))),
        ndjson_file("log.ndjson", _log(deployment)),
        *firmware_files(deployment.firmware),
    ]


def _described(deployment: Deployment) -> dict[str, Any]:
    """Return what was asked for, by whom, and how each stage went."""
    return {
        "id": deployment.pk,
        "name": deployment.name,
        "firmwareId": deployment.firmware_id,
        "strategy": deployment.strategy,
        "parameters": deployment.parameters,
        "selection": deployment.selection,
        "healthCriteria": deployment.health_criteria,
        "rollbackThresholds": deployment.rollback_thresholds,
        "healthThreshold": deployment.health_threshold,
        "onWarning": deployment.on_warning,
        "onLateBreach": deployment.on_late_breach,
        "offlineDevices": deployment.offline_devices,
        "busyDevices": deployment.busy_devices,
        "offlineDeadline": format_duration(deployment.offline_deadline),
        "deviceTimeout": format_duration(deployment.device_timeout),
        "maxAttempts": deployment.max_attempts,
        "requireApprovalPerStage": deployment.require_approval_per_stage,
        "maintenanceWindow": deployment.maintenance_window,
        "maxDevicesPerMinute": deployment.max_devices_per_minute,
        "acknowledged": deployment.acknowledged,
        "status": deployment.status,
        "pauseReasons": deployment.pause_reasons,
        "rollbackReason": deployment.rollback_reason,
        "failureReason": deployment.failure_reason,
        "targets": deployment.target_count,
        "createdBy": person(deployment.created_by),
        "createdAt": deployment.created_at,
        "scheduledAt": deployment.scheduled_at,
        "startedAt": deployment.started_at,
        "rollbackStartedAt": deployment.rollback_started_at,
        "finishedAt": deployment.finished_at,
        "watchingUntil": deployment.watching_until,
        "stages": [
            _described_stage(stage)
            for stage in deployment.stages.select_related("approved_by")
        ],
    }


def _described_stage(stage: Stage) -> dict[str, Any]:
    return {
        "number": stage.number,
        "name": stage.name,
        "size": stage.size,
        "status": stage.status,
        "openedAt": stage.opened_at,
        "settledAt": stage.settled_at,
        "passedAt": stage.passed_at,
        "warning": stage.warning,
        "approvedBy": person(stage.approved_by),
        "approvedAt": stage.approved_at,
    }


def _log(deployment: Deployment) -> Iterator[dict[str, Any]]:
    events = Event.objects.filter(deployment=deployment).select_related("device")
    for event in events.order_by("pk").iterator(CHUNK):
        yield {
            "at": event.at.isoformat(),
            "level": event.level,
            "event": event.event,
            "stage": event.stage_number,
            "deviceId": event.device.device_id if event.device else None,
            "message": event.message,
        }
