"""Routes of deployments, and those of devices that need them."""

import hashlib
import json
from dataclasses import replace
from typing import Any, ClassVar
from uuid import UUID

import django_filters
from django import forms
from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiParameter,
    extend_schema,
    extend_schema_field,
)
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.api.copying import (
    CopyInput,
    DeploymentDetailOutput,
    EditedDeploymentOutput,
)
from deployments.api.outputs import (
    CreatedDeploymentOutput,
    DeploymentOutput,
    DeviceDeploymentOutput,
    EventOutput,
    ExposureOutput,
    FleetsOutput,
    HealthReportOutput,
    LiveStatusOutput,
    MetricsOutput,
    PreviewOutput,
    QuarantineOutput,
    RollbackReportOutput,
    TargetDetailOutput,
    TargetRowOutput,
    created_output,
    deployment_output,
    predicted_output,
)
from deployments.choices import DeploymentStatus, Level, Strategy, TargetStatus
from deployments.copying import copied_body, launch_body
from deployments.exceptions import DeploymentNotFoundError
from deployments.inputs import (
    DeploymentInput,
    HoldAcknowledgementInput,
    LabelsInput,
    ReasonInput,
    RollbackInput,
    StageApprovalInput,
    to_request,
)
from deployments.models import Deployment, Event, Quarantine, Target
from deployments.reads.devices import target_detail, target_rows
from deployments.reads.exposure import firmware_exposure
from deployments.reads.fleets import deployment_fleets
from deployments.reads.health_report import health_report
from deployments.reads.metrics import deployment_metrics
from deployments.reads.preview import launch_preview, launch_reach
from deployments.reads.rollback_report import deployment_rollbacks
from deployments.reads.status import deployment_status
from deployments.references import id_in
from deployments.services import editing, launch, operate, quarantine
from deployments.services.evidence import deployment_evidence
from deployments.services.labelling import label_deployment
from deployments.services.preview import preview_deployment
from devices.exceptions import DeviceNotFoundError
from devices.models import Device
from devices.querysets import name_contains
from firmware.models import Firmware
from hotswap.common.api.base import ApiView, ListView, acting_person
from hotswap.common.api.etags import expected_etags, knows
from hotswap.common.api.filters import (
    AnyNameFilter,
    AnyOfFilter,
    ChoiceFilter,
    TruthFilter,
    ZonedTimeFilter,
)
from hotswap.common.api.idempotency import idempotent
from hotswap.common.api.long_polls import long_polls, wished_seconds
from hotswap.common.api.signatures import given_signature
from hotswap.common.errors import NotFoundError
from hotswap.common.etags import etag_of
from hotswap.common.evidence.export import evidence_response
from hotswap.common.roles import Role
from hotswap.common.signatures import Meaning
from hotswap.common.wire import to_wire


def find_deployment(deployment_id: UUID) -> Deployment:
    """Return a deployment with its firmware.

    Raises:
        DeploymentNotFoundError: there is none.
    """
    deployment = (
        Deployment.objects.select_related("firmware__model")
        .filter(pk=deployment_id)
        .first()
    )
    if deployment is None:
        raise DeploymentNotFoundError("there is no such deployment")
    return deployment


MAX_STAGE = 10_000


@extend_schema_field({"type": "integer", "minimum": 1, "maximum": MAX_STAGE})
class StageFilter(django_filters.NumberFilter):
    """The number of a stage."""

    field_class = forms.IntegerField


class DeploymentFilter(django_filters.FilterSet):
    status = ChoiceFilter(choices=DeploymentStatus.choices)
    strategy = ChoiceFilter(choices=Strategy.choices)
    firmwareId = django_filters.UUIDFilter("firmware_id")
    firmware = django_filters.CharFilter(method="of_firmware")
    deviceId = django_filters.CharFilter(method="of_device")
    search = django_filters.CharFilter("name", "icontains")
    tag = django_filters.CharFilter(method="of_tag")
    archived = TruthFilter("archived_at__isnull", method="in_archive")

    def of_tag(
        self, queryset: QuerySet[Deployment], name: str, value: str
    ) -> QuerySet[Deployment]:
        return queryset.filter(tags__contains=[value])

    def in_archive(
        self, queryset: QuerySet[Deployment], name: str, value: str
    ) -> QuerySet[Deployment]:
        return queryset.filter(archived_at__isnull=value == "false")

    def of_firmware(
        self, queryset: QuerySet[Deployment], name: str, value: str
    ) -> QuerySet[Deployment]:
        """Take an id, or `MODEL:VERSION`; what nothing is called has no deployment."""
        firmware_id = id_in(value)
        if firmware_id is not None:
            return queryset.filter(firmware=firmware_id)
        model, _, version = value.partition(":")
        return queryset.filter(firmware__model__name=model, firmware__version=version)

    def of_device(
        self, queryset: QuerySet[Deployment], name: str, value: str
    ) -> QuerySet[Deployment]:
        """Leave those that have chosen the device; none has before its start."""
        targets = Target.objects.filter(device__device_id=value)
        return queryset.filter(pk__in=targets.values("deployment"))


class DeploymentsView(ListView):
    """All deployments, newest first; launch on POST."""

    roles = {"GET": Role.VIEWER, "POST": Role.OPERATOR}
    queryset = Deployment.objects.select_related("firmware").prefetch_related("stages")
    filterset_class = DeploymentFilter
    output_class = DeploymentOutput
    ordering = "-created_at"

    @extend_schema(request=DeploymentInput, responses={201: CreatedDeploymentOutput})
    @idempotent
    def post(self, request: Request) -> Response:
        """Launch a deployment, now or at `scheduledAt`."""
        given = self.validated(DeploymentInput, request.data)
        deployment, audience = launch.create_deployment(
            actor=acting_person(request), request=to_request(given)
        )
        return Response(
            created_output(deployment, audience),
            status=201,
            headers={"Location": f"/api/v1/deployments/{deployment.pk}"},
        )


class PreviewView(ApiView):
    roles = {"POST": Role.OPERATOR}
    rates = {"POST": "PREVIEWS_PER_MINUTE"}

    @extend_schema(request=DeploymentInput, responses=PreviewOutput)
    def post(self, request: Request) -> Response:
        """Say what a launch would do, without doing it."""
        given = self.validated(DeploymentInput, request.data)
        preview = preview_deployment(request=to_request(given), now=timezone.now())
        return Response(to_wire(launch_preview(preview)))


class DeploymentView(ApiView):
    """One deployment."""

    roles = {"GET": Role.VIEWER, "PUT": Role.OPERATOR, "PATCH": Role.OPERATOR}

    @extend_schema(responses=DeploymentDetailOutput)
    def get(self, request: Request, deployment_id: Any) -> Response:
        return self._show(find_deployment(deployment_id))

    @extend_schema(request=DeploymentInput, responses=EditedDeploymentOutput)
    def put(self, request: Request, deployment_id: Any) -> Response:
        """Replace all that was asked for by a deployment that has yet to start."""
        given = self.validated(DeploymentInput, request.data)
        deployment, audience = editing.edit_deployment(
            actor=acting_person(request),
            deployment_id=deployment_id,
            request=to_request(given),
            expected=expected_etags(request),
        )
        return self._show(deployment, **to_wire(launch_reach(audience)))

    @extend_schema(request=LabelsInput, responses=DeploymentDetailOutput)
    def patch(self, request: Request, deployment_id: Any) -> Response:
        """Rename a deployment, tag it, or put it into the archive or out of it."""
        given = self.validated(LabelsInput, request.data)
        deployment = label_deployment(
            actor=acting_person(request),
            deployment_id=deployment_id,
            name=given.get("name"),
            tags=given.get("tags"),
            is_archived=given.get("archived"),
            expected=expected_etags(request),
        )
        return self._show(deployment)

    @staticmethod
    def _show(deployment: Deployment, **more: Any) -> Response:
        shown = DeploymentDetailOutput(deployment).data | predicted_output(deployment)
        return Response(shown | more, headers={"ETag": etag_of(deployment)})


class DeploymentStatusView(ApiView):
    """The live status of a deployment."""

    roles = {"GET": Role.VIEWER}

    @extend_schema(responses=LiveStatusOutput)
    def get(self, request: Request, deployment_id: Any) -> Response:
        deployment = find_deployment(deployment_id)
        status = deployment_status(deployment, timezone.now(), may_share=True)
        return Response(to_wire(status))


class MetricsView(ApiView):
    """The health of a deployment and how fast it is, counted when it is asked for."""

    roles = {"GET": Role.VIEWER}

    @extend_schema(responses=MetricsOutput)
    def get(self, request: Request, deployment_id: Any) -> Response:
        deployment = find_deployment(deployment_id)
        return Response(to_wire(deployment_metrics(deployment, timezone.now())))


class HealthReportView(ApiView):
    """All that is to be said about a deployment, counted when it is asked for."""

    roles = {"GET": Role.VIEWER}

    @extend_schema(responses=HealthReportOutput)
    def get(self, request: Request, deployment_id: Any) -> Response:
        deployment = find_deployment(deployment_id)
        return Response(to_wire(health_report(deployment, timezone.now())))


class DeploymentRollbacksView(ApiView):
    """The rollbacks of a deployment with what became of each device."""

    roles = {"GET": Role.VIEWER}

    @extend_schema(responses=RollbackReportOutput)
    def get(self, request: Request, deployment_id: Any) -> Response:
        deployment = find_deployment(deployment_id)
        return Response(to_wire(deployment_rollbacks(deployment, timezone.now())))


class TargetFilter(django_filters.FilterSet):
    status = ChoiceFilter(choices=TargetStatus.choices)
    stage = StageFilter("stage_number", min_value=1, max_value=MAX_STAGE)
    errorCode = django_filters.CharFilter("error_code")
    search = django_filters.CharFilter(
        method="filter_search", help_text="a part of the device id, in any case"
    )

    def filter_search(
        self, queryset: QuerySet[Target], name: str, value: str
    ) -> QuerySet[Target]:
        return queryset.filter(name_contains(value, "device__"))


class DeviceDeploymentFilter(django_filters.FilterSet):
    status = ChoiceFilter(choices=TargetStatus.choices)
    deploymentStatus = ChoiceFilter(
        "deployment__status", choices=DeploymentStatus.choices
    )


class DeploymentDevicesView(ListView):
    """The devices of a deployment in the order of their ranks."""

    roles = {"GET": Role.VIEWER}
    queryset = Target.objects.all()
    filterset_class = TargetFilter
    output_class = TargetRowOutput
    ordering = "rank"

    def get_queryset(self) -> QuerySet[Target]:
        self.deployment = find_deployment(self.kwargs["deployment_id"])
        return Target.objects.select_related("device").filter(
            deployment=self.deployment
        )

    def page_data(self, rows: list[Target]) -> Any:
        return super().page_data(target_rows(self.deployment, rows, timezone.now()))


class DeploymentDeviceView(ApiView):
    """One device of a deployment, with why it waits."""

    roles = {"GET": Role.VIEWER}

    @extend_schema(responses=TargetDetailOutput)
    def get(self, request: Request, deployment_id: Any, device_id: str) -> Response:
        deployment = find_deployment(deployment_id)
        target = (
            Target.objects.select_related("device")
            .filter(deployment=deployment, device__device_id=device_id)
            .first()
        )
        if target is None:
            raise NotFoundError(
                "this device is not part of this deployment", code="target_not_found"
            )
        return Response(to_wire(target_detail(deployment, target, timezone.now())))


class DeviceDeploymentsView(ListView):
    """The deployments that have chosen a device, the one that did so last first."""

    roles = {"GET": Role.VIEWER}
    queryset = Target.objects.all()
    filterset_class = DeviceDeploymentFilter
    output_class = DeviceDeploymentOutput
    ordering = "-id"

    def get_queryset(self) -> QuerySet[Target]:
        name = self.kwargs["device_id"]
        device = Device.objects.filter(device_id=name).first()
        if device is None:
            raise DeviceNotFoundError(f"there is no device {name!r}")
        return Target.objects.select_related("deployment__firmware__model").filter(
            device=device
        )


class EventFilter(django_filters.FilterSet):
    level = AnyOfFilter(known=Level.values)
    event = AnyNameFilter()
    stage = StageFilter("stage_number", min_value=1, max_value=MAX_STAGE)
    deviceId = django_filters.CharFilter("device__device_id")
    order = ChoiceFilter(
        choices=(("desc", "newest first"), ("asc", "oldest first")), method="in_order"
    )
    to = ZonedTimeFilter("at", "lt")
    search = django_filters.CharFilter("message", "icontains")

    def in_order(
        self, queryset: QuerySet[Event], name: str, value: str
    ) -> QuerySet[Event]:
        """Leave the rows as they are: the list itself orders them."""
        return queryset


# `from` is a word of the language, so it cannot be declared as an attribute.
EventFilter.base_filters["from"] = ZonedTimeFilter("at", "gte")


class DeploymentLogView(ListView):
    """The log of a deployment in the order in which it was written, newest first.

    `order=asc` turns it round. What is decided at once is written one after the other,
    so a line may say an earlier time than the one before it.
    """

    roles = {"GET": Role.VIEWER}
    queryset = Event.objects.all()
    filterset_class = EventFilter
    output_class = EventOutput
    ordering = "-id"

    @property
    def paginator(self) -> Any:
        if self.request.query_params.get("order") == "asc":
            self.ordering = "id"
        return super().paginator

    def get_queryset(self) -> QuerySet[Event]:
        deployment = find_deployment(self.kwargs["deployment_id"])
        return Event.objects.select_related("device").filter(deployment=deployment)


class DeploymentEvidenceView(ApiView):
    roles = {"GET": Role.ADMIN}
    rates = {"GET": "EXPORTS_PER_MINUTE"}

    @extend_schema(responses={(200, "application/zip"): OpenApiTypes.BINARY})
    def get(self, request: Request, deployment_id: Any) -> StreamingHttpResponse:
        """Give out all that is known of a deployment as one signed file."""
        pieces = deployment_evidence(
            actor=acting_person(request), deployment_id=deployment_id
        )
        return evidence_response(f"deployment-{deployment_id}", pieces)


class FirmwareExposureView(ApiView):
    roles = {"GET": Role.VIEWER}

    @extend_schema(responses=ExposureOutput)
    def get(self, request: Request, firmware_id: Any) -> Response:
        """Show who runs a firmware, and how long the fleet took from its approval."""
        firmware = get_object_or_404(
            Firmware.objects.select_related("model"), pk=firmware_id
        )
        return Response(to_wire(firmware_exposure(firmware)))


class OperateView(ApiView):
    """Pause, resume or cancel a deployment, or retry what failed."""

    roles = {"POST": Role.OPERATOR}
    verbs: ClassVar[dict[str, Any]] = {
        "pause": operate.pause_deployment,
        "resume": operate.resume_deployment,
        "cancel": operate.cancel_deployment,
        "retry-failed": operate.retry_failed,
    }
    verb = ""

    @extend_schema(request=ReasonInput, responses=DeploymentOutput)
    @idempotent
    def post(self, request: Request, deployment_id: Any) -> Response:
        given = self.validated(ReasonInput, request.data)
        deployment = self.verbs[self.verb](
            actor=acting_person(request), deployment_id=deployment_id, **given
        )
        return Response(deployment_output(deployment))


class RollbackView(ApiView):
    roles = {"POST": Role.OPERATOR}

    @extend_schema(request=RollbackInput, responses=DeploymentOutput)
    @idempotent
    def post(self, request: Request, deployment_id: Any) -> Response:
        """Send the deployment back, or with `scope` a part of it.

        Where it has to be signed, with `signature`.
        """
        given = self.validated(RollbackInput, request.data)
        signature = given_signature(request, given, Meaning.ROLLBACK)
        deployment = operate.rollback_deployment(
            actor=acting_person(request),
            deployment_id=deployment_id,
            signature=signature,
            **given,
        )
        return Response(deployment_output(deployment))


class CopyView(ApiView):
    roles = {"POST": Role.OPERATOR}

    @extend_schema(request=CopyInput, responses={201: CreatedDeploymentOutput})
    @idempotent
    def post(self, request: Request, deployment_id: Any) -> Response:
        """Launch the same again, but for the fields that are given."""
        original = find_deployment(deployment_id)
        given: dict[str, Any] = (
            request.data
            if isinstance(request.data, dict)
            # Refused there, in the words for any body that is no object.
            else self.validated(ReasonInput, request.data)
        )
        changes = {name: given[name] for name in given if name != "reason"}
        why = {name: given[name] for name in given if name == "reason"}
        reason = self.validated(ReasonInput, why)["reason"]
        body = copied_body(launch_body(original), changes)
        asked = replace(
            to_request(self.validated(DeploymentInput, body)),
            copied_from=original.pk,
            reason=reason,
        )
        deployment, audience = launch.create_deployment(
            actor=acting_person(request), request=asked
        )
        return Response(
            created_output(deployment, audience),
            status=201,
            headers={"Location": f"/api/v1/deployments/{deployment.pk}"},
        )


class ApproveStageView(ApiView):
    roles = {"POST": Role.ADMIN}

    @extend_schema(request=StageApprovalInput, responses=DeploymentOutput)
    @idempotent
    def post(self, request: Request, deployment_id: Any) -> Response:
        """Let the next stage open; under four eyes not by whoever launched.

        Where it has to be signed, with `signature`.
        """
        given = self.validated(StageApprovalInput, request.data)
        signature = given_signature(request, given, Meaning.STAGE_APPROVAL)
        deployment = operate.approve_stage(
            actor=acting_person(request),
            deployment_id=deployment_id,
            signature=signature,
            **given,
        )
        return Response(deployment_output(deployment))


class AcknowledgeHoldView(ApiView):
    roles = {"POST": Role.OPERATOR}

    @extend_schema(request=HoldAcknowledgementInput, responses=DeploymentOutput)
    @idempotent
    def post(self, request: Request, deployment_id: Any) -> Response:
        """Say that the fleet that is held has drained: the deployment goes on."""
        given = self.validated(HoldAcknowledgementInput, request.data)
        deployment = operate.acknowledge_hold(
            actor=acting_person(request), deployment_id=deployment_id, **given
        )
        return Response(deployment_output(deployment))


class FleetsView(ApiView):
    roles = {"GET": Role.VIEWER}

    @extend_schema(
        responses=FleetsOutput,
        parameters=[
            OpenApiParameter(
                "Prefer",
                str,
                OpenApiParameter.HEADER,
                description="`wait=30`: with `If-None-Match`, wait so many seconds (30 "
                "at most) for something else to answer than 304.",
            )
        ],
    )
    def get(self, request: Request, deployment_id: Any) -> Response:
        """Show the halves of a blue-green deployment, with their devices.

        The `ETag` changes with anything but `countedAt`: with `If-None-Match` a load
        balancer's agent asks often at little cost (304), or waits for a change with
        `Prefer: wait=30`. Where no thread is left to wait, the answer comes at once,
        without `Preference-Applied`.
        """
        found, etag = self._look(deployment_id)
        waited = {}
        seconds = wished_seconds(request)

        def is_news() -> bool:
            nonlocal found, etag
            found, etag = self._look(deployment_id)
            return not knows(request, etag)

        if knows(request, etag) and long_polls.wait(is_news, seconds):
            waited["Preference-Applied"] = f"wait={seconds}"
        headers = {"ETag": etag, "Vary": "Prefer", **waited}
        if knows(request, etag):
            return Response(status=304, headers=headers)
        return Response(found, headers=headers)

    @staticmethod
    def _look(deployment_id: UUID) -> tuple[dict[str, Any], str]:
        """Return the answer of now, and its ETag."""
        deployment = find_deployment(deployment_id)
        if not deployment.live_fleet:
            raise NotFoundError(
                "only a blue-green deployment has fleets", code="no_fleets"
            )
        found = to_wire(deployment_fleets(deployment, timezone.now()))
        seen = {name: value for name, value in found.items() if name != "countedAt"}
        text = json.dumps(seen, default=str, sort_keys=True)
        return found, f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


class QuarantineFilter(django_filters.FilterSet):
    deviceId = django_filters.CharFilter("device__device_id")
    firmwareId = django_filters.UUIDFilter("firmware_id")


class QuarantinesView(ListView):
    """The images that are kept from devices on which they failed too often."""

    roles = {"GET": Role.VIEWER}
    queryset = Quarantine.objects.active().select_related("device", "firmware__model")
    filterset_class = QuarantineFilter
    output_class = QuarantineOutput
    ordering = "-id"


class ReleaseQuarantineView(ApiView):
    roles = {"POST": Role.OPERATOR}

    @extend_schema(request=ReasonInput, responses=QuarantineOutput)
    @idempotent
    def post(self, request: Request, device_id: str, firmware_id: Any) -> Response:
        """Let a device be offered an image again; its failures are counted anew."""
        given = self.validated(ReasonInput, request.data)
        released = quarantine.release_quarantine(
            actor=acting_person(request),
            device_id=device_id,
            firmware_id=firmware_id,
            **given,
        )
        return Response(QuarantineOutput(released).data)
