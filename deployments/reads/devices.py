"""The devices of a deployment: how each stands, why it waits, what to do about it."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Annotated, Any

from django.db.models import F, Q

from deployments.choices import (
    RETRIABLE,
    DeploymentStatus,
    OrderKind,
    TargetStatus,
)
from deployments.models import Deployment, Target, Update
from deployments.reads.waiting import Surroundings, target_waiting
from deployments.rules.codes import COPY, RETRY, RETRY_LATER, next_step
from health.models import DeviceState
from health.triggers import MEASURES, TRIGGERS
from hotswap.common.wire import Wire

T = TargetStatus


@dataclass(frozen=True, slots=True)
class TargetRow:
    """One device of a deployment: its status, and what it waits for."""

    device_id: str
    status: str
    stage: int
    attempt: int
    from_version: str
    progress_percentage: float | None
    waiting_for: str | None
    waiting_until: datetime | None
    error_code: str
    message: str
    next_step: str
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class KnownBaseline:
    """The baseline check of a device: its last heartbeat before its first order.

    `exempt` names the triggers that its former image exceeded: they are not held
    against the new one.
    """

    status: Annotated[str, Wire(help_text="known")]
    measures: Annotated[dict[str, float | None], Wire(is_flat=True, keys=MEASURES)]
    at: datetime
    exempt: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UnknownBaseline:
    """No baseline check, as no heartbeat was recent: absolute limits alone count."""

    status: Annotated[str, Wire(help_text="unknown")]
    exempt: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TargetDetail(TargetRow):
    """One device of a deployment with its baseline, which is null before its first
    order.
    """

    baseline: KnownBaseline | UnknownBaseline | None


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
) -> list[TargetRow]:
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
            TargetRow(
                device_id=target.device.device_id,
                status=target.status,
                stage=target.stage_number,
                attempt=target.attempt,
                from_version=target.from_version,
                progress_percentage=target.progress_percent,
                waiting_for=waiting.reason if waiting else None,
                waiting_until=waiting.until if waiting else None,
                error_code=target.error_code,
                message=target.message,
                next_step=next_step_of(deployment, target),
                updated_at=target.updated_at,
            )
        )
    return rows


def target_detail(
    deployment: Deployment, target: Target, now: datetime
) -> TargetDetail:
    """Return one device, with what was measured of it before its first order.

    Source: FR-FW-005, Pre-deployment: 1 baseline check.
    """
    (row,) = target_rows(deployment, [target], now)
    order = (
        Update.objects.filter(target=target, kind=OrderKind.INSTALL)
        .order_by("-offered_at")
        .first()
    )
    shown = {field.name: getattr(row, field.name) for field in fields(row)}
    return TargetDetail(
        **shown, baseline=None if order is None else _baseline_of(order)
    )


def _baseline_of(order: Update) -> KnownBaseline | UnknownBaseline:
    kept, exempt = order.baseline, tuple(order.exempt)
    if not kept:
        return UnknownBaseline("unknown", exempt)
    return KnownBaseline(
        status="known",
        measures={each.limit: kept.get(each.field) for each in TRIGGERS},
        at=datetime.fromisoformat(kept["at"]),
        exempt=exempt,
    )
