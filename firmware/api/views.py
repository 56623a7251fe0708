"""Routes of firmware: the catalogue, uploads, approval, public keys."""

import hashlib
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from firmware.api.filters import SORTS, FirmwareFilter
from firmware.api.serializers import (
    DeprecationOutput,
    DeviceModelOutput,
    FirmwareOutput,
    FirmwareUseOutput,
    HistoryOutput,
    SigningKeyOutput,
    UploadOutput,
)
from firmware.inputs import (
    ApprovalInput,
    DeprecationInput,
    DeviceModelChangesInput,
    DeviceModelInput,
    FirmwareInput,
    NotesInput,
    ReinstatementInput,
    RejectInput,
)
from firmware.models import DeviceModel, Firmware, SigningKey
from firmware.selectors import firmware_history, firmware_use, name_actors
from firmware.services.approval import (
    approve_firmware,
    change_release_notes,
    delete_firmware,
    deprecate_firmware,
    reinstate_firmware,
    reject_firmware,
)
from firmware.services.device_models import (
    change_device_model,
    create_device_model,
    found_device_model,
)
from firmware.services.evidence import firmware_evidence
from firmware.services.uploads import UploadOutcome, register_firmware
from firmware.services.verification import verify_firmware
from firmware.uploads import FILE_FIELD, receive_upload
from hotswap.common.api.base import ApiView, ListView, acting_person
from hotswap.common.api.etags import expected_etags, knows
from hotswap.common.api.idempotency import idempotent
from hotswap.common.api.serializers import CamelSerializer, EmptyInput
from hotswap.common.api.signatures import given_signature
from hotswap.common.etags import etag_of
from hotswap.common.evidence.export import evidence_response
from hotswap.common.models import AuditEvent
from hotswap.common.roles import Role
from hotswap.common.signatures import Meaning

# A revocation reaches everyone within 5 s, whatever stands in between.
CACHE_KEYS = "public, max-age=5, must-revalidate"
UPLOAD_SCHEMA = {
    "multipart/form-data": {
        "type": "object",
        "required": ["file", "version", "model"],
        "properties": {
            "file": {"type": "string", "format": "binary"},
            "version": {
                "type": "string",
                "description": "a version in the scheme of the model",
            },
            "model": {"type": "string"},
            "releaseNotes": {"type": "string"},
            "securityVersion": {"type": "integer", "minimum": 0},
            "rebootRequired": {"type": "boolean"},
            "checksum": {
                "type": "string",
                "pattern": "^[0-9A-Fa-f]{64}$",
                "description": "the SHA-256 that the image must have",
            },
            "requestComment": {
                "type": "string",
                "description": "what the approver is told",
            },
        },
    }
}


def firmware_response(
    firmware: Firmware, status: int = 200, more: dict[str, Any] | None = None
) -> Response:
    headers = {"ETag": etag_of(firmware)}
    if status == 201:
        headers["Location"] = f"/api/v1/firmware/{firmware.pk}"
    return Response(
        FirmwareOutput(firmware).data | (more or {}), status=status, headers=headers
    )


def execute(
    view: ApiView,
    request: Request,
    firmware_id: UUID,
    body: type[CamelSerializer],
    service: Callable[..., Firmware],
    meaning: Meaning | None = None,
) -> Response:
    """Call a service for one firmware with the fields of the body.

    Args:
        meaning: what the person signs by it; None where nothing is signed.
    """
    given = view.validated(body, request.data)
    if meaning is not None:
        given = {**given, "signature": given_signature(request, given, meaning)}
    firmware = service(
        actor=acting_person(request),
        firmware_id=firmware_id,
        expected=expected_etags(request),
        **given,
    )
    return firmware_response(firmware)


def model_response(model: DeviceModel, status: int = 200) -> Response:
    headers = {"ETag": etag_of(model)}
    if status == 201:
        headers["Location"] = f"/api/v1/device-models/{model.pk}"
    return Response(DeviceModelOutput(model).data, status=status, headers=headers)


class DeviceModelsView(ListView):
    """The catalogue of device models."""

    roles = {"GET": Role.VIEWER, "POST": Role.ADMIN}
    queryset = DeviceModel.objects.all()
    output_class = DeviceModelOutput
    ordering = "name"

    @extend_schema(request=DeviceModelInput, responses={201: DeviceModelOutput})
    @idempotent
    def post(self, request: Request) -> Response:
        given = self.validated(DeviceModelInput, request.data)
        model = create_device_model(actor=acting_person(request), **given)
        return model_response(model, 201)


class DeviceModelView(ApiView):
    """One device model."""

    roles = {"GET": Role.VIEWER, "PATCH": Role.ADMIN}

    @extend_schema(responses=DeviceModelOutput)
    def get(self, request: Request, model_id: UUID) -> Response:
        return model_response(found_device_model(model_id))

    @extend_schema(request=DeviceModelChangesInput, responses=DeviceModelOutput)
    def patch(self, request: Request, model_id: UUID) -> Response:
        given = self.validated(DeviceModelChangesInput, request.data)
        return model_response(
            change_device_model(
                actor=acting_person(request),
                model_id=model_id,
                changes=given,
                expected=expected_etags(request),
            )
        )


class FirmwareListView(ListView):
    """All firmware, newest first; upload on POST."""

    roles = {"GET": Role.VIEWER, "POST": Role.ADMIN}
    rates = {"POST": "UPLOADS_PER_MINUTE"}
    queryset = Firmware.objects.select_related(
        "model", "key", "uploaded_by", "approved_by"
    ).prefetch_related("later_signatures__key")
    filterset_class = FirmwareFilter
    output_class = FirmwareOutput
    ordering = "-created_at"

    @property
    def paginator(self) -> Any:
        paginator = super().paginator
        wanted = SORTS.get(self.request.query_params.get("sort", ""))
        if wanted is not None:
            paginator.ordering = wanted
        return paginator

    @extend_schema(
        request=UPLOAD_SCHEMA, responses={200: UploadOutput, 201: UploadOutput}
    )
    def post(self, request: Request) -> Response:
        """Upload an image as a Draft; the same version and bytes again answer 200.

        Sending the bytes of an image that was found damaged in the store again
        repairs it; `repaired` says so. Of an image with another `checksum` than the
        given one nothing is kept.
        """
        with receive_upload(request) as (fields, staged):
            given = self.validated(FirmwareInput, fields)
            if staged is None:
                raise ValidationError({FILE_FIELD: ["is missing"]}, code="required")
            if staged.size == 0:
                raise ValidationError({FILE_FIELD: ["is empty"]}, code="empty")
            firmware, outcome = register_firmware(
                actor=acting_person(request),
                model_name=given.pop("model"),
                staged=staged,
                **given,
            )
        return firmware_response(
            firmware,
            201 if outcome is UploadOutcome.NEW else 200,
            {"repaired": outcome is UploadOutcome.REPAIRED},
        )


class FirmwareView(ApiView):
    """One firmware."""

    roles = {"GET": Role.VIEWER, "PATCH": Role.ADMIN, "DELETE": Role.ADMIN}

    @extend_schema(responses=FirmwareOutput)
    def get(self, request: Request, firmware_id: Any) -> Response:
        rows = Firmware.objects.select_related(
            "model", "key", "uploaded_by", "approved_by"
        )
        return firmware_response(get_object_or_404(rows, pk=firmware_id))

    @extend_schema(request=NotesInput, responses=FirmwareOutput)
    def patch(self, request: Request, firmware_id: Any) -> Response:
        return execute(self, request, firmware_id, NotesInput, change_release_notes)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, firmware_id: Any) -> Response:
        """Delete a Draft or rejected firmware, with its image."""
        self.validated(EmptyInput, request.data)
        delete_firmware(
            actor=acting_person(request),
            firmware_id=firmware_id,
            expected=expected_etags(request),
        )
        return Response(status=204)


class ApproveView(ApiView):
    roles = {"POST": Role.ADMIN}

    @extend_schema(request=ApprovalInput, responses=FirmwareOutput)
    @idempotent
    def post(self, request: Request, firmware_id: Any) -> Response:
        """Approve a Draft; where it has to be signed, with `signature`."""
        given = self.validated(ApprovalInput, request.data)
        firmware = approve_firmware(
            actor=acting_person(request),
            firmware_id=firmware_id,
            comment=given["comment"],
            signature=given_signature(request, given, Meaning.APPROVAL),
            expected=expected_etags(request),
        )
        return firmware_response(firmware)


class RejectView(ApiView):
    roles = {"POST": Role.ADMIN}

    @extend_schema(request=RejectInput, responses=FirmwareOutput)
    @idempotent
    def post(self, request: Request, firmware_id: Any) -> Response:
        """Reject a Draft for good; where it has to be signed, with `signature`."""
        return execute(
            self,
            request,
            firmware_id,
            RejectInput,
            reject_firmware,
            Meaning.REJECTION,
        )


class DeprecateView(ApiView):
    roles = {"POST": Role.ADMIN}

    @extend_schema(request=DeprecationInput, responses=DeprecationOutput)
    @idempotent
    def post(self, request: Request, firmware_id: Any) -> Response:
        """Close an approved version to new deployments.

        With `cancelDeployments` it is recalled: deployments of it that wait or run
        are cancelled too, also those of a version that was deprecated before. Where it
        has to be signed, with `signature`.
        """
        given = self.validated(DeprecationInput, request.data)
        signature = given_signature(request, given, Meaning.WITHDRAWAL)
        firmware, cancelled = deprecate_firmware(
            actor=acting_person(request),
            firmware_id=firmware_id,
            signature=signature,
            expected=expected_etags(request),
            **given,
        )
        return firmware_response(
            firmware, more={"cancelledDeployments": [str(pk) for pk in cancelled]}
        )


class ReinstateView(ApiView):
    roles = {"POST": Role.ADMIN}

    @extend_schema(request=ReinstatementInput, responses=FirmwareOutput)
    @idempotent
    def post(self, request: Request, firmware_id: Any) -> Response:
        """Open a deprecated version to new deployments again.

        Where it has to be signed, with `signature`.
        """
        return execute(
            self,
            request,
            firmware_id,
            ReinstatementInput,
            reinstate_firmware,
            Meaning.REINSTATEMENT,
        )


class VerifyView(ApiView):
    roles = {"POST": Role.ADMIN}

    @extend_schema(request=None, responses=FirmwareOutput)
    def post(self, request: Request, firmware_id: Any) -> Response:
        """Read the stored image and compare it with its checksum.

        The answer is 200 either way: `damagedAt` says whether it is whole.
        """
        return firmware_response(
            verify_firmware(actor=acting_person(request), firmware_id=firmware_id)
        )


class FirmwareUseView(ApiView):
    roles = {"GET": Role.VIEWER}

    @extend_schema(responses=FirmwareUseOutput)
    def get(self, request: Request, firmware_id: Any) -> Response:
        """Say who runs it and which deployments of it wait or are at work."""
        firmware = get_object_or_404(Firmware, pk=firmware_id)
        query = urlencode(
            {"model": firmware.model.name, "firmwareChecksum": firmware.sha256}
        )
        use = firmware_use(firmware)
        devices_url = f"/api/v1/devices?{query}"
        return Response(
            FirmwareUseOutput(
                {
                    "device_count": use.device_count,
                    "devices_url": devices_url,
                    "deployments": use.deployments,
                    "proved_count": use.proved_count,
                    "failed_count": use.failed_count,
                    "success_percent": use.success_percent,
                }
            ).data
        )


class FirmwareHistoryView(ListView):
    """What people and the server decided about a firmware, newest first."""

    roles = {"GET": Role.VIEWER}
    queryset = AuditEvent.objects.all()
    output_class = HistoryOutput
    ordering = "-id"

    def get_queryset(self) -> QuerySet[AuditEvent]:
        firmware = get_object_or_404(
            Firmware.objects.only("pk"), pk=self.kwargs["firmware_id"]
        )
        return firmware_history(firmware.pk)

    def page_data(self, rows: Any) -> Any:
        return super().page_data(name_actors(list(rows)))


class FirmwareEvidenceView(ApiView):
    roles = {"GET": Role.ADMIN}
    rates = {"GET": "EXPORTS_PER_MINUTE"}

    @extend_schema(responses={(200, "application/zip"): OpenApiTypes.BINARY})
    def get(self, request: Request, firmware_id: Any) -> StreamingHttpResponse:
        """Give out all that is known of an image as one signed file."""
        pieces = firmware_evidence(
            actor=acting_person(request), firmware_id=firmware_id
        )
        return evidence_response(f"firmware-{firmware_id}", pieces)


class SigningKeysView(ApiView):
    """The public halves of the signing keys that devices may trust."""

    roles = {"GET": Role.ANYONE}
    authentication_classes = []

    @extend_schema(responses=SigningKeyOutput(many=True))
    def get(self, request: Request) -> Response:
        """List the active, the next and the retiring signing keys, in this order.

        Retired and revoked ones are omitted, so that what is listed may be pinned. A
        copy is good for 5 s, after which it is asked again whether it has changed.
        """
        keys = SigningKey.objects.published(timezone.now()).order_by(
            # Active, Next, Retiring: whoever takes the first takes the one that signs.
            "status",
            "-created_at",
        )
        shown = SigningKeyOutput(keys, many=True).data
        digest = hashlib.sha256(json.dumps(shown, default=str).encode()).hexdigest()
        etag = f'"{digest[:32]}"'
        headers = {"Cache-Control": CACHE_KEYS, "ETag": etag}
        if knows(request, etag):
            return Response(status=304, headers=headers)
        return Response(shown, headers=headers)
