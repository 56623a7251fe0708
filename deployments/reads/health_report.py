"""The health report of a deployment: all that is to be said about it in one answer."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Annotated
from uuid import UUID

from django.db import connection

from deployments.choices import TargetStatus
from deployments.models import Deployment, Event, Stage, Target
from deployments.reads.devices import next_step_of, way_to_try_again
from deployments.reads.metrics import (
    MAX_DEVICES,
    DeploymentHealth,
    Throughput,
    UpdateDurations,
    deployment_health,
    throughput,
    update_durations,
)
from deployments.reads.rollback_report import RollbackAccount, deployment_rollback
from deployments.reads.status import StageProgress, StatusCounts, deployment_status
from deployments.rules.codes import OPERATOR_CODES, next_step
from hotswap.common.wire import Wire

MAX_EVENTS = 1000
GONE_WRONG = (TargetStatus.FAILED, TargetStatus.ROLLING_BACK, TargetStatus.ROLLED_BACK)


@dataclass(frozen=True, slots=True)
class ReportedDeployment:
    """The deployment that a report is about."""

    id: UUID
    name: str
    status: str
    strategy: str
    created_by: Annotated[str | None, Wire(help_text="null: a person since erased")]
    created_at: datetime
    scheduled_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    rollback_reason: str
    failure_reason: str


@dataclass(frozen=True, slots=True)
class ReportedFirmware:
    """The firmware of the deployment."""

    id: UUID
    version: str
    model: str
    checksum: str


@dataclass(frozen=True, slots=True)
class ReportedPlan:
    """The plan of the deployment in numbers."""

    strategy: str
    matched: int
    targets: int
    stages: int
    health_threshold: float


@dataclass(frozen=True, slots=True)
class GateResult:
    """The gate of a stage: required and reached percent of its exposed devices."""

    threshold: float
    actual: float | None


@dataclass(frozen=True, slots=True)
class ReportedStage(StageProgress):
    """One stage with its gate."""

    wait_seconds: float
    settled_at: datetime | None
    approved_at: datetime | None
    gate: GateResult


@dataclass(frozen=True, slots=True)
class FailureReason:
    """Why devices failed or went back, and what to do about it."""

    error_code: str
    devices: int
    rolled_back: int
    example: str
    next_step: str


@dataclass(frozen=True, slots=True)
class FailedDevice:
    """A device that failed or went back."""

    device_id: str
    status: str
    stage: int
    attempts: int
    from_version: str
    error_code: str
    message: str
    next_step: str
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class FailedDevices:
    """The number of affected devices, and the first 1000 by name."""

    total: int
    devices: tuple[FailedDevice, ...]


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """An event of the deployment as a whole."""

    at: datetime
    level: str
    event: str
    stage: int | None
    message: str


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The health report of a deployment, running or finished."""

    deployment: ReportedDeployment
    firmware: ReportedFirmware
    plan: ReportedPlan
    progress: StatusCounts
    percent_complete: float
    success_rate: float | None
    stages: tuple[ReportedStage, ...]
    failures: tuple[FailureReason, ...]
    failed_devices: FailedDevices
    durations: UpdateDurations
    throughput: Throughput | None
    health: DeploymentHealth
    rollback: RollbackAccount | None
    timeline: tuple[TimelineEvent, ...]
    counted_at: datetime


def failure_reasons(deployment: Deployment) -> tuple[FailureReason, ...]:
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
        again = way_to_try_again(deployment)
        return tuple(
            FailureReason(code, count, back, message, next_step(code, again))
            for code, count, message, back in cursor.fetchall()
        )


def _failed_devices(deployment: Deployment) -> FailedDevices:
    """Return the first devices of those that failed or went back."""
    wrong = Target.objects.filter(
        deployment=deployment, status__in=GONE_WRONG, device__erased_at__isnull=True
    )
    return FailedDevices(
        total=wrong.count(),
        devices=tuple(
            FailedDevice(
                device_id=target.device.device_id,
                status=target.status,
                stage=target.stage_number,
                attempts=target.attempt,
                from_version=target.from_version,
                error_code=target.error_code,
                message=target.message,
                next_step=next_step_of(deployment, target),
                updated_at=target.updated_at,
            )
            for target in wrong.select_related("device").order_by("rank")[:MAX_DEVICES]
        ),
    )


def _reported_stage(
    stage: StageProgress, row: Stage, health_threshold: float
) -> ReportedStage:
    shown = {field.name: getattr(stage, field.name) for field in fields(stage)}
    rate = 100 * stage.counts.success / stage.exposed if stage.exposed else None
    return ReportedStage(
        **shown,
        wait_seconds=row.wait_seconds,
        settled_at=row.settled_at,
        approved_at=row.approved_at,
        gate=GateResult(health_threshold, None if rate is None else round(rate, 2)),
    )


def health_report(deployment: Deployment, now: datetime) -> HealthReport:
    """Return all that is to be said about a deployment, in progress or over.

    Source: FR-FW-007, health report.
    """
    status = deployment_status(deployment, now)
    rows = {stage.number: stage for stage in deployment.stages.all()}
    firmware = deployment.firmware
    events = Event.objects.filter(deployment=deployment, device__isnull=True)
    author = deployment.created_by
    return HealthReport(
        deployment=ReportedDeployment(
            id=deployment.pk,
            name=deployment.name,
            status=deployment.status,
            strategy=deployment.strategy,
            created_by=author.username if author else None,
            created_at=deployment.created_at,
            scheduled_at=deployment.scheduled_at,
            started_at=deployment.started_at,
            finished_at=deployment.finished_at,
            rollback_reason=deployment.rollback_reason,
            failure_reason=deployment.failure_reason,
        ),
        firmware=ReportedFirmware(
            id=firmware.pk,
            version=firmware.version,
            model=firmware.model.name,
            checksum=firmware.sha256,
        ),
        plan=ReportedPlan(
            strategy=deployment.strategy,
            matched=deployment.matched_count,
            targets=deployment.target_count,
            stages=len(rows),
            health_threshold=deployment.health_threshold,
        ),
        progress=status.progress,
        percent_complete=status.percent_complete,
        success_rate=status.success_rate,
        stages=tuple(
            _reported_stage(each, rows[each.number], deployment.health_threshold)
            for each in status.stages
        ),
        failures=failure_reasons(deployment),
        failed_devices=_failed_devices(deployment),
        durations=update_durations(deployment),
        throughput=throughput(deployment, now),
        health=deployment_health(deployment, now),
        rollback=deployment_rollback(deployment),
        timeline=tuple(
            TimelineEvent(
                at=event.at,
                level=event.level,
                event=event.event,
                stage=event.stage_number,
                message=event.message,
            )
            for event in events.order_by("id")[:MAX_EVENTS]
        ),
        counted_at=now,
    )
