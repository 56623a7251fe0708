"""What is sent of devices and groups, checked alike for API and console."""

import json
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from devices.choices import MAX_TAGS, GroupType
from devices.rules import Rule
from devices.selectors import wrong_bounds
from devices.services.certificates import MAX_PEM_CHARACTERS
from devices.timezones import ZONE_TAG, unknown_zone, zone_named
from firmware.inputs import VersionField
from firmware.versions import MAX_LENGTH
from hotswap.common.api.serializers import (
    BoundedListField,
    CamelSerializer,
    StrictBooleanField,
    StrictCharField,
    StrictChoiceField,
    StrictRegexField,
    StrictUUIDField,
)
from hotswap.common.lenient import clean_text

DEVICE_ID = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z"


RESERVED_IDS = frozenset({"import", "export"})


MAX_METADATA_BYTES = 16 * 1024


MAX_IDS_A_REQUEST = 10_000


MAX_MODELS_A_RULE = 50


MAX_TAGS_A_RULE = 20


MAX_VALUES_A_TAG = 100


MAX_VERSIONS_A_RULE = 100


class DeviceIdField(StrictRegexField):
    """The owner's own name of a device."""

    def __init__(self, **kwargs: Any) -> None:
        messages = {
            "invalid": "must be letters, digits and . _ : -, beginning with a letter "
            "or a digit"
        }
        kwargs.setdefault("error_messages", messages)
        super().__init__(DEVICE_ID, max_length=128, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if isinstance(data, str) and data in RESERVED_IDS:
            raise serializers.ValidationError(
                f"{data!r} is a reserved word", code="reserved"
            )
        return super().to_internal_value(data)


def check_tag_names(names: Iterable[str]) -> None:
    """Refuse names that a filter `name:value` could not find.

    Raises:
        ValidationError: too short, too long, with a colon, or with a space at an end.
    """
    for name in names:
        if not 1 <= len(name) <= 64 or ":" in name or name != name.strip():
            raise serializers.ValidationError(
                f"the tag name {name[:70]!r} must have 1 to 64 characters, no colon "
                "and no space at its ends",
                code="invalid",
            )


def check_zone_tag(tags: dict[str, str]) -> None:
    """Refuse a tag `timezone` that names no time zone.

    Maintenance windows go by it.

    Raises:
        ValidationError: at `/tags/timezone`, with the name that was perhaps meant.
    """
    name = tags.get(ZONE_TAG)
    if name is not None and zone_named(name) is None:
        raise serializers.ValidationError(
            {ZONE_TAG: [unknown_zone(name)]}, code="unknown_timezone"
        )


class TagsField(serializers.DictField):
    """Up to 50 tags: names of 64 characters, values of 256."""

    child = StrictCharField(max_length=256, allow_blank=True)

    def to_internal_value(self, data: Any) -> dict[str, str]:
        tags: dict[str, str] = super().to_internal_value(data)
        if len(tags) > MAX_TAGS:
            raise serializers.ValidationError(
                f"a device has {MAX_TAGS} tags at most", code="too_many"
            )
        check_tag_names(tags)
        check_zone_tag(tags)
        return tags


class MetadataField(serializers.DictField):
    """A free map of at most 16 KiB of JSON."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        metadata: dict[str, Any] = super().to_internal_value(data)
        if len(json.dumps(metadata)) > MAX_METADATA_BYTES:
            raise serializers.ValidationError(
                f"must have {MAX_METADATA_BYTES} bytes at most", code="too_large"
            )
        return metadata


class RegionField(StrictChoiceField):
    """One of the regions of this installation."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=settings.REGIONS, **kwargs)


class ReportedVersionField(StrictCharField):
    """What a device calls the image that it runs: any text, cut at its length."""

    def to_internal_value(self, data: Any) -> str:
        return clean_text(super().to_internal_value(data))[:MAX_LENGTH]


class DeviceChangesInput(CamelSerializer):
    """PATCH: any of these."""

    model = StrictCharField(max_length=64, required=False)
    region = RegionField(required=False)
    tags = TagsField(required=False)
    metadata = MetadataField(required=False)
    enabled = StrictBooleanField(required=False)


class DeviceReplacementInput(CamelSerializer):
    """PUT: all that an owner says of a device; what is omitted gets its default."""

    model = StrictCharField(max_length=64)
    region = RegionField(default=settings.DEFAULT_REGION)
    tags = TagsField(default=dict)
    metadata = MetadataField(default=dict)
    enabled = StrictBooleanField(default=True)


class DeviceInput(CamelSerializer):
    device_id = DeviceIdField()
    model = StrictCharField(max_length=64)
    region = RegionField(required=False)
    tags = TagsField(required=False)
    metadata = MetadataField(required=False)
    firmware_version = VersionField(required=False)


class RevocationInput(CamelSerializer):
    """Nothing at all, or why."""

    reason = StrictCharField(
        max_length=2000, required=False, allow_blank=True, default=""
    )


class RotationInput(CamelSerializer):
    api_key = StrictCharField(
        max_length=128,
        required=False,
        trim_whitespace=False,
        help_text="the key that the device has; a person sends none",
    )


class AcknowledgementInput(CamelSerializer):
    comment = StrictCharField(
        max_length=2000, required=False, allow_blank=True, default=""
    )


class CertificateInput(CamelSerializer):
    certificate = StrictCharField(max_length=MAX_PEM_CHARACTERS)


class DeviceTokenInput(CamelSerializer):
    """The key may be omitted by a device that shows its certificate to the proxy."""

    device_id = StrictCharField(max_length=128)
    api_key = StrictCharField(max_length=128, required=False)


class UniqueListField(BoundedListField):
    """At least one value, none of them twice."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_length=1, **kwargs)

    def to_internal_value(self, data: Any) -> list[Any]:
        values: list[Any] = super().to_internal_value(data)
        seen: set[Any] = set()
        repeated: dict[str, Any] = {}
        for index, value in enumerate(values):
            if value in seen:
                error = serializers.ErrorDetail(
                    f"{value!r} is there twice", "duplicate"
                )
                repeated[str(index)] = [error]
            seen.add(value)
        if repeated:
            raise serializers.ValidationError(repeated)
        return values


@extend_schema_field(
    {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
)
class OneOrMoreField(UniqueListField):
    """A value, or a list of them; a single one is shown as a list afterwards."""

    def to_internal_value(self, data: Any) -> list[Any]:
        return super().to_internal_value([data] if isinstance(data, str) else data)


class RuleTagsField(serializers.DictField):
    """Tags by name, each with the values that will do."""

    child = OneOrMoreField(
        child=StrictCharField(max_length=256, allow_blank=True),
        max_length=MAX_VALUES_A_TAG,
    )

    def to_internal_value(self, data: Any) -> dict[str, list[str]]:
        tags: dict[str, list[str]] = super().to_internal_value(data)
        if len(tags) > MAX_TAGS_A_RULE:
            raise serializers.ValidationError(
                f"a rule has {MAX_TAGS_A_RULE} tags at most", code="too_many"
            )
        check_tag_names(tags)
        return tags


class VersionConditionInput(CamelSerializer):
    """At least one of these; all that are given must hold."""

    at_least = VersionField(required=False)
    below = VersionField(required=False)
    # `is` is a word of the language; see get_fields.
    is_one_of = OneOrMoreField(
        child=VersionField(), max_length=MAX_VERSIONS_A_RULE, required=False
    )

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        fields["is"] = fields.pop("isOneOf")
        return fields

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs:
            raise serializers.ValidationError(
                "give at least one of atLeast, below, is", code="required"
            )
        return attrs


class RuleInput(CamelSerializer):
    """All conditions that are given must hold; of a list any value will do.

    One value may stand without its list.
    """

    region = OneOrMoreField(child=RegionField(), max_length=100, required=False)
    model = OneOrMoreField(
        child=StrictCharField(max_length=64),
        max_length=MAX_MODELS_A_RULE,
        required=False,
    )
    tags = RuleTagsField(required=False)
    firmware_version = VersionConditionInput(required=False)


def to_rule(given: dict[str, Any]) -> Rule:
    """Turn a validated rule into that of the service."""
    version = given.get("firmware_version", {})
    return Rule(
        regions=tuple(given.get("region", ())),
        models=tuple(given.get("model", ())),
        tags=tuple((n, tuple(values)) for n, values in given.get("tags", {}).items()),
        below=version.get("below", ""),
        at_least=version.get("at_least", ""),
        versions=tuple(version.get("is_one_of", ())),
    )


class RuleField(RuleInput):
    """The rule of a group, for the service."""

    def to_internal_value(self, data: Any) -> Any:
        return to_rule(super().to_internal_value(data))

    def validate(self, attrs: Rule) -> Rule:
        wrong = wrong_bounds(
            models=attrs.models, at_least=attrs.at_least, below=attrs.below
        )
        if wrong:
            raise serializers.ValidationError(
                {"firmwareVersion": {name: [said] for name, said in wrong.items()}},
                code="invalid",
            )
        return attrs


class GroupInput(CamelSerializer):
    name = StrictCharField(max_length=128)
    description = StrictCharField(
        max_length=500, required=False, allow_blank=True, default=""
    )
    type = StrictChoiceField(choices=GroupType.choices, required=False)
    rule = RuleField(required=False, allow_null=True)


class NewGroupInput(GroupInput):
    device_ids = BoundedListField(
        child=StrictCharField(max_length=128),
        required=False,
        max_length=MAX_IDS_A_REQUEST,
        help_text="the members of a Static group; an unknown one refuses all",
    )


class RulePreviewInput(CamelSerializer):
    type = StrictChoiceField(choices=[GroupType.DYNAMIC.value], required=False)
    rule = RuleField()
    group_id = StrictUUIDField(required=False)


@extend_schema_field(RuleInput)
class ShownRuleField(serializers.DictField):
    """A rule as it is kept, which is a body that asks for it."""


class MembersInput(CamelSerializer):
    device_ids = BoundedListField(
        child=StrictCharField(max_length=128),
        min_length=1,
        max_length=MAX_IDS_A_REQUEST,
    )
