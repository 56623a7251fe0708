"""The fleets of a blue-green deployment: which one serves, and when one is to drain.

Rules:
- What a load balancer is told names the devices, the first hundred and how many there
  are, and where all of them are listed.
- A hold is a row with its end. The tick notes that it is over; nothing waits for it.
"""

from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import F

from deployments.choices import LiveFleet
from deployments.models import Deployment, Hold, Target
from deployments.notifications.enqueue import NAMED_DEVICES
from deployments.rules.events import EventName
from deployments.services.log import log
from deployments.strategies.blue_green import BLUE_STAGE, GREEN_STAGE
from deployments.strategies.types import HoldPoint

STAGES = {LiveFleet.BLUE: BLUE_STAGE, LiveFleet.GREEN: GREEN_STAGE}


def fleet_details(deployment: Deployment, fleet: str) -> dict[str, Any]:
    """Return what a notification tells of a fleet and its devices."""
    members = Target.objects.filter(
        deployment=deployment,
        stage_number=STAGES[LiveFleet(fleet)],
        device__erased_at__isnull=True,
    )
    names = members.order_by("rank").values_list("device__device_id", flat=True)
    page = f"/api/v1/deployments/{deployment.pk}/fleets"
    return {
        "fleet": str(fleet),
        "devices": [{"id": name} for name in names[:NAMED_DEVICES]],
        "total": members.count(),
        "fleetsUrl": str(settings.PUBLIC_URL or "").rstrip("/") + page,
    }


def begin_hold(
    deployment: Deployment, point: HoldPoint, until: datetime | None, now: datetime
) -> None:
    """Hold a fleet before something is done to it; the caller holds the lock."""
    Hold.objects.create(
        deployment=deployment,
        phase=point.phase,
        fleet=point.fleet,
        since=now,
        until=until,
    )
    end = (
        "until that is acknowledged"
        if until is None
        else f"until {until:%Y-%m-%d %H:%M:%S} UTC, or until that is acknowledged"
    )
    log(
        deployment,
        EventName.DRAINING,
        f"the {point.fleet} fleet is to drain, {end}; then {point.follows}",
        now=now,
        details={
            **fleet_details(deployment, point.fleet),
            "phase": point.phase,
            "until": None if until is None else _stamp(until),
        },
    )


def end_holds(deployment: Deployment, now: datetime, *, is_moot: bool = False) -> None:
    """Note the holds whose time is over, or all where nothing follows any more."""
    if not deployment.live_fleet:
        return
    open_holds = Hold.objects.filter(deployment=deployment, ended_at__isnull=True)
    if is_moot:
        open_holds.update(ended_at=now)
    else:
        open_holds.filter(until__lte=now).update(ended_at=F("until"))


def current_hold(deployment: Deployment) -> Hold | None:
    """Return the hold that the deployment is in, if it is in one."""
    if not deployment.live_fleet or deployment.finished_at is not None:
        return None
    return deployment.holds.filter(ended_at__isnull=True).last()


def _stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
