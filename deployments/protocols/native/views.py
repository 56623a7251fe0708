"""The full path of what devices ask: it answers whatever the fast path leaves."""

from typing import Any

from django.http.response import HttpResponseBase
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.exceptions import NoActiveUpdateError
from deployments.protocols.native.instruction import Instruction, instruction_of
from deployments.protocols.native.messages import (
    ReportInput,
    ReportOutput,
    read_report,
    report_output,
)
from deployments.services import offers, reports
from devices.permissions import calling_device, still_admitted
from firmware.api.downloads import image_response
from firmware.api.trust import TRUSTED_KEYS, trusted_keys
from hotswap.common.api.base import ApiView
from hotswap.common.api.outputs import output_of
from hotswap.common.api.parsers import LenientJSONParser
from hotswap.common.roles import Role

POLL_INTERVAL_HEADER = "Poll-Interval"
InstructionOutput = output_of(Instruction)


class DeviceUpdateView(ApiView):
    roles = {"GET": Role.DEVICE}
    is_routine = True

    @extend_schema(
        parameters=[TRUSTED_KEYS], responses={200: InstructionOutput, 204: None}
    )
    def get(self, request: Request, device_id: str) -> Response:
        """Ask for work: 204, or 200 with the instruction."""
        device = calling_device(request, device_id)
        answer = offers.poll(
            device=device,
            now=timezone.now(),
            trusted=trusted_keys(request),
        )
        response = (
            Response(status=204)
            if answer.order is None
            else Response(instruction_of(answer.order))
        )
        response[POLL_INTERVAL_HEADER] = str(int(answer.interval.total_seconds()))
        return response


class UpdateReportsView(ApiView):
    roles = {"POST": Role.DEVICE}
    is_routine = True

    parser_classes = [LenientJSONParser]

    @extend_schema(request=ReportInput, responses=ReportOutput)
    def post(self, request: Request, device_id: str, update_id: Any) -> Response:
        """Say how far an update has come; stored before it is acknowledged."""
        device = calling_device(request, device_id)
        report, ignored = read_report(request.data)
        applied = reports.apply_report(
            device_id=device.pk,
            name=device.device_id,
            update_id=update_id,
            report=report,
            now=timezone.now(),
        )
        return Response(report_output(applied, ignored))


class DownloadView(ApiView):
    roles = {"GET": Role.DEVICE}
    is_piecewise = True

    @extend_schema(
        responses={
            (200, "application/octet-stream"): OpenApiTypes.BINARY,
            307: OpenApiResponse(
                description="the image lies at this Location for a minute at most"
            ),
        }
    )
    def get(self, request: Request, firmware_id: Any) -> HttpResponseBase:
        """Download an image that this device was ordered to install."""
        device = calling_device(request)
        found = offers.find_download(device_id=device.pk, firmware_id=firmware_id)
        if found is None:
            raise NoActiveUpdateError(
                "this device has no active update to this firmware"
            )
        region, firmware = found
        return image_response(
            request._request,
            firmware,
            device=device.pk,
            region=region,
            is_admitted=still_admitted(request),
        )
