"""What comes in and goes out about firmware."""

from typing import Any

from rest_framework import serializers

from firmware import signing
from firmware.inputs import VersionSchemeField
from firmware.models import Firmware
from hotswap.common.api.serializers import CamelSerializer


class DeviceModelOutput(CamelSerializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField()
    requires_secure_boot = serializers.BooleanField()
    version_scheme = VersionSchemeField()
    created_at = serializers.DateTimeField()


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
