"""Rollbacks of a part of a deployment that goes on beside them.

Rules:
- An operator names the part: a stage, a region, or devices. Nothing else is touched.
- What goes back so is no evidence: it counts neither for nor against the gate, and it
  is not tried again by this deployment. What had failed by itself stays a failure.
- The devices prove their former image as in any rollback. When the last of them has
  settled, the log says how many are back.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db.models import Count

from deployments.choices import (
    UNFINISHED,
    DeploymentStatus,
    Level,
    LiveFleet,
    Strategy,
    TargetStatus,
)
from deployments.exceptions import (
    FleetIsLiveError,
    NothingToRollBackError,
    UnknownScopeError,
)
from deployments.models import Deployment, Rollback, Target
from deployments.notifications.enqueue import NAMED_DEVICES
from deployments.rules.events import EventName
from deployments.scopes import Scope
from deployments.services import sweeps
from deployments.services.fleets import STAGES
from deployments.services.log import log
from deployments.services.rollbacks import (
    exposed_targets,
    in_scope,
    keep_rollback,
    lost_targets,
)
from devices.models import Device
from hotswap.common.errors import FieldError
from hotswap.common.pluralize import counted
from hotswap.common.wire import to_wire

RETURNED = (
    TargetStatus.ROLLING_BACK,
    TargetStatus.ROLLED_BACK,
    TargetStatus.SKIPPED,
    TargetStatus.CANCELLED,
)


def stage_names(deployment: Deployment) -> dict[int, str]:
    return dict(deployment.stages.values_list("number", "name"))


def scope_details(scope: Scope) -> dict[str, Any]:
    """Return what a notification tells of the scope of a rollback."""
    if not scope.devices:
        return {"scope": to_wire(scope.described())}
    names = (
        Device.objects.filter(pk__in=scope.devices, erased_at__isnull=True)
        .order_by("device_id")
        .values_list("device_id", flat=True)[:NAMED_DEVICES]
    )
    return {
        "scope": to_wire(scope.described()),
        "devices": [{"id": name} for name in names],
        "total": len(scope.devices),
    }


def begin_partial_rollback(
    deployment: Deployment, scope: Scope, *, reason: str, now: datetime
) -> Rollback:
    """Order a part of a deployment back; the caller holds its lock.

    Raises:
        FleetIsLiveError: it is the half that serves.
        NothingToRollBackError: no device of the part has the new image or may have it.

    Source: FR-FW-006, manual rollback.
    """
    if deployment.live_fleet and STAGES[LiveFleet(deployment.live_fleet)] in (
        scope.stages
    ):
        raise FleetIsLiveError(
            f"the {deployment.live_fleet} fleet serves: roll back the whole "
            "deployment, which switches first"
        )
    concerned = in_scope(exposed_targets(deployment), scope)
    if not concerned.exclude(status__in=RETURNED).exists():
        raise NothingToRollBackError(
            "no device of this part was given the new firmware, or all went back"
        )
    rollback = keep_rollback(
        deployment,
        reason=reason,
        now=now,
        stage_number=None,
        scope=scope,
    )
    what = scope.in_words(stage_names(deployment))
    log(
        deployment,
        EventName.ROLLBACK_STARTED,
        f"{what} alone: {reason}",
        now=now,
        level=Level.WARNING,
        stage_number=scope.stages[0] if len(scope.stages) == 1 else None,
        details=scope_details(scope),
    )
    count = sweeps.send_back(deployment, now, scope, withdraws=True)
    log_ordered(deployment, count, now)
    if deployment.status == DeploymentStatus.COMPLETED:
        # The tick looks after it until they are back, however long it was over.
        deployment.watching_until = deployment.watching_until or now
    deployment.updated_at = now
    deployment.save(update_fields=["watching_until", "updated_at"])
    return rollback


def log_ordered(deployment: Deployment, count: int, now: datetime) -> None:
    """Log how many devices were newly ordered back, if any were."""
    if count:
        log(
            deployment,
            EventName.ROLLBACK_ORDERED,
            f"{counted(count, 'device is', 'devices are')} ordered back to former"
            " firmware",
            now=now,
        )


def continue_partial_rollbacks(deployment: Deployment, now: datetime) -> None:
    """Go on with the rollbacks of parts, and end those whose devices have settled."""
    unfinished = Rollback.objects.filter(
        deployment=deployment, finished_at__isnull=True, ends_deployment=False
    )
    for rollback in unfinished.order_by("pk"):
        scope = Scope.from_json(rollback.scope)
        sweeps.send_back(deployment, now, scope, withdraws=True)
        targets = in_scope(Target.objects.filter(deployment=deployment), scope)
        if not targets.filter(status__in=UNFINISHED).exists():
            _finish(deployment, rollback, scope, now)


def _finish(
    deployment: Deployment, rollback: Rollback, scope: Scope, now: datetime
) -> None:
    rollback.finished_at = now
    rollback.save(update_fields=["finished_at"])
    names = stage_names(deployment)
    log(
        deployment,
        EventName.ROLLBACK_FINISHED,
        f"{scope.in_words(names)}: {outcome_in_words(deployment, scope)}",
        now=now,
        level=Level.ERROR if lost_in(deployment, scope) else Level.INFO,
        details=scope_details(scope),
    )


def ending_in_words(deployment: Deployment, scope: Scope) -> str:
    """Say which stages are back on their former firmware, and which stay on the new."""
    proved = dict(
        Target.objects.filter(deployment=deployment, status=TargetStatus.SUCCESS)
        .values_list("stage_number")
        .annotate(Count("pk"))
        .order_by()
    )
    names = stage_names(deployment)
    back = " and ".join(names[number] for number in sorted(scope.stages))
    stay = [
        f"{names[number]} ({counted(count, 'device')})"
        for number, count in sorted(proved.items())
    ]
    version = deployment.firmware.version
    if deployment.live_fleet == LiveFleet.GREEN:
        message = f"{back} is back on its former firmware"
        return f"{message}; green serves on {version}" if stay else message
    message = f"{back} went back to the former firmware"
    return f"{message}; {', '.join(stay)} on {version} as before" if stay else message


def lost_in(deployment: Deployment, scope: Scope) -> int:
    """Count the devices of a part that are not known to run their former image."""
    return in_scope(lost_targets(deployment), scope).count()


def outcome_in_words(deployment: Deployment, scope: Scope) -> str:
    """Say how many devices of a part are back on their former firmware."""
    lost = lost_in(deployment, scope)
    back = (
        in_scope(exposed_targets(deployment), scope)
        .filter(status=TargetStatus.ROLLED_BACK)
        .count()
    )
    message = f"{counted(back, 'device')} proved the former firmware"
    if lost:
        message += f", {counted(lost, 'device has', 'devices have')} not"
    return message


def resolve_scope(deployment: Deployment, asked: Mapping[str, Any]) -> Scope:
    """Turn what a person names into a scope.

    Args:
        asked: one of `stage` (its number), `region`, and `device_ids` (their names).

    Raises:
        UnknownScopeError: the deployment has no such stage, no device of the region,
            or not each of the devices; names the field.
    """
    if "stage" in asked:
        return _stage_scope(deployment, asked["stage"])
    if "region" in asked:
        return _region_scope(deployment, asked["region"])
    return _device_scope(deployment, asked["device_ids"])


def _stage_scope(deployment: Deployment, number: int) -> Scope:
    if not deployment.stages.filter(number=number).exists():
        raise UnknownScopeError.at(
            "/scope/stage", "unknown_stage", f"no stage {number}"
        )
    return Scope(stages=(number,))


def _region_scope(deployment: Deployment, region: str) -> Scope:
    if deployment.strategy == Strategy.REGIONAL:
        # Its stages are the regions as they were frozen at the start.
        numbers = deployment.stages.filter(name=region).values_list("number", flat=True)
        if numbers:
            return Scope(stages=tuple(numbers))
    elif Target.objects.filter(deployment=deployment, device__region=region).exists():
        return Scope(region=region)
    raise UnknownScopeError.at(
        "/scope/region", "unknown_region", f"no device of the region {region!r}"
    )


def _device_scope(deployment: Deployment, names: Sequence[str]) -> Scope:
    found = dict(
        Target.objects.filter(
            deployment=deployment, device__device_id__in=names
        ).values_list("device__device_id", "device_id")
    )
    missing = [
        FieldError(
            f"/scope/deviceIds/{index}",
            "unknown_device",
            f"{name!r} is not part of this deployment",
        )
        for index, name in enumerate(names)
        if name not in found
    ]
    if missing:
        raise UnknownScopeError(
            f"{len(missing)} of the named devices are not part of this deployment",
            errors=missing,
        )
    return Scope(devices=tuple(found[name] for name in names))
