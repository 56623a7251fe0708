"""What comes in and goes out about firmware."""

from typing import Any

from rest_framework import serializers

from firmware import signing
from firmware.models import Firmware
from firmware.versions import VersionScheme, check_version
from hotswap.common.api.serializers import (
    CamelSerializer,
    StrictBooleanField,
    StrictCharField,
    StrictChoiceField,
    StrictRegexField,
)


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
    name = StrictRegexField(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
    description = StrictCharField(max_length=500, required=False, allow_blank=True)
    requires_secure_boot = StrictBooleanField(required=False)
    version_scheme = VersionSchemeField(required=False)


class DeviceModelChangesInput(CamelSerializer):
    """PATCH: any of these."""

    description = StrictCharField(max_length=500, required=False, allow_blank=True)
    requires_secure_boot = StrictBooleanField(required=False)
    version_scheme = VersionSchemeField(required=False)


class DeviceModelOutput(CamelSerializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField()
    requires_secure_boot = serializers.BooleanField()
    version_scheme = VersionSchemeField()
    created_at = serializers.DateTimeField()


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


class CommentInput(CamelSerializer):
    comment = StrictCharField(
        max_length=2000, required=False, allow_blank=True, default=""
    )


class RejectInput(CamelSerializer):
    comment = StrictCharField(max_length=2000)


class ReinstatementInput(CamelSerializer):
    reason = StrictCharField(max_length=2000)


class DeprecationInput(CamelSerializer):
    reason = StrictCharField(max_length=2000)
    cancel_deployments = serializers.BooleanField(required=False, default=False)


class FirmwareOutput(CamelSerializer):
    id = serializers.UUIDField()
    model = serializers.CharField(source="model.name")
    version = serializers.CharField()
    status = serializers.CharField()
    size = serializers.IntegerField()
    checksum = serializers.CharField(source="sha256")
    sha1 = serializers.CharField(help_text="for other protocols; never for security")
    md5 = serializers.CharField(help_text="for other protocols; never for security")
    signature = serializers.CharField(help_text="base64, by the most current key")
    signature_algorithm = serializers.CharField(default=signing.ALGORITHM)
    key_id = serializers.CharField(source="key.key_id")
    signature_revoked_at = serializers.DateTimeField(
        allow_null=True, help_text="held back since: no key to be trusted has signed it"
    )
    release_notes = serializers.CharField()
    security_version = serializers.IntegerField()
    reboot_required = serializers.BooleanField()
    uploaded_by = serializers.CharField(
        source="uploaded_by.username", default=None, allow_null=True
    )
    request_comment = serializers.CharField()
    approved_by = serializers.CharField(
        source="approved_by.username", default=None, allow_null=True
    )
    approved_at = serializers.DateTimeField(allow_null=True)
    status_comment = serializers.CharField()
    damaged_at = serializers.DateTimeField(allow_null=True)
    damage = serializers.CharField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()

    def to_representation(self, instance: Firmware) -> Any:
        key, signature = instance.best_signature()
        shown = super().to_representation(instance)
        return shown | {"signature": signature, "keyId": key.key_id}


class UploadOutput(FirmwareOutput):
    """The firmware, and whether its damaged image was replaced by this upload."""

    repaired = serializers.BooleanField()


class DeprecationOutput(FirmwareOutput):
    """The firmware, and the deployments of it that were cancelled."""

    cancelled_deployments = serializers.ListField(child=serializers.UUIDField())


class DeploymentUseOutput(CamelSerializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    status = serializers.CharField()
    strategy = serializers.CharField()
    device_count = serializers.IntegerField()
    scheduled_at = serializers.DateTimeField(allow_null=True)
    is_cancellable = serializers.BooleanField()


class FirmwareUseOutput(CamelSerializer):
    """Counted at the time of the answer."""

    device_count = serializers.IntegerField(
        help_text="devices whose last report names this SHA-256"
    )
    devices_url = serializers.CharField()
    deployments = DeploymentUseOutput(many=True)
    proved_count = serializers.IntegerField(help_text="install orders, proved")
    failed_count = serializers.IntegerField(help_text="install orders, failed")
    success_rate = serializers.FloatField(
        source="success_percent", allow_null=True, help_text="percent"
    )


class HistoryOutput(CamelSerializer):
    """One decision about a firmware."""

    at = serializers.DateTimeField()
    verb = serializers.CharField()
    actor_kind = serializers.CharField()
    actor = serializers.CharField(source="actor_name", allow_null=True)
    comment = serializers.CharField(source="details.comment", default="")
    details = serializers.JSONField()


class SigningKeyOutput(CamelSerializer):
    key_id = serializers.CharField()
    algorithm = serializers.CharField()
    public_key = serializers.CharField()
    status = serializers.CharField()
    not_before = serializers.DateTimeField()
    not_after = serializers.DateTimeField(allow_null=True)
