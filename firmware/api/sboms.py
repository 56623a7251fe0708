"""The bill of materials of a firmware, over HTTP."""

from typing import Any

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from firmware.exceptions import FirmwareNotFoundError, SbomNotFoundError
from firmware.models import Firmware, FirmwareSbom
from firmware.services.sboms import put_sbom
from hotswap.common.api.base import ApiView, acting_person
from hotswap.common.api.etags import knows
from hotswap.common.api.idempotency import idempotent
from hotswap.common.api.parsers import StrictJSONParser
from hotswap.common.api.serializers import CamelSerializer
from hotswap.common.roles import Role


class WholeJSONParser(StrictJSONParser):
    """Leave the body as it is: a bill of materials is kept to the byte."""

    @staticmethod
    def read(body: bytes) -> Any:
        """Return the bytes."""
        return body


class SbomOutput(CamelSerializer):
    format = serializers.CharField(source="form", help_text="CycloneDX or SPDX")
    spec_version = serializers.CharField()
    component_count = serializers.SerializerMethodField(
        method_name="get_component_count"
    )
    size = serializers.SerializerMethodField(method_name="get_size")
    sha256 = serializers.CharField()
    uploaded_at = serializers.DateTimeField()

    def get_component_count(self, sbom: FirmwareSbom) -> int:
        return len(sbom.components)

    def get_size(self, sbom: FirmwareSbom) -> int:
        return len(bytes(sbom.document))


class SbomView(ApiView):
    """The components that an image is made of."""

    roles = {"GET": Role.VIEWER, "POST": Role.ADMIN}
    rates = {"POST": "UPLOADS_PER_MINUTE"}
    parser_classes = [WholeJSONParser]

    @extend_schema(request=OpenApiTypes.OBJECT, responses=SbomOutput)
    @idempotent
    def post(self, request: Request, firmware_id: Any) -> Response:
        """Keep a CycloneDX or SPDX document (JSON) in place of the former one."""
        body: Any = request.data
        sbom = put_sbom(
            actor=acting_person(request),
            firmware_id=firmware_id,
            # Without a body there is an empty form in its place.
            body=body if isinstance(body, bytes) else b"",
        )
        return Response(SbomOutput(sbom).data)

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, firmware_id: Any) -> HttpResponse:
        """Give out the document as it was uploaded."""
        sbom = FirmwareSbom.objects.filter(firmware_id=firmware_id).first()
        if sbom is None:
            if not Firmware.objects.filter(pk=firmware_id).exists():
                raise FirmwareNotFoundError("there is no such firmware")
            raise SbomNotFoundError("no bill of materials was uploaded for it")
        etag = f'"{sbom.sha256[:32]}"'
        if knows(request, etag):
            return HttpResponse(status=304, headers={"ETag": etag})
        return HttpResponse(
            bytes(sbom.document),
            content_type="application/json",
            headers={"ETag": etag},
        )
