"""What goes out about deployments: the schema of each answer.

What is read is a dataclass of `deployments.reads` and describes itself; rows that are
shown as they are stored have a serializer here.
"""

from typing import Any

from django.utils import timezone
from rest_framework import serializers

from deployments.choices import StageStatus, TargetStatus
from deployments.models import Deployment, Target
from deployments.reads.devices import TargetDetail, TargetRow, next_step_of
from deployments.reads.exposure import Exposure
from deployments.reads.fleets import Fleets
from deployments.reads.health_report import HealthReport
from deployments.reads.metrics import DeploymentMetrics
from deployments.reads.preview import LaunchPreview, Targets, Warned, launch_reach
from deployments.reads.rollback_report import RollbackReport
from deployments.reads.status import LiveStatus
from deployments.services.preview import predict
from deployments.services.targeting import Audience
from hotswap.common.api.outputs import output_of
from hotswap.common.api.serializers import (
    CamelSerializer,
    DurationField,
    StrictChoiceField,
)
from hotswap.common.wire import to_wire

LiveStatusOutput = output_of(LiveStatus)
MetricsOutput = output_of(DeploymentMetrics)
HealthReportOutput = output_of(HealthReport)
RollbackReportOutput = output_of(RollbackReport)
TargetRowOutput = output_of(TargetRow)
TargetDetailOutput = output_of(TargetDetail)
FleetsOutput = output_of(Fleets)
PreviewOutput = output_of(LaunchPreview)
ExposureOutput = output_of(Exposure)


class MaintenanceWindowOutput(CamelSerializer):
    days = serializers.ListField(child=serializers.CharField())
    start = serializers.CharField(help_text="HH:MM")
    end = serializers.CharField(help_text="HH:MM; before the start: of the next day")
    timezone = serializers.CharField(help_text="a name of IANA, or device")


class StageBrief(CamelSerializer):
    number = serializers.IntegerField()
    name = serializers.CharField()
    size = serializers.IntegerField()
    status = serializers.CharField()


class FirmwareBrief(CamelSerializer):
    id = serializers.UUIDField()
    version = serializers.CharField()


class DeploymentOutput(CamelSerializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    tags = serializers.ListField(child=serializers.CharField())
    archived_at = serializers.DateTimeField(allow_null=True)
    status = serializers.CharField()
    pause_reasons = serializers.ListField(child=serializers.CharField())
    cancel_requested_at = serializers.DateTimeField(allow_null=True)
    strategy = serializers.CharField()
    live_fleet = serializers.SerializerMethodField(method_name="get_live_fleet")
    require_approval_per_stage = serializers.BooleanField()
    maintenance_window = MaintenanceWindowOutput(allow_null=True)
    max_devices_per_minute = serializers.IntegerField(allow_null=True)
    start_spread = DurationField()
    firmware = FirmwareBrief()
    stages = StageBrief(source="stages.all", many=True)
    target_count = serializers.SerializerMethodField(method_name="get_target_count")
    is_predicted = serializers.BooleanField(
        source="is_waiting",
        help_text="whether targetCount and stages are what they would be if it started "
        "now; lists do not foresee them",
    )
    copied_from = serializers.UUIDField(source="copied_from_id", allow_null=True)
    acknowledged = serializers.ListField(
        child=serializers.CharField(),
        help_text="codes of the warnings that were named at its launch or last edit",
    )
    rollback_reason = serializers.CharField()
    failure_reason = serializers.CharField()
    created_at = serializers.DateTimeField()
    scheduled_at = serializers.DateTimeField(allow_null=True)
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    watching_until = serializers.DateTimeField(allow_null=True)
    trace_id = serializers.CharField(
        help_text="of the trace of all that is done for it, 32 hexadecimal digits"
    )

    def get_live_fleet(self, deployment: Deployment) -> str | None:
        return deployment.live_fleet or None

    def get_target_count(self, deployment: Deployment) -> int | None:
        return None if deployment.is_waiting else deployment.target_count


def predicted_output(deployment: Deployment) -> dict[str, Any]:
    """Show what a waiting deployment would become if it started now; else nothing."""
    if not deployment.is_waiting:
        return {}
    prediction = predict(deployment, timezone.now())
    stages = prediction.plan.stages if prediction.plan else ()
    return {
        "targetCount": prediction.device_count,
        "stages": [
            {
                "number": stage.number,
                "name": stage.name,
                "size": size,
                "status": StageStatus.PENDING.value,
            }
            for stage, size in zip(stages, prediction.sizes, strict=True)
        ],
    }


def deployment_output(deployment: Deployment) -> dict[str, Any]:
    """Show one deployment; of one that waits what it would become."""
    return DeploymentOutput(deployment).data | predicted_output(deployment)


class CreatedDeploymentOutput(DeploymentOutput):
    """A deployment that was just created, and whom it reaches."""

    targets = output_of(Targets)()
    warnings = output_of(Warned)(many=True)


def created_output(deployment: Deployment, audience: Audience) -> dict[str, Any]:
    """Show a deployment that was just created."""
    return deployment_output(deployment) | to_wire(launch_reach(audience))


class DeploymentBrief(CamelSerializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    status = serializers.CharField()
    strategy = serializers.CharField()
    firmware = FirmwareBrief()
    model = serializers.CharField(source="firmware.model.name")
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class DeviceDeploymentOutput(CamelSerializer):
    """One deployment of a device, and how the device stands in it."""

    deployment = DeploymentBrief()
    status = StrictChoiceField(choices=TargetStatus.choices)
    stage = serializers.IntegerField(source="stage_number")
    attempt = serializers.IntegerField()
    from_version = serializers.CharField()
    error_code = serializers.CharField()
    message = serializers.CharField()
    next_step = serializers.SerializerMethodField(method_name="get_next_step")
    updated_at = serializers.DateTimeField()

    def get_next_step(self, target: Target) -> str:
        return next_step_of(target.deployment, target)


class QuarantineOutput(CamelSerializer):
    device_id = serializers.CharField(source="device.device_id")
    firmware_id = serializers.UUIDField()
    model = serializers.CharField(source="firmware.model.name")
    version = serializers.CharField(source="firmware.version")
    failures = serializers.IntegerField()
    last_error_code = serializers.CharField(source="last_code")
    quarantined_at = serializers.DateTimeField(allow_null=True)


class EventOutput(CamelSerializer):
    id = serializers.IntegerField()
    at = serializers.DateTimeField()
    level = serializers.CharField()
    event = serializers.CharField()
    device_id = serializers.CharField(
        source="device.device_id", default=None, allow_null=True
    )
    stage = serializers.IntegerField(source="stage_number", allow_null=True)
    message = serializers.CharField()
