"""The tick: find what is due and move each deployment one step.

Rules:
- A tick recomputes everything from facts. Running it twice, late, or on three servers
  at once changes nothing.
- Each deployment moves in a short transaction of its own, under its lock; one that
  another tick holds is left to it.
"""

import logging
import time
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from deployments.choices import DeploymentStatus
from deployments.models import Deployment
from deployments.services.advance import advance_running, advance_watch
from deployments.services.launch import launch_scheduled
from deployments.services.log import context_of, noted_events
from deployments.services.rollback_course import advance_rollback
from deployments.services.ticked import record
from deployments.services.traces import note_tick
from hotswap.common.log_context import bound
from hotswap.common.services import record_run, running_since

logger = logging.getLogger(__name__)
TICK_JOB = "deployments-tick"
TOUCH_SECONDS = 2.0


def tick(*, now: datetime | None = None) -> int:
    """Advance every deployment that is active or watched; count them."""
    is_real = now is None
    now = now or timezone.now()
    awake_since = record_run(name=TICK_JOB, now=now)
    return _advance_all(now, awake_since, is_regular=is_real)


def tick_early(*, now: datetime | None = None) -> int:
    """Do what a tick does, and leave its clock alone.

    Whether beat and worker do their work is told from the regular ticks: where these
    stand still, nothing is done.
    """
    now = now or timezone.now()
    awake_since = running_since(name=TICK_JOB, now=now)
    if awake_since is None:
        return 0
    return _advance_all(now, awake_since, is_regular=False)


def _advance_all(now: datetime, awake_since: datetime, *, is_regular: bool) -> int:
    """Advance every deployment that is active or watched; count them.

    Args:
        is_regular: the clock of the ticks is touched while it lasts.
    """
    record.note_tick(now)
    touched_at = time.monotonic()
    looked_at = 0
    ids = (
        Deployment.objects.moved_by_ticks()
        .order_by("created_at")
        .values_list("pk", flat=True)
    )
    for deployment_id in list(ids):
        # A long tick runs all the while: nobody shall take it for a standstill.
        if is_regular and time.monotonic() - touched_at > TOUCH_SECONDS:
            record_run(name=TICK_JOB, now=timezone.now())
            touched_at = time.monotonic()
        try:
            if advance_deployment(deployment_id, now, awake_since):
                looked_at += 1
                record.note_deployment(deployment_id, now)
        except Exception:
            # One deployment that cannot be advanced must not hold up the others; the
            # next tick tries it again, and the log shouts every time.
            logger.exception(
                "Deployment could not be advanced",
                extra={"deploymentId": str(deployment_id)},
            )
    return looked_at


def advance_deployment(
    deployment_id: UUID, now: datetime, awake_since: datetime
) -> bool:
    """Move one deployment as far as the facts allow.

    Args:
        awake_since: since when ticks have run without a gap. Every clock that measures
            a device starts there at the earliest, so that an outage of the server is
            not held against the fleet.

    Returns:
        False when another tick holds it, or it has ended and is not watched any more.
    """
    with transaction.atomic():
        deployment = (
            Deployment.objects.select_for_update(
                skip_locked=True, of=("self",), no_key=True
            )
            .select_related("firmware__model")
            .filter(pk=deployment_id)
            .first()
        )
        if deployment is None:
            return False
        started = time.monotonic()
        with bound(**context_of(deployment)), noted_events() as events:
            is_looked_at = _advance(deployment, now, awake_since)
        if events:
            took = timedelta(seconds=time.monotonic() - started)
            note_tick(deployment, now, now + took, events)
    return is_looked_at


def _advance(deployment: Deployment, now: datetime, awake_since: datetime) -> bool:
    match deployment.status:
        case DeploymentStatus.SCHEDULED:
            if deployment.scheduled_at is not None and deployment.scheduled_at <= now:
                launch_scheduled(deployment, now)
        case DeploymentStatus.RUNNING | DeploymentStatus.PAUSED:
            advance_running(deployment, now, awake_since)
        case DeploymentStatus.ROLLING_BACK:
            advance_rollback(deployment, now, awake_since)
        case _ if deployment.watching_until is not None:
            advance_watch(deployment, now, awake_since)
        case _:
            return False
    return True
