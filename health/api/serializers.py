"""What comes in and goes out about health."""

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from health.baseline import CONFIDENCES
from health.choices import HealthEvent, SecureBoot
from health.heartbeat import (
    CHECKSUM,
    MAX_BOOT_ID_LENGTH,
    MAX_METRIC_NAME_LENGTH,
    MAX_SEQUENCE,
    MAX_UPTIME_SECONDS,
    MAX_VERSION_LENGTH,
)
from health.services.heartbeats import HeartbeatAnswer
from health.triggers import FIELDS, TRIGGERS
from hotswap.common.api.serializers import (
    CamelSerializer,
    StrictCharField,
    StrictChoiceField,
    StrictFloatField,
    StrictIntegerField,
    StrictRegexField,
    ZonedDateTimeField,
)
from hotswap.common.lenient import named


class ChecksumField(StrictRegexField):
    """A SHA-256 in lower hexadecimal digits."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(CHECKSUM, **kwargs)


class HeartbeatInput(CamelSerializer):
    """What a heartbeat may say; `health.heartbeat` reads it, more leniently.

    At least one of `bootId`, `firmwareVersion` and `firmwareChecksum` is needed.
    """

    takes_unknown = True

    uptime = StrictIntegerField(
        min_value=0, max_value=MAX_UPTIME_SECONDS, required=False
    )
    boot_id = StrictCharField(max_length=MAX_BOOT_ID_LENGTH, required=False)
    sequence = StrictIntegerField(min_value=0, max_value=MAX_SEQUENCE, required=False)
    firmware_version = StrictCharField(max_length=MAX_VERSION_LENGTH, required=False)
    firmware_checksum = ChecksumField(required=False)
    application_metrics = serializers.DictField(
        child=StrictFloatField(), required=False
    )
    secure_boot = StrictChoiceField(choices=SecureBoot.choices, required=False)
    other_slot_checksum = ChecksumField(
        required=False,
        allow_null=True,
        allow_blank=True,
        help_text="of the image that the device keeps beside the running one and can "
        "go back to by itself, empty for none: with the first heartbeat of a boot and "
        "at each change",
    )

    def get_fields(self) -> dict[str, Any]:
        measures = {
            each.field: StrictFloatField(
                min_value=each.minimum, max_value=each.maximum, required=False
            )
            for each in FIELDS
        }
        return {**measures, **super().get_fields()}


class IgnoredOutput(CamelSerializer):
    """A part of the message that was ignored: its JSON pointer, and why."""

    pointer = serializers.CharField()
    code = serializers.CharField()


class HeartbeatOutput(CamelSerializer):
    update_available = serializers.BooleanField()
    next_heartbeat_seconds = serializers.IntegerField()
    applied = serializers.BooleanField(
        required=False,
        help_text="false where it does not come from the boot that the device is in",
    )
    ignored = IgnoredOutput(
        many=True, required=False, help_text="only if anything was ignored"
    )


def heartbeat_output(answer: HeartbeatAnswer) -> dict[str, Any]:
    """Answer a heartbeat; what went as it should is not mentioned."""
    shown: dict[str, Any] = {
        "updateAvailable": answer.update_available,
        "nextHeartbeatSeconds": answer.next_heartbeat_seconds,
    }
    if not answer.applied:
        shown["applied"] = False
    if answer.ignored:
        shown["ignored"] = named(answer.ignored)
    return shown


@extend_schema_field({"type": "object", "additionalProperties": {"type": "number"}})
class NumbersField(serializers.DictField):
    """Numbers by name, each as it was sent."""


class UsualOutput(CamelSerializer):
    """Mean and standard deviation, in the unit of the measure.

    Of fewer than ten reports the deviation is wider than their own.
    """

    mean = serializers.FloatField()
    spread = serializers.FloatField()


class BaselineOutput(CamelSerializer):
    """The baseline of the device; null where it is not known."""

    since = serializers.DateTimeField()
    confidence = StrictChoiceField(
        choices=CONFIDENCES,
        help_text="medium from five healthy reports on, high from ten on",
    )

    def get_fields(self) -> dict[str, Any]:
        measures = {
            each.field: UsualOutput(allow_null=each.is_optional) for each in TRIGGERS
        }
        return {**super().get_fields(), **measures}


class RefusedOutput(CamelSerializer):
    """Heartbeats that were refused since the last that was taken."""

    count = serializers.IntegerField()
    last_at = serializers.DateTimeField()
    reason = serializers.CharField()


class HealthOutput(CamelSerializer):
    device_id = StrictCharField()
    connectivity = StrictChoiceField(choices=["online", "offline"])
    last_seen_at = serializers.DateTimeField(
        allow_null=True, help_text="of the last heartbeat, poll or report"
    )
    status = StrictChoiceField(choices=["Healthy", "Degraded", "Unhealthy", "Unknown"])
    reason = serializers.CharField()
    firmware_version = serializers.CharField()
    uptime = serializers.IntegerField(allow_null=True)
    last_heartbeat = serializers.DateTimeField(allow_null=True)
    application_metrics = NumbersField()
    baseline = BaselineOutput(allow_null=True)
    baseline_samples = serializers.IntegerField()
    refused_heartbeats = RefusedOutput(allow_null=True)
    duplicate_identity_at = serializers.DateTimeField(
        allow_null=True, help_text="when two boards were last heard under its identity"
    )

    def get_fields(self) -> dict[str, Any]:
        measures = {
            each.field: serializers.FloatField(allow_null=True) for each in FIELDS
        }
        return {**super().get_fields(), **measures}


class DeviceEventOutput(CamelSerializer):
    at = serializers.DateTimeField()
    level = StrictChoiceField(choices=["INFO", "WARNING"])
    event = StrictChoiceField(choices=HealthEvent.choices)
    message = serializers.CharField()


class MeanAndMaxOutput(CamelSerializer):
    mean = serializers.FloatField()
    max = serializers.FloatField()


class HealthPointOutput(CamelSerializer):
    """The heartbeats of one bucket, which begins at `at`."""

    at = serializers.DateTimeField()
    readings = serializers.IntegerField()
    application_metrics = serializers.DictField(
        child=MeanAndMaxOutput(), help_text="the `metric` that was asked for"
    )
    boots = serializers.IntegerField()

    def get_fields(self) -> dict[str, Any]:
        measures = {each.field: MeanAndMaxOutput(allow_null=True) for each in TRIGGERS}
        return {**super().get_fields(), **measures}


class HealthMarkerOutput(CamelSerializer):
    at = serializers.DateTimeField()
    firmware_version = serializers.CharField()


class HealthSpanOutput(CamelSerializer):
    to = serializers.DateTimeField()

    def get_fields(self) -> dict[str, Any]:
        # `from` is a word of the language, so it cannot be declared as an attribute.
        return {"from": serializers.DateTimeField(), **super().get_fields()}


class HealthHistoryOutput(HealthSpanOutput):
    """`gaps`: silences longer than those of a device that is online."""

    device_id = StrictCharField()
    bucket_seconds = serializers.IntegerField()
    points = HealthPointOutput(many=True)
    gaps = HealthSpanOutput(many=True)
    updates = HealthMarkerOutput(many=True)


def read_history_query(given: Mapping[str, str]) -> dict[str, Any]:
    """Read the query parameters `from`, `to` and `metric`, as far as they are given.

    Returns:
        `since`, `until` and `metric`, as `device_history` takes them.

    Raises:
        ValidationError: names each that is wrong.
    """
    fields: dict[str, tuple[str, serializers.Field[Any, Any, Any, Any]]] = {
        "from": ("since", ZonedDateTimeField()),
        "to": ("until", ZonedDateTimeField()),
        "metric": (
            "metric",
            StrictCharField(max_length=MAX_METRIC_NAME_LENGTH, trim_whitespace=False),
        ),
    }
    found: dict[str, Any] = {}
    wrong: dict[str, Any] = {}
    for name, (argument, field) in fields.items():
        if name in given:
            try:
                found[argument] = field.run_validation(given[name])
            except serializers.ValidationError as error:
                wrong[name] = error.detail
    if wrong:
        raise serializers.ValidationError(wrong)
    return found
