"""What people send of deployments, checked alike for API and console."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone
from rest_framework import serializers

from deployments.choices import (
    AcknowledgedWarning,
    BusyDevices,
    OfflineDevices,
    OnLateBreach,
    OnWarning,
    Strategy,
)
from deployments.criteria import HealthCriteria, RollbackThresholds
from deployments.models import MAX_TAG_LENGTH
from deployments.references import (
    FirmwareReferenceField,
    firmware_id_of,
    group_ids_of,
)
from deployments.services.labelling import MAX_TAGS
from deployments.services.requests import OFFLINE_DEADLINE, DeploymentRequest, Selection
from deployments.strategies.fields import Field, Kind
from deployments.strategies.registry import STRATEGIES, make_plan
from deployments.strategies.types import Fleet, ParameterError
from deployments.windows import DAYS, DEVICE_ZONE
from devices.inputs import MAX_IDS_A_REQUEST, RegionField, TagsField
from devices.timezones import unknown_zone, zone_named
from health.triggers import TRIGGERS
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
)
from hotswap.common.api.signatures import SignatureInput
from hotswap.common.durations import format_duration
from hotswap.common.wire import camelize

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
            message = (
                f"at most {most} fit in confirmationDuration, {span}: one a second"
            )
            raise serializers.ValidationError(
                {"heartbeatsRequired": [message]}, code="invalid"
            )
        return attrs


class RollbackThresholdsInput(CamelSerializer):
    offline_after = DurationField(required=False, minimum=SECOND)
    success_rate = StrictFloatField(min_value=0, max_value=100, required=False)
    minimum_sample = StrictIntegerField(min_value=1, max_value=100_000, required=False)
    minimum_exposure = StrictFloatField(min_value=0, max_value=100, required=False)

    def get_fields(self) -> dict[str, Any]:
        limits: dict[str, Any] = {}
        for each in TRIGGERS:
            limits[each.field] = StrictFloatField(
                source=each.limit,
                min_value=each.minimum,
                max_value=each.maximum,
                required=False,
            )
            limits[camelize(each.duration)] = DurationField(
                source=each.duration, required=False
            )
        return {**super().get_fields(), **limits}


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


def _input_of(field: Field, **options: Any) -> serializers.Field:
    """Return what the API takes for a declared field of a strategy."""
    match field.kind:
        case Kind.INTEGER:
            return StrictIntegerField(
                min_value=field.minimum, max_value=field.maximum, **options
            )
        case Kind.INTEGERS:
            each = StrictIntegerField(min_value=field.minimum, max_value=field.maximum)
            return BoundedListField(child=each, max_length=100, **options)
        case Kind.DURATION:
            return DurationField(**options)
        case Kind.BOOLEAN:
            return StrictBooleanField(**options)
        case Kind.CHOICE:
            return StrictChoiceField(choices=field.choices, **options)
        case Kind.FLEET:
            return GreenFleetInput(**options)


GATE_ALIASES = {each.gate_alias for each in STRATEGIES.values()} - {""}


def strategy_inputs() -> Iterator[tuple[str, serializers.Field]]:
    """Yield a new field for each that a strategy declares, by its name."""

    def options(name: str) -> dict[str, Any]:
        is_renamed = camelize(name) != name
        return {"required": False} | ({"source": name} if is_renamed else {})

    for strategy in STRATEGIES.values():
        for field in strategy.fields:
            yield field.name, _input_of(field, **options(field.name))
    for alias in GATE_ALIASES:
        yield (
            alias,
            StrictFloatField(min_value=0, max_value=100, **options(alias)),
        )


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

    def get_fields(self) -> dict[str, Any]:
        """Add what the strategies declare."""
        return super().get_fields() | {
            camelize(name): field for name, field in strategy_inputs()
        }

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
        strategy = STRATEGIES[attrs["strategy"]]
        for alias in GATE_ALIASES & attrs.keys():
            given = attrs.pop(alias)
            if alias != strategy.gate_alias:
                raise serializers.ValidationError(
                    {
                        camelize(alias): [
                            f"is not a field of the strategy {strategy.name}"
                        ]
                    },
                    code="foreign",
                )
            if attrs.setdefault("health_threshold", given) != given:
                raise serializers.ValidationError(
                    {camelize(alias): ["healthThreshold says something else"]},
                    code="conflict",
                )
        attrs.setdefault("health_threshold", strategy.health_threshold_percent)

    @staticmethod
    def _check_spread(attrs: dict[str, Any]) -> None:
        """Refuse a spread whose last devices would be given up before their turn."""
        deadline = attrs.get("offline_deadline", OFFLINE_DEADLINE)
        if attrs.get("start_spread", timedelta(0)) >= deadline:
            message = (
                f"must be shorter than offlineDeadline, {format_duration(deadline)}"
            )
            raise serializers.ValidationError(
                {"startSpread": [message]}, code="invalid"
            )

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
        if STRATEGIES[strategy].orders_regions:
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
        rollback_thresholds=RollbackThresholds.of(
            **given.get("rollback_thresholds", {})
        ),
        acknowledge=frozenset(given.get("acknowledge", ())),
        **fields,
    )


class StageApprovalInput(CamelSerializer):
    comment = StrictCharField(max_length=2000)
    signature = SignatureInput(required=False)


class HoldAcknowledgementInput(CamelSerializer):
    comment = StrictCharField(max_length=2000)


class LabelsInput(CamelSerializer):
    """What a deployment is called, and whether lists show it."""

    name = StrictCharField(max_length=128, required=False)
    tags = BoundedListField(
        child=StrictCharField(max_length=MAX_TAG_LENGTH),
        max_length=MAX_TAGS,
        required=False,
        help_text="all that it has from then on",
    )
    archived = StrictBooleanField(
        required=False,
        help_text="of one that has ended: whether lists hide it",
    )


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
    signature = SignatureInput(required=False)
