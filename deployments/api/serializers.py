"""What comes in and goes out about deployments."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone
from rest_framework import serializers

from deployments.api.references import (
    FirmwareReferenceField,
    firmware_id_of,
    group_ids_of,
)
from deployments.choices import (
    AcknowledgedWarning,
    BusyDevices,
    OfflineDevices,
    OnBlueFailure,
    OnLateBreach,
    OnWarning,
    RollbackScope,
    StageStatus,
    Strategy,
    TargetStatus,
)
from deployments.criteria import HealthCriteria, RollbackThresholds
from deployments.models import Deployment, Target
from deployments.reads.devices import next_step_of
from deployments.services.launch import (
    OFFLINE_DEADLINE,
    DeploymentRequest,
    LaunchWarning,
    Preview,
    predict,
)
from deployments.services.targeting import Audience, Selection
from deployments.strategies.registry import STRATEGIES, make_plan
from deployments.strategies.types import Fleet, ParameterError
from deployments.windows import DAYS, DEVICE_ZONE
from devices.api.serializers import MAX_IDS_A_REQUEST, RegionField, TagsField
from devices.timezones import unknown_zone, zone_named
from hotswap.common.api.serializers import (
    BoundedListField,
    CamelSerializer,
    DurationField,
    StrictBooleanField,
    StrictCharField,
    StrictChoiceField,
    StrictFloatField,
    StrictIntegerField,
    StrictRegexField,
    StrictUUIDField,
    ZonedDateTimeField,
    camelize,
)
from hotswap.common.durations import format_duration

SECOND = timedelta(seconds=1)
ONE_DEVICE = Fleet(1, (("", 1),))
SELECTORS = ("target_devices", "target_groups", "regions", "target_all")


class HealthCriteriaInput(CamelSerializer):
    confirmation_duration = DurationField(required=False, minimum=SECOND)
    heartbeats_required = StrictIntegerField(
        min_value=1, max_value=1000, required=False
    )
    watch_duration = DurationField(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse more heartbeats than one a second over the time of the proof."""
        criteria = HealthCriteria(**attrs)
        most = int(criteria.confirmation_duration.total_seconds()) + 1
        if criteria.heartbeats_required > most:
            span = format_duration(criteria.confirmation_duration)
            said = f"at most {most} fit in confirmationDuration, {span}: one a second"
            raise serializers.ValidationError(
                {"heartbeatsRequired": [said]}, code="invalid"
            )
        return attrs


class RollbackThresholdsInput(CamelSerializer):
    offline_after = DurationField(required=False, minimum=SECOND)
    cpu_usage = StrictFloatField(min_value=0, max_value=100, required=False)
    cpu_duration = DurationField(required=False)
    memory_usage = StrictFloatField(min_value=0, max_value=100, required=False)
    memory_duration = DurationField(required=False)
    error_rate = StrictFloatField(min_value=0, max_value=1, required=False)
    error_duration = DurationField(required=False)
    success_rate = StrictFloatField(min_value=0, max_value=100, required=False)
    minimum_sample = StrictIntegerField(min_value=1, max_value=100_000, required=False)
    minimum_exposure = StrictFloatField(min_value=0, max_value=100, required=False)


class StrategyField(StrictChoiceField):
    """One of the strategies; `Blue-Green`, as in the specification, is BlueGreen."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=Strategy.choices, **kwargs)

    def to_internal_value(self, data: Any) -> Any:
        is_alias = isinstance(data, str) and data.lower() == "blue-green"
        return super().to_internal_value(str(Strategy.BLUE_GREEN) if is_alias else data)


class ClockField(StrictRegexField):
    """A local time of day, `HH:MM`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(r"^([01][0-9]|2[0-3]):[0-5][0-9]\Z", **kwargs)


class ZoneField(StrictCharField):
    """A name of the IANA time zones, or `device` for each device's own."""

    def to_internal_value(self, data: Any) -> str:
        name = super().to_internal_value(data)
        if name != DEVICE_ZONE and zone_named(name) is None:
            raise serializers.ValidationError(
                unknown_zone(name), code="unknown_timezone"
            )
        return name


class MaintenanceWindowInput(CamelSerializer):
    days = BoundedListField(
        child=StrictChoiceField(choices=DAYS), min_length=1, max_length=7
    )
    start = ClockField()
    end = ClockField()
    timezone = ZoneField(max_length=64)


class GreenFleetInput(CamelSerializer):
    """The devices of the green half: those of a group, or those with a tag."""

    group = StrictUUIDField(required=False)
    tag = TagsField(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) != 1:
            raise serializers.ValidationError(
                {
                    name: ["give exactly one of group, tag"]
                    for name in attrs or ("group",)
                },
                code="conflict" if attrs else "required",
            )
        if "tag" in attrs and len(attrs["tag"]) != 1:
            raise serializers.ValidationError(
                {"tag": ["is one tag with its value"]}, code="invalid"
            )
        if "group" in attrs:
            attrs["group"] = str(attrs["group"])
        return attrs


class DeploymentInput(CamelSerializer):
    """A launch. Fields of another strategy are refused."""

    name = StrictCharField(max_length=128, required=False)
    firmware_id = FirmwareReferenceField()
    strategy = StrategyField()
    target_devices = BoundedListField(
        child=StrictCharField(max_length=128),
        min_length=1,
        max_length=MAX_IDS_A_REQUEST,
        required=False,
    )
    target_groups = BoundedListField(
        child=StrictCharField(max_length=128),
        min_length=1,
        max_length=100,
        required=False,
    )
    regions = BoundedListField(
        child=RegionField(), min_length=1, max_length=100, required=False
    )
    target_all = StrictBooleanField(required=False)
    initial_percentage = StrictIntegerField(min_value=1, max_value=100, required=False)
    increments = BoundedListField(
        child=StrictIntegerField(min_value=1, max_value=100),
        max_length=100,
        required=False,
    )
    wait_duration = DurationField(required=False)
    pause_duration = DurationField(required=False)
    health_check_threshold = StrictFloatField(
        min_value=0, max_value=100, required=False
    )
    verification_duration = DurationField(required=False)
    rollback_scope = StrictChoiceField(choices=RollbackScope.choices, required=False)
    green_fleet = GreenFleetInput(required=False)
    switch_hold = DurationField(required=False)
    hold_until_acknowledged = StrictBooleanField(required=False)
    on_blue_failure = StrictChoiceField(choices=OnBlueFailure.choices, required=False)
    batch_size = StrictIntegerField(min_value=1, max_value=100_000, required=False)
    batch_wait_duration = DurationField(required=False)
    max_concurrent_batches = StrictIntegerField(
        min_value=1, max_value=100, required=False
    )
    health_threshold = StrictFloatField(min_value=0, max_value=100, required=False)
    scheduled_at = ZonedDateTimeField(required=False)
    health_criteria = HealthCriteriaInput(required=False)
    rollback_thresholds = RollbackThresholdsInput(required=False)
    on_warning = StrictChoiceField(choices=OnWarning.choices, required=False)
    on_late_breach = StrictChoiceField(choices=OnLateBreach.choices, required=False)
    offline_devices = StrictChoiceField(choices=OfflineDevices.choices, required=False)
    busy_devices = StrictChoiceField(choices=BusyDevices.choices, required=False)
    offline_deadline = DurationField(required=False, minimum=SECOND)
    device_timeout = DurationField(required=False, minimum=SECOND)
    max_attempts = StrictIntegerField(min_value=1, max_value=20, required=False)
    require_approval_per_stage = StrictBooleanField(required=False)
    maintenance_window = MaintenanceWindowInput(required=False)
    max_devices_per_minute = StrictIntegerField(
        min_value=1, max_value=100_000, required=False
    )
    start_spread = DurationField(required=False)
    acknowledge = BoundedListField(
        child=StrictChoiceField(choices=AcknowledgedWarning.choices),
        max_length=100,
        required=False,
        help_text="codes of the warnings with mustAcknowledge; without one that "
        "applies the launch is refused (409)",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        self._check_selectors(attrs)
        self._choose_threshold(attrs)
        attrs["parameters"] = self._parameters(attrs)
        if "scheduled_at" in attrs and attrs["scheduled_at"] < timezone.now():
            raise serializers.ValidationError(
                {"scheduledAt": ["lies in the past"]}, code="invalid"
            )
        self._check_spread(attrs)
        for name, noun in (("target_devices", "device"), ("regions", "region")):
            listed = attrs.get(name, [])
            if len(set(listed)) != len(listed):
                raise serializers.ValidationError(
                    {camelize(name): [f"names a {noun} twice"]}, code="duplicate"
                )
        return attrs

    @staticmethod
    def _choose_threshold(attrs: dict[str, Any]) -> None:
        """Take the gate by its name in the strategy, else the usual one."""
        strategy = attrs["strategy"]
        own = attrs.pop("health_check_threshold", None)
        if own is not None:
            if strategy != Strategy.REGIONAL:
                raise serializers.ValidationError(
                    {
                        "healthCheckThreshold": [
                            f"is not a field of the strategy {strategy}"
                        ]
                    },
                    code="foreign",
                )
            if attrs.setdefault("health_threshold", own) != own:
                raise serializers.ValidationError(
                    {"healthCheckThreshold": ["healthThreshold says something else"]},
                    code="conflict",
                )
        usual = STRATEGIES[strategy].health_threshold_percent
        attrs.setdefault("health_threshold", usual)

    @staticmethod
    def _check_spread(attrs: dict[str, Any]) -> None:
        """Refuse a spread whose last devices would be given up before their turn."""
        deadline = attrs.get("offline_deadline", OFFLINE_DEADLINE)
        if attrs.get("start_spread", timedelta(0)) >= deadline:
            said = f"must be shorter than offlineDeadline, {format_duration(deadline)}"
            raise serializers.ValidationError({"startSpread": [said]}, code="invalid")

    @staticmethod
    def _check_selectors(attrs: dict[str, Any]) -> None:
        given = [name for name in SELECTORS if attrs.get(name)]
        if len(given) != 1:
            names = ", ".join(camelize(name) for name in SELECTORS)
            raise serializers.ValidationError(
                {
                    camelize(name): [f"give exactly one of {names}"]
                    for name in given or ["target_devices"]
                },
                code="required" if not given else "conflict",
            )

    @staticmethod
    def _parameters(attrs: dict[str, Any]) -> dict[str, Any]:
        strategy = attrs["strategy"]
        own = STRATEGIES[strategy].defaults
        foreign = {
            name
            for entry in STRATEGIES.values()
            for name in entry.defaults
            if name not in own and name in attrs
        }
        if foreign:
            raise serializers.ValidationError(
                {
                    camelize(name): [f"is not a field of the strategy {strategy}"]
                    for name in sorted(foreign)
                },
                code="foreign",
            )
        parameters = dict(own)
        for name in own:
            if name in attrs:
                value = attrs.pop(name)
                parameters[name] = (
                    value.total_seconds() if isinstance(value, timedelta) else value
                )
        # A first step at or above some of the default increments leaves those out.
        if "increments" in own and parameters["increments"] is own["increments"]:
            first = parameters["initial_percentage"]
            parameters["increments"] = [s for s in own["increments"] if s > first]
        if strategy == Strategy.REGIONAL:
            parameters["regions"] = list(attrs.get("regions") or settings.REGIONS)
        try:
            make_plan(strategy, ONE_DEVICE, parameters)
        except ParameterError as error:
            raise serializers.ValidationError(
                {error.field: [str(error)]}, code="invalid"
            ) from None
        return parameters


def to_request(given: dict[str, Any]) -> DeploymentRequest:
    """Turn a validated body into the request of the service.

    Raises:
        FirmwareNotDeployableError, IneligibleDevicesError: there is no firmware, or no
            group, of that name (422).
    """
    own = (
        *("firmware_id", *SELECTORS, "health_criteria", "rollback_thresholds"),
        "acknowledge",
    )
    fields = {name: value for name, value in given.items() if name not in own}
    return DeploymentRequest(
        firmware_id=firmware_id_of(given["firmware_id"]),
        selection=Selection(
            device_ids=tuple(given.get("target_devices", ())),
            group_ids=group_ids_of(given.get("target_groups", ())),
            regions=tuple(given.get("regions", ())),
            everyone=bool(given.get("target_all", False)),
        ),
        health_criteria=HealthCriteria(**given.get("health_criteria", {})),
        rollback_thresholds=RollbackThresholds(**given.get("rollback_thresholds", {})),
        acknowledge=frozenset(given.get("acknowledge", ())),
        **fields,
    )


class StageApprovalInput(CamelSerializer):
    comment = StrictCharField(max_length=2000)


class HoldAcknowledgementInput(CamelSerializer):
    comment = StrictCharField(max_length=2000)


class ReasonInput(CamelSerializer):
    reason = StrictCharField(max_length=2000)


class RollbackScopeInput(CamelSerializer):
    """The part that goes back: exactly one of its fields."""

    stage = StrictIntegerField(min_value=1, max_value=10_000, required=False)
    region = StrictCharField(max_length=64, required=False)
    device_ids = BoundedListField(
        child=StrictCharField(max_length=128),
        min_length=1,
        max_length=MAX_IDS_A_REQUEST,
        required=False,
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) != 1:
            names = ", ".join(camelize(str(name)) for name in self.fields)
            raise serializers.ValidationError(
                {
                    camelize(name): [f"give exactly one of {names}"]
                    for name in attrs or ("stage",)
                },
                code="conflict" if attrs else "required",
            )
        listed = attrs.get("device_ids", [])
        if len(set(listed)) != len(listed):
            raise serializers.ValidationError(
                {"deviceIds": ["names a device twice"]}, code="duplicate"
            )
        return attrs


class RollbackInput(ReasonInput):
    """Why, and what if not the whole deployment."""

    scope = RollbackScopeInput(required=False)


class HoldOutput(CamelSerializer):
    fleet = serializers.CharField()
    phase = serializers.CharField()
    follows = serializers.CharField()
    since = serializers.DateTimeField()
    until = serializers.DateTimeField(allow_null=True)


class FleetOutput(CamelSerializer):
    name = serializers.CharField()
    is_live = serializers.BooleanField()
    stage = serializers.IntegerField()
    stage_status = serializers.CharField()
    size = serializers.IntegerField()
    devices = serializers.ListField(
        child=serializers.CharField(), help_text="the first 100"
    )
    devices_url = serializers.CharField()
    statuses = serializers.DictField(child=serializers.IntegerField())


class FleetsOutput(CamelSerializer):
    id = serializers.UUIDField()
    live_fleet = serializers.CharField(allow_null=True)
    hold = HoldOutput(allow_null=True)
    fleets = FleetOutput(many=True)
    counted_at = serializers.DateTimeField()


class StageBrief(CamelSerializer):
    number = serializers.IntegerField()
    name = serializers.CharField()
    size = serializers.IntegerField()
    status = serializers.CharField()


class FirmwareBrief(CamelSerializer):
    id = serializers.UUIDField()
    version = serializers.CharField()


class DeploymentOutput(CamelSerializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    status = serializers.CharField()
    pause_reasons = serializers.ListField(child=serializers.CharField())
    cancel_requested_at = serializers.DateTimeField(allow_null=True)
    strategy = serializers.CharField()
    live_fleet = serializers.SerializerMethodField(method_name="get_live_fleet")
    require_approval_per_stage = serializers.BooleanField()
    maintenance_window = serializers.DictField(allow_null=True)
    max_devices_per_minute = serializers.IntegerField(allow_null=True)
    start_spread = DurationField()
    firmware = FirmwareBrief()
    stages = StageBrief(source="stages.all", many=True)
    target_count = serializers.SerializerMethodField(method_name="get_target_count")
    is_predicted = serializers.BooleanField(
        source="is_waiting",
        help_text="whether targetCount and stages are what they would be if it started "
        "now; lists do not foresee them",
    )
    copied_from = serializers.UUIDField(source="copied_from_id", allow_null=True)
    acknowledged = serializers.ListField(
        child=serializers.CharField(),
        help_text="codes of the warnings that were named at its launch or last edit",
    )
    rollback_reason = serializers.CharField()
    failure_reason = serializers.CharField()
    created_at = serializers.DateTimeField()
    scheduled_at = serializers.DateTimeField(allow_null=True)
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    watching_until = serializers.DateTimeField(allow_null=True)

    def get_live_fleet(self, deployment: Deployment) -> str | None:
        return deployment.live_fleet or None

    def get_target_count(self, deployment: Deployment) -> int | None:
        return None if deployment.is_waiting else deployment.target_count


def predicted_output(deployment: Deployment) -> dict[str, Any]:
    """Show what a waiting deployment would become if it started now; else nothing."""
    if not deployment.is_waiting:
        return {}
    prediction = predict(deployment, timezone.now())
    stages = prediction.plan.stages if prediction.plan else ()
    return {
        "targetCount": prediction.device_count,
        "stages": [
            {
                "number": stage.number,
                "name": stage.name,
                "size": size,
                "status": StageStatus.PENDING.value,
            }
            for stage, size in zip(stages, prediction.sizes, strict=True)
        ],
    }


def deployment_output(deployment: Deployment) -> dict[str, Any]:
    """Show one deployment; of one that waits what it would become."""
    return DeploymentOutput(deployment).data | predicted_output(deployment)


def audience_output(audience: Audience) -> dict[str, Any]:
    """Show who takes part, and why others do not."""
    return {
        "matched": audience.matched,
        "eligible": audience.eligible,
        "excluded": [
            {"deviceId": x.device_id, "code": x.code, "detail": x.detail}
            for x in audience.excluded
        ],
    }


def launch_output(deployment: Deployment, audience: Audience) -> dict[str, Any]:
    """Show whom a launch, or an edit, reaches, and what is easily overlooked."""
    return {
        "targets": audience_output(audience),
        "warnings": warnings_output(audience.warnings),
    }


def created_output(deployment: Deployment, audience: Audience) -> dict[str, Any]:
    """Show a deployment that was just created."""
    return deployment_output(deployment) | launch_output(deployment, audience)


def warnings_output(warnings: tuple[LaunchWarning, ...]) -> list[dict[str, Any]]:
    return [
        {
            "code": each.code,
            "detail": each.detail,
            "count": each.count,
            "mustAcknowledge": each.must_acknowledge,
        }
        for each in warnings
    ]


def preview_output(preview: Preview) -> dict[str, Any]:
    """Show what a launch would do."""
    earlier = 0
    stages = []
    for stage in preview.plan.stages if preview.plan else ():
        stages.append(
            {
                "number": stage.number,
                "name": stage.name,
                "size": stage.boundary - earlier,
                "exposedDevices": stage.boundary,
                "waitSeconds": stage.wait.total_seconds(),
            }
        )
        earlier = stage.boundary
    return {
        "firmware": FirmwareBrief(preview.firmware).data,
        "targets": audience_output(preview.audience),
        "stages": stages,
        "blastRadius": {
            "devices": preview.blast_radius.devices,
            "firstStage": preview.blast_radius.first_stage,
            "online": preview.blast_radius.online,
            "fleet": preview.blast_radius.fleet,
            "percentOfFleet": round(preview.blast_radius.percent_of_fleet, 2),
        },
        "expected": None
        if preview.forecast is None
        else {
            "startsAt": preview.forecast.starts_at,
            "finishesAt": preview.forecast.finishes_at,
            "deviceSeconds": round(preview.forecast.device_time.total_seconds(), 1),
            "measuredUpdates": preview.forecast.measured_updates,
        },
        "warnings": warnings_output(preview.warnings),
    }


class DeploymentBrief(CamelSerializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    status = serializers.CharField()
    strategy = serializers.CharField()
    firmware = FirmwareBrief()
    model = serializers.CharField(source="firmware.model.name")
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class DeviceDeploymentOutput(CamelSerializer):
    """One deployment of a device, and how the device stands in it."""

    deployment = DeploymentBrief()
    status = StrictChoiceField(choices=TargetStatus.choices)
    stage = serializers.IntegerField(source="stage_number")
    attempt = serializers.IntegerField()
    from_version = serializers.CharField()
    error_code = serializers.CharField()
    message = serializers.CharField()
    next_step = serializers.SerializerMethodField(method_name="get_next_step")
    updated_at = serializers.DateTimeField()

    def get_next_step(self, target: Target) -> str:
        return next_step_of(target.deployment, target)


class QuarantineOutput(CamelSerializer):
    device_id = serializers.CharField(source="device.device_id")
    firmware_id = serializers.UUIDField()
    model = serializers.CharField(source="firmware.model.name")
    version = serializers.CharField(source="firmware.version")
    failures = serializers.IntegerField()
    last_error_code = serializers.CharField(source="last_code")
    quarantined_at = serializers.DateTimeField(allow_null=True)


class EventOutput(CamelSerializer):
    id = serializers.IntegerField()
    at = serializers.DateTimeField()
    level = serializers.CharField()
    event = serializers.CharField()
    device_id = serializers.CharField(
        source="device.device_id", default=None, allow_null=True
    )
    stage = serializers.IntegerField(source="stage_number", allow_null=True)
    message = serializers.CharField()
