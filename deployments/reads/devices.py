"""The devices of a deployment: how each stands, why it waits, what to do about it."""

from datetime import datetime
from typing import Any

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

T = TargetStatus


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
