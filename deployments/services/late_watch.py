"""The watch after the end of a deployment (FR-FW-005, Post-deployment).

Rules:
- For `watchDuration` after its end, every device that runs the firmware of a deployment
  because of it is judged by its limits. A device that a later deployment has given an
  order to is watched by that one.
- A breach sends the device back, and is notified.
- A stage of a completed deployment that falls below its rollback threshold sends the
  whole deployment back, unless `onLateBreach` says that devices go back alone.
- The watch ends when its time is over and every device that went back has settled.
"""

from datetime import datetime

from deployments.choices import (
    DeploymentStatus,
    OnLateBreach,
    OrderKind,
    TargetStatus,
    UpdateStatus,
)
from deployments.models import Deployment, Target, Update
from deployments.rules.events import EventName
from deployments.services import sweeps
from deployments.services.log import log
from deployments.services.progress import read_facts
from deployments.strategies.decide import decide
from deployments.strategies.types import RollBack
from health.services.watching import HEARTBEATS_EXPECTED, unwatch, watch_on
from hotswap.common.pluralize import counted


def begin(deployment: Deployment, now: datetime) -> None:
    """Watch on whoever runs the firmware, and nobody else; the caller saves.

    Source: FR-FW-005, every 60 seconds for 1 hour after the deployment.
    """
    orders = Update.objects.filter(deployment=deployment)
    proved = orders.filter(
        kind=OrderKind.INSTALL,
        status=UpdateStatus.SUCCESS,
        target__status=TargetStatus.SUCCESS,
    )
    unwatch(watch_ids=orders.exclude(pk__in=proved.values("pk")).values("pk"), now=now)
    until = now + deployment.criteria.watch_duration
    interval = deployment.late_heartbeat_interval
    count = watch_on(
        watch_ids=proved.values("pk"),
        now=now,
        until=until,
        interval=interval,
        # At this pace a single heartbeat that is lost is no silence yet.
        offline_after=max(
            deployment.thresholds.offline_after, interval * HEARTBEATS_EXPECTED
        ),
    )
    deployment.watching_until = until if count else None


def resume(deployment: Deployment, now: datetime) -> None:
    """Watch as while it was open, because it is open again; the caller saves."""
    watch_on(
        watch_ids=Update.objects.filter(deployment=deployment).values("pk"),
        now=now,
        until=None,
        interval=deployment.heartbeat_interval,
        offline_after=deployment.thresholds.offline_after,
    )
    deployment.watching_until = None


def advance(
    deployment: Deployment, now: datetime, awake_since: datetime
) -> RollBack | None:
    """Judge the devices that are watched, and move those that go back.

    The caller holds the lock of the deployment.

    Returns:
        Why the whole deployment is to go back, if it is.
    """
    departed = sweeps.find_departed(deployment)
    sweeps.unwatch_moved_on(deployment, departed, now)
    failed = sweeps.fail_breached(deployment, now)
    failed += sweeps.fail_fallen_back(deployment, departed, now)
    is_returning = _is_returning(deployment)
    if is_returning:
        sweeps.end_erased(deployment, now)
        sweeps.prove(deployment, now)
        sweeps.fail_timed_out(deployment, now, awake_since)
        sweeps.fail_unproved(deployment, now, awake_since)
        sweeps.give_up_returns(deployment, now, awake_since)
        is_returning = _is_returning(deployment)
    if (
        failed
        and deployment.status == DeploymentStatus.COMPLETED
        and deployment.on_late_breach == OnLateBreach.DEPLOYMENT
    ):
        facts = read_facts(deployment)
        decision = decide(facts.plan, facts.gate, facts.progress, now, is_paused=True)
        if isinstance(decision, RollBack):
            return decision
    assert deployment.watching_until is not None
    if now >= deployment.watching_until and not is_returning:
        _end(deployment, now)
    return None


def _is_returning(deployment: Deployment) -> bool:
    numbers = deployment.stages.values_list("number", flat=True)
    return Target.objects.filter(
        deployment=deployment,
        # Named one by one: the index begins with them.
        stage_number__in=list(numbers),
        status=TargetStatus.ROLLING_BACK,
    ).exists()


def _end(deployment: Deployment, now: datetime) -> None:
    unwatch(
        watch_ids=Update.objects.filter(deployment=deployment).values("pk"), now=now
    )
    deployment.watching_until = None
    deployment.updated_at = now
    deployment.save(update_fields=["watching_until", "updated_at"])
    proved = Target.objects.filter(
        deployment=deployment, status=TargetStatus.SUCCESS
    ).count()
    log(
        deployment,
        EventName.WATCH_ENDED,
        f"the watch after its end is over: {counted(proved, 'device')} of it "
        f"{'keeps' if proved == 1 else 'keep'} {deployment.firmware.version}",
        now=now,
    )
