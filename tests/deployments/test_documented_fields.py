"""The table of the fields of a launch: each has its default and its range there."""

import re
from dataclasses import MISSING, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from rest_framework import serializers

from deployments.criteria import HealthCriteria, RollbackThresholds
from deployments.inputs import DeploymentInput
from deployments.references import FirmwareReferenceField
from deployments.services.requests import DeploymentRequest
from deployments.strategies.fields import Kind
from deployments.strategies.registry import STRATEGIES
from devices.inputs import RegionField, TagsField
from health.triggers import TRIGGERS
from hotswap.common.api.serializers import (
    CamelSerializer,
    DurationField,
    StrictUUIDField,
)
from hotswap.common.durations import MAX_DURATION, format_duration
from hotswap.common.wire import camelize

# Their defaults are words.
OF_WORDS = {
    "name": "made from the firmware and the strategy, and numbered from the second on",
    "firmwareId": "required",
    "strategy": "required",
    **dict.fromkeys(
        ("targetDevices", "targetGroups", "regions", "targetAll"),
        "exactly one of the four",
    ),
    "healthThreshold": "`99`, with `BlueGreen` `99.5`",
    "healthCheckThreshold": "`healthThreshold`",
    "offlineDevices": "`reject` for a list, else `wait`",
    "scheduledAt": "at once",
    "acknowledge": "none",
    "maintenanceWindow": "at any time",
    "maintenanceWindow.days": "required",
    "maintenanceWindow.start": "required",
    "maintenanceWindow.end": "required",
    "maintenanceWindow.timezone": "required",
    "maxDevicesPerMinute": "no limit",
    "greenFleet.group": "drawn",
    "greenFleet.tag": "drawn",
}


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, timedelta):
        return f"`{format_duration(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def defaults_of(dataclass: Any, prefix: str = "") -> dict[str, str]:
    return {
        prefix + camelize(each.name): shown(each.default)
        for each in fields(dataclass)
        if each.default is not MISSING
    }


def default_of_each() -> dict[str, str]:
    of_strategies = {
        camelize(each.name): shown(
            timedelta(seconds=each.default)
            if each.kind == Kind.DURATION
            else each.default
        )
        for entry in STRATEGIES.values()
        for each in entry.fields
    }
    return {
        **defaults_of(DeploymentRequest),
        **of_strategies,
        **defaults_of(HealthCriteria, "healthCriteria."),
        **defaults_of(RollbackThresholds, "rollbackThresholds."),
        **{
            f"rollbackThresholds.{name}": shown(value)
            for each in TRIGGERS
            for name, value in (
                (each.field, each.default_limit),
                (camelize(each.duration), each.default_duration),
            )
        },
        **OF_WORDS,
    }


def range_of(field: Any) -> str:
    match field:
        case serializers.ListField():
            least = field.min_length or 0
            each = range_of(field.child)
            return f"{least:,} to {field.max_length:,}, each {each}"
        case DurationField():
            shortest = format_duration(field.minimum or timedelta(0))
            return f"`{shortest}` to `{format_duration(MAX_DURATION)}`"
        case RegionField():
            return "a region of the installation"
        case serializers.ChoiceField():
            return ", ".join(f"`{choice}`" for choice in field.choices)
        case serializers.BooleanField():
            return "`true`, `false`"
        case serializers.IntegerField() | serializers.FloatField():
            return f"{field.min_value:,g} to {field.max_value:,g}"
        case serializers.DateTimeField():
            return "a time to come, with its zone"
        case serializers.RegexField():
            return "`HH:MM`"
        case StrictUUIDField():
            return "an id"
        case TagsField():
            return "one tag or more"
        case FirmwareReferenceField():
            return "an id, or `MODEL:VERSION`"
        case serializers.CharField() if field.max_length:
            return f"up to {field.max_length} characters"
        case _:
            raise AssertionError(field)


def range_of_each(serializer: CamelSerializer, prefix: str = "") -> dict[str, str]:
    found = {}
    for name, field in serializer.fields.items():
        if isinstance(field, CamelSerializer):
            if field.fields.keys() == {"days", "start", "end", "timezone"}:
                found[name] = "an object"
            found |= range_of_each(field, f"{name}.")
        else:
            found[prefix + name] = range_of(field)
    return found


def test_every_field_of_a_launch_is_documented_with_its_default_and_range() -> None:
    page = (Path(settings.BASE_DIR) / "docs" / "deployments.md").read_text()
    section = page.split("## Fields of a launch")[1].split("\n## ")[0]

    rows = {
        name: (default, allowed)
        for name, default, allowed in re.findall(
            r"^\| `([\w.]+)` \| ([^|]+) \| ([^|]+) \|", section, re.MULTILINE
        )
    }

    defaults = default_of_each()
    assert rows == {
        name: (defaults[name], allowed)
        for name, allowed in range_of_each(DeploymentInput()).items()
    }
