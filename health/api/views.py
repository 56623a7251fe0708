"""Routes of health."""

from django.db import OperationalError
from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from devices.exceptions import DeviceNotFoundError
from devices.models import Device
from devices.permissions import calling_device
from health.api.serializers import (
    DeviceEventOutput,
    HealthHistoryOutput,
    HealthOutput,
    HeartbeatInput,
    HeartbeatOutput,
    heartbeat_output,
    read_history_query,
)
from health.models import DeviceEvent
from health.services import history
from health.services.heartbeats import latest_health, take_in_heartbeat
from health.services.refusals import note_refused_heartbeat
from hotswap.common.api.base import ApiView, ListView
from hotswap.common.api.parsers import LenientJSONParser
from hotswap.common.roles import Role

# Statuses that say that the body is wrong.
REFUSALS = (400, 413, 415)


def find_device(device_id: str) -> Device:
    """Return a device by its own name.

    Raises:
        DeviceNotFoundError: there is none.
    """
    device = Device.objects.filter(device_id=device_id).first()
    if device is None:
        raise DeviceNotFoundError(f"there is no device {device_id!r}")
    return device


class DeviceHealthView(ApiView):
    """The health of one device."""

    roles = {"GET": Role.VIEWER, "POST": Role.DEVICE}
    parser_classes = [LenientJSONParser]
    is_routine = True
    caller: Device | None = None

    @extend_schema(responses=HealthOutput)
    def get(self, request: Request, device_id: str) -> Response:
        device = find_device(device_id)
        return Response(latest_health(device, timezone.now()))

    @extend_schema(request=HeartbeatInput, responses=HeartbeatOutput)
    def post(self, request: Request, device_id: str) -> Response:
        """Take in what can be used of a heartbeat, and name the rest."""
        self.caller = device = calling_device(request, device_id)
        answer = take_in_heartbeat(device=device, body=request.data, now=timezone.now())
        return Response(heartbeat_output(answer))

    def handle_exception(self, exc: Exception) -> Response:
        """Count what is refused of a device that was let in: it was heard."""
        response = super().handle_exception(exc)
        if self.caller is None or response.status_code not in REFUSALS:
            return response
        reason = str(getattr(exc, "detail", "") or exc)
        try:
            note_refused_heartbeat(
                device=self.caller, reason=reason, now=timezone.now()
            )
        except OperationalError as error:
            return super().handle_exception(error)
        return response


class DeviceEventsView(ListView):
    """What happened to a device by itself, newest first."""

    roles = {"GET": Role.VIEWER}
    queryset = DeviceEvent.objects.all()
    output_class = DeviceEventOutput
    ordering = "-id"

    def get_queryset(self) -> QuerySet[DeviceEvent]:
        return DeviceEvent.objects.filter(device=find_device(self.kwargs["device_id"]))


class DeviceHistoryView(ApiView):
    """The health that a device reported over time."""

    roles = {"GET": Role.VIEWER}
    query_parameters = frozenset({"from", "to", "metric"})

    @extend_schema(
        parameters=[
            OpenApiParameter(
                "from",
                OpenApiTypes.DATETIME,
                description="24 hours before `to` unless given",
            ),
            OpenApiParameter(
                "to", OpenApiTypes.DATETIME, description="excluded; now unless given"
            ),
            OpenApiParameter(
                "metric",
                OpenApiTypes.STR,
                description="an application metric to give as well, by its name in "
                "the heartbeats",
            ),
        ],
        responses=HealthHistoryOutput,
    )
    def get(self, request: Request, device_id: str) -> Response:
        """Give at most 300 points; times without a heartbeat have none."""
        device = find_device(device_id)
        query = read_history_query(request.query_params)
        found = history.device_history(device=device, now=timezone.now(), **query)
        return Response(history.history_as_json(device, found))
