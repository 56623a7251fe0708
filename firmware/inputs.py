"""What people send of firmware and models, checked alike for API and console."""

from typing import Any

from rest_framework import serializers

from firmware.versions import VersionScheme, check_version
from hotswap.common.api.serializers import (
    CamelSerializer,
    StrictBooleanField,
    StrictCharField,
    StrictChoiceField,
    StrictRegexField,
)
from hotswap.common.api.signatures import SignatureInput


class VersionField(StrictCharField):
    """A version of any scheme; which it must have is said by the device model."""

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        try:
            check_version(text, VersionScheme.OPAQUE)
        except ValueError as error:
            raise serializers.ValidationError(str(error), code="invalid") from None
        return text


class VersionSchemeField(StrictChoiceField):
    """How versions are written and ordered; gives a `VersionScheme`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=[each.value for each in VersionScheme], **kwargs)

    def to_internal_value(self, data: Any) -> VersionScheme:
        return VersionScheme(super().to_internal_value(data))


class DeviceModelInput(CamelSerializer):
    name = StrictRegexField(
        r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z",
        error_messages={
            "invalid": "must be letters, digits and . _ -, beginning with a letter or "
            "a digit, 64 at most"
        },
    )
    description = StrictCharField(max_length=500, required=False, allow_blank=True)
    requires_secure_boot = StrictBooleanField(required=False)
    version_scheme = VersionSchemeField(required=False)


class DeviceModelChangesInput(CamelSerializer):
    """PATCH: any of these."""

    description = StrictCharField(max_length=500, required=False, allow_blank=True)
    requires_secure_boot = StrictBooleanField(required=False)
    version_scheme = VersionSchemeField(required=False)


class FirmwareInput(CamelSerializer):
    """The text fields of an upload; `file` travels beside them."""

    version = VersionField()
    model = StrictCharField(max_length=64)
    release_notes = StrictCharField(
        max_length=20_000, required=False, allow_blank=True, trim_whitespace=False
    )
    security_version = serializers.IntegerField(
        min_value=0, max_value=2_147_483_647, required=False
    )
    reboot_required = serializers.BooleanField(required=False)
    request_comment = StrictCharField(max_length=2000, required=False, allow_blank=True)
    checksum = StrictRegexField(
        r"^[0-9A-Fa-f]{64}\Z",
        source="expected_sha256",
        required=False,
        error_messages={"invalid": "must be a SHA-256: 64 hexadecimal digits"},
    )

    def validate_checksum(self, value: str) -> str:
        return value.lower()


class NotesInput(CamelSerializer):
    release_notes = StrictCharField(
        max_length=20_000, allow_blank=True, trim_whitespace=False
    )


class ApprovalInput(CamelSerializer):
    """Why it may be deployed, and who signs that."""

    comment = StrictCharField(
        max_length=2000, required=False, allow_blank=True, default=""
    )
    signature = SignatureInput(required=False)


class RejectInput(CamelSerializer):
    comment = StrictCharField(max_length=2000)
    signature = SignatureInput(required=False)


class ReinstatementInput(CamelSerializer):
    reason = StrictCharField(max_length=2000)
    signature = SignatureInput(required=False)


class DeprecationInput(CamelSerializer):
    reason = StrictCharField(max_length=2000)
    cancel_deployments = StrictBooleanField(default=False)
    signature = SignatureInput(required=False)
