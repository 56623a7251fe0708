"""What Admins send of enrolment tokens, checked alike for API and console."""

from typing import Any

from django.utils import timezone
from rest_framework import serializers

from devices.inputs import RegionField, TagsField
from hotswap.common.api.serializers import (
    CamelSerializer,
    StrictBooleanField,
    StrictCharField,
    StrictIntegerField,
    ZonedDateTimeField,
)

MAX_USES = 1_000_000


class EnrolmentTokenInput(CamelSerializer):
    name = StrictCharField(max_length=128)
    model = StrictCharField(max_length=64, required=False, allow_null=True)
    region = RegionField(required=False, allow_null=True)
    tags = TagsField(required=False)
    needs_approval = StrictBooleanField(default=True)
    max_uses = StrictIntegerField(
        min_value=1, max_value=MAX_USES, required=False, allow_null=True
    )
    expires_at = ZonedDateTimeField(required=False, allow_null=True)

    def validate_expiresAt(self, value: Any) -> Any:  # noqa: N802
        if value is not None and value <= timezone.now():
            raise serializers.ValidationError("must be in the future", code="past")
        return value
