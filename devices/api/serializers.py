"""What comes in and goes out about devices."""

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from devices import selectors
from devices.choices import GroupType, KeyStatus, RunKnowledge
from devices.inputs import RuleInput, ShownRuleField
from devices.models import Device
from devices.services.groups import RulePreview
from hotswap.common.api.serializers import (
    SHOWN_ONCE,
    CamelSerializer,
    StrictChoiceField,
)


class AlarmOutput(CamelSerializer):
    """What a person should look into."""

    code = serializers.CharField()
    at = serializers.DateTimeField()
    address = serializers.CharField(allow_null=True)


class RevocationOutput(CamelSerializer):
    """When a device was shut out, and why; the reason is empty if none was given."""

    at = serializers.DateTimeField()
    reason = serializers.CharField()


class DeviceOutput(CamelSerializer):
    device_id = serializers.CharField()
    model = serializers.CharField(source="model.name")
    region = serializers.CharField()
    tags = serializers.DictField(child=serializers.CharField())
    metadata = serializers.DictField()
    firmware_version = serializers.CharField()
    firmware_checksum = serializers.CharField()
    previous_firmware_version = serializers.CharField()
    status = serializers.SerializerMethodField(method_name="get_status")
    enabled = serializers.BooleanField()
    key_expires_at = serializers.DateTimeField(allow_null=True)
    key_status = serializers.SerializerMethodField(method_name="get_key_status")
    alarm = serializers.SerializerMethodField(method_name="get_alarm")
    secure_boot = serializers.SerializerMethodField(method_name="get_secure_boot")
    last_seen_at = serializers.DateTimeField(
        source="state.last_seen_at", default=None, allow_null=True
    )
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()

    def get_status(self, device: Device) -> str:
        return device.status_at(timezone.now()).value

    @extend_schema_field(StrictChoiceField(choices=["enabled", "disabled", "unknown"]))
    def get_secure_boot(self, device: Device) -> str:
        state = getattr(device, "state", None)
        return "unknown" if state is None else str(state.secure_boot)

    @extend_schema_field(AlarmOutput(allow_null=True))
    def get_alarm(self, device: Device) -> Any:
        if device.alarm_at is None:
            return None
        return AlarmOutput(
            {
                "code": "retired_key_used",
                "at": device.alarm_at,
                "address": device.alarm_address,
            }
        ).data

    @extend_schema_field(StrictChoiceField(choices=KeyStatus.choices))
    def get_key_status(self, device: Device) -> str:
        return device.key_status_at(timezone.now()).value


class GroupReferenceOutput(CamelSerializer):
    """A group that a device is in at the time of the answer."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    type = StrictChoiceField(choices=GroupType.choices)


class ListedDeviceOutput(DeviceOutput):
    groups = GroupReferenceOutput(
        many=True,
        required=False,
        source="current_groups",
        help_text="with `include=groups` only",
    )


class DeviceDetailOutput(DeviceOutput):
    """A device with what is looked up for one device alone."""

    groups = serializers.SerializerMethodField(method_name="get_groups")
    revocation = serializers.SerializerMethodField(method_name="get_revocation")

    @extend_schema_field(GroupReferenceOutput(many=True))
    def get_groups(self, device: Device) -> Any:
        return GroupReferenceOutput(selectors.groups_of(device), many=True).data

    @extend_schema_field(RevocationOutput(allow_null=True))
    def get_revocation(self, device: Device) -> Any:
        if device.revoked_at is None:
            return None
        reason = selectors.revocation_reason(device)
        return RevocationOutput({"at": device.revoked_at, "reason": reason}).data


class AudienceChangeOutput(CamelSerializer):
    """A deployment to come that reaches other devices by a change."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    scheduled_at = serializers.DateTimeField(allow_null=True)
    before = serializers.IntegerField()
    after = serializers.IntegerField()
    added = serializers.IntegerField()
    removed = serializers.IntegerField()


class ChangedDeviceOutput(DeviceDetailOutput):
    affected_deployments = AudienceChangeOutput(many=True, read_only=True)


class FirmwareRunOutput(CamelSerializer):
    """A time during which the device ran one image; `until` is null for the present."""

    version = serializers.CharField()
    checksum = serializers.CharField()
    firmware_id = serializers.UUIDField(allow_null=True)
    since = serializers.DateTimeField()
    until = serializers.DateTimeField(allow_null=True)
    how = StrictChoiceField(choices=RunKnowledge.choices)


class RegisteredDeviceOutput(DeviceDetailOutput):
    api_key = serializers.CharField(
        read_only=True, allow_null=True, help_text=SHOWN_ONCE
    )


class ApiKeyOutput(CamelSerializer):
    api_key = serializers.CharField(allow_null=True, help_text=SHOWN_ONCE)
    expires_at = serializers.DateTimeField()


class CertificateOutput(CamelSerializer):
    fingerprint = serializers.CharField()
    subject = serializers.CharField()
    not_before = serializers.DateTimeField()
    not_after = serializers.DateTimeField()
    created_at = serializers.DateTimeField()


class DeviceTokenOutput(CamelSerializer):
    access = serializers.CharField()
    expires_in = serializers.IntegerField()
    key_expires_at = serializers.DateTimeField(allow_null=True)


class GroupOutput(CamelSerializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField()
    type = serializers.CharField()
    rule = ShownRuleField(allow_null=True)
    device_count = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class ChangedGroupOutput(GroupOutput):
    affected_deployments = AudienceChangeOutput(many=True, read_only=True)


class RulePreviewOutput(CamelSerializer):
    rule = serializers.SerializerMethodField(method_name="get_rule")
    in_words = serializers.CharField(source="rule.in_words")
    count = serializers.IntegerField()
    sample = DeviceOutput(many=True)
    added = serializers.IntegerField(
        source="difference.added", required=False, help_text="with groupId only"
    )
    removed = serializers.IntegerField(
        source="difference.removed", required=False, help_text="with groupId only"
    )
    affects_deployments = AudienceChangeOutput(
        many=True,
        source="difference.affected",
        required=False,
        help_text="with groupId only",
    )

    @extend_schema_field(RuleInput)
    def get_rule(self, preview: RulePreview) -> dict[str, Any]:
        return preview.rule.to_json()
