"""What a launch would do, and what one that waits for its time would become.

Nothing is written.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from deployments.models import Deployment
from deployments.services.launch import (
    deployable,
    plan_for,
    refuse_list,
    request_of,
)
from deployments.services.launch_warnings import launch_warnings
from deployments.services.progress import usual_device_time
from deployments.services.refusals import (
    check_green_group,
    check_groups,
    unknown_devices,
)
from deployments.services.requests import DeploymentRequest
from deployments.services.targeting import Audience, LaunchWarning, choose_devices
from deployments.strategies.forecast import forecast
from deployments.strategies.types import Plan
from devices.models import Device
from firmware.models import Firmware
from hotswap.common.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a launch would be over if nothing goes wrong.

    `measured_updates` tells from how many proved updates of the model the time that a
    device takes was taken; 0 where it is the specification's.
    """

    starts_at: datetime
    finishes_at: datetime
    device_time: timedelta
    measured_updates: int


@dataclass(frozen=True, slots=True)
class BlastRadius:
    """How many devices a bad image could reach: at once, and before it is done.

    `fleet` counts all devices of the model, `online` those that take part and are
    heard now.
    """

    devices: int
    first_stage: int
    online: int
    fleet: int

    @property
    def percent_of_fleet(self) -> float:
        return 100 * self.devices / self.fleet if self.fleet else 0.0


@dataclass(frozen=True, slots=True)
class Preview:
    """What a launch would do; nothing is written."""

    firmware: Firmware
    audience: Audience
    plan: Plan | None
    blast_radius: BlastRadius
    forecast: Forecast | None = None
    warnings: tuple[LaunchWarning, ...] = ()


def preview_deployment(*, request: DeploymentRequest, now: datetime) -> Preview:
    """Say what a launch would do, without doing it."""
    firmware = deployable(request.firmware_id)
    check_groups(request.selection)
    check_green_group(request.green_fleet)
    chosen = choose_devices(request, firmware, now)
    if unknown_devices(request.selection):
        refuse_list(request, chosen.audience)
    audience, judged = chosen.audience.shortened(), chosen.judged
    plan = plan_for(request, chosen.fleet)
    return Preview(
        firmware,
        audience,
        plan,
        BlastRadius(
            devices=audience.eligible,
            first_stage=plan.stages[0].boundary if plan else 0,
            online=judged.filter(exclusion="", state__online_until__gt=now).count(),
            fleet=Device.objects.filter(model=firmware.model_id).count(),
        ),
        _forecast(request, firmware, plan, now) if plan else None,
        launch_warnings(request, judged, firmware, audience.eligible, now),
    )


def _forecast(
    request: DeploymentRequest, firmware: Firmware, plan: Plan, now: datetime
) -> Forecast:
    """Say when it would be over, by what updates of this model took lately."""
    device_time, measured = usual_device_time(firmware.model_id)
    starts_at = max(now, request.scheduled_at or now)
    return Forecast(
        starts_at=starts_at,
        finishes_at=starts_at
        + forecast(
            plan,
            device_time=device_time,
            spread=request.start_spread,
            devices_per_minute=request.max_devices_per_minute,
        ),
        device_time=device_time,
        measured_updates=measured,
    )


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a deployment that waits for its time would become if it started now."""

    device_count: int
    plan: Plan | None

    @property
    def sizes(self) -> list[int]:
        """How many devices each stage would have."""
        stages = self.plan.stages if self.plan else ()
        earlier = (0, *(stage.boundary for stage in stages))
        return [
            stage.boundary - before
            for stage, before in zip(stages, earlier, strict=False)
        ]


def predict(deployment: Deployment, now: datetime) -> Prediction:
    """Count the devices of a waiting deployment, and plan for them."""
    request = request_of(deployment)
    fleet = choose_devices(request, deployment.firmware, now).fleet
    try:
        plan = plan_for(request, fleet)
    except InvalidInputError:
        # As at its start, which would fail: so many devices do not fit the strategy.
        plan = None
    return Prediction(fleet.device_count, plan)
