"""Launching a deployment again: its settings as the body that would ask for them."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from deployments.api.outputs import DeploymentOutput
from deployments.copying import edit_body, launch_body
from deployments.inputs import DeploymentInput, StrategyField
from deployments.models import Deployment
from deployments.reads.preview import Targets, Warned
from deployments.references import FirmwareReferenceField
from hotswap.common.api.outputs import output_of
from hotswap.common.api.serializers import StrictCharField


class CopyInput(DeploymentInput):
    """Why it is launched again, and any field of a launch that shall be different."""

    firmware_id = FirmwareReferenceField(required=False)
    strategy = StrategyField(required=False)
    reason = StrictCharField(max_length=2000)


class DeploymentDetailOutput(DeploymentOutput):
    request = serializers.SerializerMethodField(
        help_text="the body that asks for the same again; of a deployment that waits "
        "for its time with its name and time, as for PUT"
    )

    @extend_schema_field(DeploymentInput)
    def get_request(self, deployment: Deployment) -> dict[str, Any]:
        return (
            edit_body(deployment) if deployment.is_waiting else launch_body(deployment)
        )


class EditedDeploymentOutput(DeploymentDetailOutput):
    """A deployment that was just edited, and whom it reaches."""

    targets = output_of(Targets)()
    warnings = output_of(Warned)(many=True)
