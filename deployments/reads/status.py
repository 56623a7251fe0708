"""The live status of a deployment."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from uuid import UUID

from deployments.choices import TargetStatus
from deployments.models import Deployment, Stage
from deployments.reads.estimate import Estimate, estimate_completion
from deployments.reads.fleets import Hold, deployment_hold
from deployments.reads.shared_counts import shared_counts
from deployments.reads.waiting import deployment_waiting
from deployments.services.progress import StageCounts, count_stages, total_of
from hotswap.common.wire import FLAT, Wire

NO_DEVICES = StageCounts()


@dataclass(frozen=True, slots=True)
class StatusCounts:
    """Devices by status, and all of them."""

    total: int
    pending: int
    notified: int
    downloading: int
    verifying: int
    installing: int
    rebooting: int
    confirming: int
    success: int
    failed: int
    rolling_back: int
    rolled_back: int
    skipped: int
    cancelled: int

    @property
    def by_status(self) -> dict[str, int]:
        """The counts by the words of `TargetStatus`."""
        return {status: getattr(self, status) for status in TargetStatus.values}


@dataclass(frozen=True, slots=True)
class CurrentStage:
    """The highest stage that was opened, and what it waits for."""

    number: int
    of: int
    name: str
    status: str
    opened_at: datetime | None
    next_check_at: datetime | None
    waiting_for: str


@dataclass(frozen=True, slots=True)
class StageProgress:
    """One stage with its devices, those that were given an order and all."""

    number: int
    name: str
    status: str
    size: int
    opened_at: datetime | None
    passed_at: datetime | None
    estimated_completion_at: Annotated[
        datetime | None, Wire(help_text="null: it is over, or nobody can know")
    ]
    warning: str
    exposed: Annotated[int, Wire(help_text="devices that were given an order")]
    success_rate: Annotated[
        float | None, Wire(help_text="percent of the devices whose outcome is known")
    ]
    counts: Annotated[StatusCounts, FLAT]


@dataclass(frozen=True, slots=True)
class LiveStatus:
    """The status of a deployment with its numbers; percent is 0-100."""

    id: UUID
    name: str
    status: str
    pause_reasons: tuple[str, ...]
    cancel_requested_at: datetime | None
    waiting_for: str | None
    waiting_until: datetime | None
    strategy: str
    firmware_version: str
    live_fleet: str | None
    hold: Hold | None
    stage: CurrentStage | None
    progress: StatusCounts
    percent_complete: float
    success_rate: Annotated[
        float | None, Wire(help_text="percent of the devices whose outcome is known")
    ]
    health_threshold: float
    rollback_reason: str
    failure_reason: str
    estimated_completion_at: datetime | None
    estimate_basis: Annotated[str | None, Wire(help_text="forecast or measured")]
    started_at: datetime | None
    finished_at: datetime | None
    watching_until: datetime | None
    counted_at: Annotated[
        datetime, Wire(help_text="the counts of a large deployment are up to 1.5 s old")
    ]
    stages: tuple[StageProgress, ...]


def status_counts(counts: StageCounts) -> StatusCounts:
    """Return the counts of a stage, or of all, by status."""
    return StatusCounts(total=counts.total, **counts.by_status)


def current_stage(stages: list[Stage]) -> Stage | None:
    """Return the highest stage that was opened."""
    opened = [stage for stage in stages if stage.opened_at is not None]
    return opened[-1] if opened else None


def stage_progress(
    stage: Stage, counts: StageCounts, estimate: Estimate | None
) -> StageProgress:
    """Return a stage with the counts of its devices."""
    rate = counts.success_rate
    return StageProgress(
        number=stage.number,
        name=stage.name,
        status=stage.status,
        size=stage.size,
        opened_at=stage.opened_at,
        passed_at=stage.passed_at,
        estimated_completion_at=estimate.stages.get(stage.number) if estimate else None,
        warning=stage.warning,
        exposed=counts.exposed,
        success_rate=None if rate is None else round(rate, 2),
        counts=status_counts(counts),
    )


def deployment_status(
    deployment: Deployment, now: datetime, *, may_share: bool = False
) -> LiveStatus:
    """Return the live status, with its numbers counted for this answer.

    Args:
        may_share: the counts of a large deployment may be those of another answer, up
            to 1.5 s old; `counted_at` says so.

    Source: FR-FW-007; docs/monitoring.md.
    """
    stages = list(deployment.stages.all())
    counts, counted_at = (
        shared_counts(deployment, now) if may_share else (count_stages(deployment), now)
    )
    total = total_of(counts)
    rate = total.success_rate
    stage = current_stage(stages)
    waiting = deployment_waiting(deployment)
    estimate = estimate_completion(deployment, stages, counts, now)
    return LiveStatus(
        id=deployment.pk,
        name=deployment.name,
        status=deployment.status,
        pause_reasons=tuple(deployment.pause_reasons),
        cancel_requested_at=deployment.cancel_requested_at,
        waiting_for=waiting.reason if waiting else None,
        waiting_until=waiting.until if waiting else None,
        strategy=deployment.strategy,
        firmware_version=deployment.firmware.version,
        live_fleet=deployment.live_fleet or None,
        hold=deployment_hold(deployment),
        stage=None
        if stage is None
        else CurrentStage(
            number=stage.number,
            of=len(stages),
            name=stage.name,
            status=stage.status,
            opened_at=stage.opened_at,
            next_check_at=deployment.next_check_at,
            waiting_for=deployment.waiting_for,
        ),
        progress=status_counts(total),
        percent_complete=round(total.percent_complete, 2),
        success_rate=None if rate is None else round(rate, 2),
        health_threshold=deployment.health_threshold,
        rollback_reason=deployment.rollback_reason,
        failure_reason=deployment.failure_reason,
        estimated_completion_at=estimate.at if estimate else None,
        estimate_basis=estimate.basis if estimate else None,
        started_at=deployment.started_at,
        finished_at=deployment.finished_at,
        watching_until=deployment.watching_until,
        counted_at=counted_at,
        stages=tuple(
            stage_progress(each, counts.get(each.number, NO_DEVICES), estimate)
            for each in stages
        ),
    )
