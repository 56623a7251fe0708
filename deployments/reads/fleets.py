"""The halves of a blue-green deployment, and the hold that it is in."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from uuid import UUID

from deployments.models import Deployment
from deployments.services.fleets import STAGES, current_hold, fleet_details
from deployments.services.progress import StageCounts, count_stages
from deployments.strategies.holds import POINTS
from hotswap.common.wire import Wire, camelize


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold: the deployment waits until a half of the fleet has drained."""

    fleet: str
    phase: str
    follows: str
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Fleet:
    """One half of the fleet, with the counts of its devices by status."""

    name: str
    is_live: bool
    stage: int
    stage_status: str
    size: int
    devices: Annotated[tuple[str, ...], Wire(help_text="the first 100")]
    devices_url: str
    statuses: dict[str, int]


@dataclass(frozen=True, slots=True)
class Fleets:
    """Both halves of a blue-green deployment."""

    id: UUID
    live_fleet: str | None
    hold: Hold | None
    fleets: tuple[Fleet, ...]
    counted_at: datetime


def deployment_hold(deployment: Deployment) -> Hold | None:
    """Return the hold that the deployment is in, if it is in one."""
    hold = current_hold(deployment)
    if hold is None:
        return None
    follows = POINTS[hold.phase].follows
    return Hold(hold.fleet, hold.phase, follows, hold.since, hold.until)


def deployment_fleets(deployment: Deployment, now: datetime) -> Fleets:
    """Return both halves with the counts of their devices, and where those are listed.

    `devices` are the first hundred names of each, by rank.
    """
    counts = count_stages(deployment)
    devices = f"/api/v1/deployments/{deployment.pk}/devices"
    stages = {stage.number: stage for stage in deployment.stages.all()}
    fleets = []
    for fleet, number in STAGES.items():
        if number not in stages:
            continue
        details = fleet_details(deployment, fleet)
        count = counts.get(number, StageCounts())
        fleets.append(
            Fleet(
                name=str(fleet),
                is_live=deployment.live_fleet == fleet,
                stage=number,
                stage_status=stages[number].status,
                size=details["total"],
                devices=tuple(each["id"] for each in details["devices"]),
                devices_url=f"{devices}?stage={number}",
                statuses={
                    camelize(status): each for status, each in count.by_status.items()
                },
            )
        )
    return Fleets(
        id=deployment.pk,
        live_fleet=deployment.live_fleet or None,
        hold=deployment_hold(deployment),
        fleets=tuple(fleets),
        counted_at=now,
    )
