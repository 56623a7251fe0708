"""What comes in and goes out about health."""

import re
from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from firmware.api.serializers import VersionField
from health.baseline import CONFIDENCES
from health.choices import SecureBoot
from hotswap.common.api.serializers import (
    CamelSerializer,
    StrictCharField,
    StrictChoiceField,
    StrictFloatField,
    StrictIntegerField,
    StrictRegexField,
)

MAX_APPLICATION_METRICS = 64
MAX_METRIC_NAME_LENGTH = 64
MAX_UPTIME_SECONDS = 2**53
CHECKSUM = re.compile(r"^[0-9a-f]{64}\Z")
BOOT_ID = re.compile(r"^[A-Za-z0-9._:-]{1,64}\Z")


class ApplicationMetricsField(serializers.DictField):
    """Up to 64 named numbers; `errorRate` is a ratio of 0-1."""

    child = StrictFloatField()

    def to_internal_value(self, data: Any) -> dict[str, float]:
        metrics: dict[str, float] = super().to_internal_value(data)
        if len(metrics) > MAX_APPLICATION_METRICS:
            raise serializers.ValidationError(
                f"at most {MAX_APPLICATION_METRICS} metrics", code="too_many"
            )
        for name in metrics:
            if not 1 <= len(name) <= MAX_METRIC_NAME_LENGTH:
                raise serializers.ValidationError(
                    f"names have 1 to {MAX_METRIC_NAME_LENGTH} characters",
                    code="invalid",
                )
        if not 0 <= metrics.get("errorRate", 0) <= 1:
            raise serializers.ValidationError(
                {"errorRate": ["must be a ratio between 0 and 1"]}, code="invalid"
            )
        return metrics


class ChecksumField(StrictRegexField):
    """A SHA-256 in lower hexadecimal digits."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(CHECKSUM, **kwargs)


class BootIdField(StrictRegexField):
    """The id of one boot, made up by the device."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(BOOT_ID, **kwargs)


class HeartbeatInput(CamelSerializer):
    cpu_usage = StrictFloatField(min_value=0, max_value=100)
    memory_usage = StrictFloatField(min_value=0, max_value=100)
    uptime = StrictIntegerField(min_value=0, max_value=MAX_UPTIME_SECONDS)
    boot_id = BootIdField()
    firmware_version = VersionField()
    firmware_checksum = ChecksumField()
    application_metrics = ApplicationMetricsField(default=dict)
    secure_boot = StrictChoiceField(
        choices=SecureBoot.choices, default=SecureBoot.UNKNOWN
    )
    other_slot_checksum = ChecksumField(
        default=None,
        allow_null=True,
        allow_blank=True,
        help_text="of the image that the device keeps beside the running one and can "
        "go back to by itself, empty for none: with the first heartbeat of a boot and "
        "at each change",
    )


class HeartbeatOutput(CamelSerializer):
    update_available = serializers.BooleanField()
    next_heartbeat_seconds = serializers.IntegerField()


class UsualOutput(CamelSerializer):
    """Mean and standard deviation, in the unit of the measure.

    Of fewer than ten reports the deviation is wider than their own.
    """

    mean = serializers.FloatField()
    spread = serializers.FloatField()


class BaselineOutput(CamelSerializer):
    """What is usual for the device; null where it is not known."""

    since = serializers.DateTimeField()
    confidence = serializers.ChoiceField(
        choices=CONFIDENCES,
        help_text="medium from five healthy reports on, high from ten on",
    )
    cpu_usage = UsualOutput()
    memory_usage = UsualOutput()
    error_rate = UsualOutput(allow_null=True)


class HealthOutput(CamelSerializer):
    device_id = StrictCharField()
    connectivity = serializers.ChoiceField(choices=["online", "offline"])
    last_seen_at = serializers.DateTimeField(
        allow_null=True, help_text="of the last heartbeat, poll or report"
    )
    status = StrictChoiceField(choices=["Healthy", "Degraded", "Unhealthy", "Unknown"])
    reason = serializers.CharField()
    firmware_version = serializers.CharField()
    cpu_usage = serializers.FloatField(allow_null=True)
    memory_usage = serializers.FloatField(allow_null=True)
    uptime = serializers.IntegerField(allow_null=True)
    last_heartbeat = serializers.DateTimeField(allow_null=True)
    application_metrics = serializers.DictField()
    baseline = BaselineOutput(allow_null=True)
    baseline_samples = serializers.IntegerField()


class MeanAndMaxOutput(CamelSerializer):
    mean = serializers.FloatField()
    max = serializers.FloatField()


class HealthPointOutput(CamelSerializer):
    """The heartbeats of one bucket, which begins at `at`."""

    at = serializers.DateTimeField()
    readings = serializers.IntegerField()
    cpu_usage = MeanAndMaxOutput()
    memory_usage = MeanAndMaxOutput()
    error_rate = MeanAndMaxOutput(allow_null=True)
    application_metrics = serializers.DictField(
        child=MeanAndMaxOutput(), help_text="the `metric` that was asked for"
    )
    boots = serializers.IntegerField()


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
        "from": ("since", serializers.DateTimeField()),
        "to": ("until", serializers.DateTimeField()),
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
