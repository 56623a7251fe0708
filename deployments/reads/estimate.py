"""When a running deployment will be over."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Avg, DurationField, ExpressionWrapper, F

from deployments.choices import DeploymentStatus, StageStatus, TargetStatus
from deployments.models import Deployment, Stage, Target
from deployments.services.progress import (
    StageCounts,
    hold_rule_of,
    holds_of,
    plan_of,
    total_of,
    usual_device_time,
)
from deployments.strategies.holds import FORWARD

T = TargetStatus


@dataclass(frozen=True, slots=True)
class Estimate:
    """The expected end of a deployment; `basis` is `forecast` or `measured`.

    `stages` has the expected end of each stage that is not over, by its number; it is
    empty where a pace stretches them.
    """

    at: datetime
    basis: str
    stages: Mapping[int, datetime]


def estimate_completion(
    deployment: Deployment,
    stages: list[Stage],
    counts: dict[int, StageCounts],
    now: datetime,
    device_times: Mapping[UUID, timedelta] | None = None,
    usual_times: Mapping[UUID, timedelta] | None = None,
) -> Estimate | None:
    """Estimate the end of a running deployment.

    By how long its own devices took (`measured`); until one has proved the update, by
    what earlier updates of the model took (`forecast`), as in a preview. Each open or
    coming stage takes one mean device time plus its wait; the part of it that has
    passed is taken off. Stages that run side by side share their time. Holds take
    theirs; one that waits for a person has no end to be estimated.

    Args:
        device_times, usual_times: how long devices of each deployment took, and those
            of each model usually do, where many deployments are estimated at once; read
            here otherwise.
    """
    if deployment.status != DeploymentStatus.RUNNING:
        return None
    held = _time_of_holds(deployment, now)
    if held is None:
        return None
    total = total_of(counts)
    mean: timedelta | None = None
    if total.succeeded:
        if device_times is None:
            device_times = measured_device_times([deployment.pk])
        mean = device_times.get(deployment.pk)
    basis = "forecast" if mean is None else "measured"
    if mean is None:
        model = deployment.firmware.model_id
        mean = (usual_times or {}).get(model) or usual_device_time(model)[0]
    mean += deployment.start_spread
    ends = _stage_ends(deployment, stages, now, mean, held)
    end = max(ends.values(), default=now + held)
    if deployment.max_devices_per_minute:
        pending = total.by_status[T.PENDING]
        minutes = pending / deployment.max_devices_per_minute
        end = max(end, now + timedelta(minutes=minutes) + mean)
        # The pace is that of all stages together.
        ends = {}
    return Estimate(end, basis, ends)


def measured_device_times(
    deployment_ids: Collection[UUID],
) -> dict[UUID, timedelta]:
    """Return how long the proved devices of each deployment took from order to proof.

    Those without a proved device are left out.
    """
    took = ExpressionWrapper(
        F("settled_at") - F("exposed_at"), output_field=DurationField()
    )
    found = (
        Target.objects.filter(
            deployment__in=deployment_ids, status=T.SUCCESS, exposed_at__isnull=False
        )
        .order_by()
        .values_list("deployment")
        .annotate(mean=Avg(took))
    )
    return dict(found)


def _stage_ends(
    deployment: Deployment,
    stages: list[Stage],
    now: datetime,
    mean: timedelta,
    held: timedelta,
) -> dict[int, datetime]:
    """Return when each stage that is not over is expected to be, by its number."""
    in_flight = plan_of(deployment, stages).in_flight
    end = now + held
    ends = {}
    for stage in stages:
        if stage.status in (StageStatus.PASSED, StageStatus.FAILED):
            continue
        wait = timedelta(seconds=stage.wait_seconds)
        if stage.opened_at is None:
            end += (mean + wait) / in_flight
        elif stage.settled_at is not None:
            end = max(end, stage.settled_at + wait)
        else:
            end = max(end, stage.opened_at + mean, now) + wait
        ends[stage.number] = end
    return ends


def _time_of_holds(deployment: Deployment, now: datetime) -> timedelta | None:
    """Return how long the holds on the way to the end still take; None: unknown."""
    rule = hold_rule_of(deployment)
    if rule is None:
        return timedelta()
    known = holds_of(deployment)
    ahead = [
        known.get(point.phase)
        for point in FORWARD
        if point.phase not in known or not known[point.phase].is_over
    ]
    if ahead and rule.until_acknowledged:
        return None
    left = [
        rule.duration if hold is None or hold.until is None else hold.until - now
        for hold in ahead
    ]
    return sum((max(each, timedelta()) for each in left), timedelta())
