"""What a launch would do, or has done: whom it reaches, and what is overlooked."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from deployments.services.preview import Preview
from deployments.services.targeting import Audience, LaunchWarning
from deployments.strategies.types import Plan


@dataclass(frozen=True, slots=True)
class FirmwareName:
    """The firmware of a launch."""

    id: UUID
    version: str


@dataclass(frozen=True, slots=True)
class ExcludedDevice:
    """A device that is excluded, and why."""

    device_id: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Targets:
    """Numbers of devices selected and eligible, and the exclusions with their reasons.

    Of a list of devices all that are excluded are named; else the first hundred.
    """

    matched: int
    eligible: int
    excluded: tuple[ExcludedDevice, ...]


@dataclass(frozen=True, slots=True)
class PreviewedStage:
    """A stage as it would be; `exposed_devices` counts the earlier ones, too."""

    number: int
    name: str
    size: int
    exposed_devices: int
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class BlastRadius:
    """Numbers of devices that a bad image could reach; `fleet` is all of the model."""

    devices: int
    first_stage: int
    online: int
    fleet: int
    percent_of_fleet: float


@dataclass(frozen=True, slots=True)
class ExpectedEnd:
    """The forecast of the end, if nothing goes wrong."""

    starts_at: datetime
    finishes_at: datetime
    device_seconds: float
    measured_updates: int


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning; some must be acknowledged by their code in `acknowledge`."""

    code: str
    detail: str
    count: int
    must_acknowledge: bool


@dataclass(frozen=True, slots=True)
class LaunchPreview:
    """The dry run of a launch."""

    firmware: FirmwareName
    targets: Targets
    stages: tuple[PreviewedStage, ...]
    blast_radius: BlastRadius
    expected: ExpectedEnd | None
    warnings: tuple[Warned, ...]


@dataclass(frozen=True, slots=True)
class LaunchReach:
    """The targets and the warnings of a launch or an edit."""

    targets: Targets
    warnings: tuple[Warned, ...]


def launch_reach(audience: Audience) -> LaunchReach:
    """Return whom a launch, or an edit, reaches, and what is easily overlooked."""
    return LaunchReach(_targets(audience), _warnings(audience.warnings))


def launch_preview(preview: Preview) -> LaunchPreview:
    """Return what a launch would do, with the size of each stage."""
    radius, forecast = preview.blast_radius, preview.forecast
    return LaunchPreview(
        firmware=FirmwareName(preview.firmware.pk, preview.firmware.version),
        targets=_targets(preview.audience),
        stages=_stages(preview.plan),
        blast_radius=BlastRadius(
            devices=radius.devices,
            first_stage=radius.first_stage,
            online=radius.online,
            fleet=radius.fleet,
            percent_of_fleet=round(radius.percent_of_fleet, 2),
        ),
        expected=None
        if forecast is None
        else ExpectedEnd(
            starts_at=forecast.starts_at,
            finishes_at=forecast.finishes_at,
            device_seconds=round(forecast.device_time.total_seconds(), 1),
            measured_updates=forecast.measured_updates,
        ),
        warnings=_warnings(preview.warnings),
    )


def _targets(audience: Audience) -> Targets:
    excluded = tuple(
        ExcludedDevice(each.device_id, each.code, each.detail)
        for each in audience.excluded
    )
    return Targets(audience.matched, audience.eligible, excluded)


def _stages(plan: Plan | None) -> tuple[PreviewedStage, ...]:
    stages = plan.stages if plan else ()
    earlier = (0, *(stage.boundary for stage in stages))
    return tuple(
        PreviewedStage(
            number=stage.number,
            name=stage.name,
            size=stage.boundary - before,
            exposed_devices=stage.boundary,
            wait_seconds=stage.wait.total_seconds(),
        )
        for stage, before in zip(stages, earlier, strict=False)
    )


def _warnings(warnings: tuple[LaunchWarning, ...]) -> tuple[Warned, ...]:
    return tuple(
        Warned(each.code, each.detail, each.count, each.must_acknowledge)
        for each in warnings
    )
