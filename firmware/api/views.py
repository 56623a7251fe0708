"""Routes of firmware: the catalogue, uploads, approval, public keys."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from firmware.api.filters import FirmwareFilter
from firmware.api.serializers import (
    CommentInput,
    DeprecationInput,
    DeviceModelInput,
    DeviceModelOutput,
    FirmwareInput,
    FirmwareOutput,
    NotesInput,
    RejectInput,
    SigningKeyOutput,
)
from firmware.api.uploads import FILE_FIELD, receive_upload
from firmware.models import DeviceModel, Firmware, SigningKey
from firmware.services import registry
from hotswap.common.api.base import ApiView, ListView, acting_person
from hotswap.common.api.etags import etag_of, expected_etags
from hotswap.common.api.idempotency import idempotent
from hotswap.common.api.serializers import CamelSerializer
from hotswap.common.roles import Role

UPLOAD_SCHEMA = {
    "multipart/form-data": {
        "type": "object",
        "required": ["file", "version", "model"],
        "properties": {
            "file": {"type": "string", "format": "binary"},
            "version": {"type": "string"},
            "model": {"type": "string"},
            "releaseNotes": {"type": "string"},
            "securityVersion": {"type": "integer", "minimum": 0},
            "rebootRequired": {"type": "boolean"},
        },
    }
}


def firmware_response(firmware: Firmware, status: int = 200) -> Response:
    return Response(
        FirmwareOutput(firmware).data,
        status=status,
        headers={"ETag": etag_of(firmware)},
    )


def act(
    view: ApiView,
    request: Request,
    firmware_id: UUID,
    body: type[CamelSerializer],
    verb: Callable[..., Firmware],
) -> Response:
    """Let a service act on one firmware with the fields of the body."""
    given = view.validated(body, request.data)
    firmware = verb(
        actor=acting_person(request),
        firmware_id=firmware_id,
        expected=expected_etags(request),
        **given,
    )
    return firmware_response(firmware)


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
        model = registry.create_device_model(actor=acting_person(request), **given)
        return Response(DeviceModelOutput(model).data, status=201)


class FirmwareListView(ListView):
    """All firmware, newest first; upload on POST."""

    roles = {"GET": Role.VIEWER, "POST": Role.ADMIN}
    queryset = Firmware.objects.select_related(
        "model", "key", "uploaded_by", "approved_by"
    )
    filterset_class = FirmwareFilter
    output_class = FirmwareOutput
    ordering = "-created_at"

    @extend_schema(request=UPLOAD_SCHEMA, responses={201: FirmwareOutput})
    def post(self, request: Request) -> Response:
        """Upload an image as a Draft; the same version and bytes again answer 200."""
        with receive_upload(request) as (fields, staged):
            given = self.validated(FirmwareInput, fields)
            if staged is None:
                raise ValidationError({FILE_FIELD: ["is missing"]}, code="required")
            if staged.size == 0:
                raise ValidationError({FILE_FIELD: ["is empty"]}, code="empty")
            firmware, is_new = registry.register_firmware(
                actor=acting_person(request),
                model_name=given.pop("model"),
                staged=staged,
                **given,
            )
        return firmware_response(firmware, 201 if is_new else 200)


class FirmwareView(ApiView):
    """One firmware."""

    roles = {"GET": Role.VIEWER, "PATCH": Role.ADMIN}

    @extend_schema(responses=FirmwareOutput)
    def get(self, request: Request, firmware_id: Any) -> Response:
        rows = Firmware.objects.select_related(
            "model", "key", "uploaded_by", "approved_by"
        )
        return firmware_response(get_object_or_404(rows, pk=firmware_id))

    @extend_schema(request=NotesInput, responses=FirmwareOutput)
    def patch(self, request: Request, firmware_id: Any) -> Response:
        return act(
            self, request, firmware_id, NotesInput, registry.change_release_notes
        )


class ApproveView(ApiView):
    roles = {"POST": Role.ADMIN}

    @extend_schema(request=CommentInput, responses=FirmwareOutput)
    @idempotent
    def post(self, request: Request, firmware_id: Any) -> Response:
        """Approve a Draft."""
        return act(self, request, firmware_id, CommentInput, registry.approve_firmware)


class RejectView(ApiView):
    roles = {"POST": Role.ADMIN}

    @extend_schema(request=RejectInput, responses=FirmwareOutput)
    @idempotent
    def post(self, request: Request, firmware_id: Any) -> Response:
        """Reject a Draft for good."""
        return act(self, request, firmware_id, RejectInput, registry.reject_firmware)


class DeprecateView(ApiView):
    roles = {"POST": Role.ADMIN}

    @extend_schema(request=DeprecationInput, responses=FirmwareOutput)
    @idempotent
    def post(self, request: Request, firmware_id: Any) -> Response:
        """Close an approved version to new deployments."""
        return act(
            self, request, firmware_id, DeprecationInput, registry.deprecate_firmware
        )


class SigningKeysView(ApiView):
    """The public halves of the signing keys."""

    roles = {"GET": Role.ANYONE}
    authentication_classes = []

    @extend_schema(responses=SigningKeyOutput(many=True))
    def get(self, request: Request) -> Response:
        keys = SigningKey.objects.order_by("created_at")
        return Response(
            SigningKeyOutput(keys, many=True).data,
            headers={"Cache-Control": "public, max-age=60"},
        )
