"""Routes of health."""

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from devices.exceptions import DeviceNotFoundError
from devices.models import Device
from devices.permissions import calling_device
from health.api.serializers import HealthOutput, HeartbeatInput, HeartbeatOutput
from health.services.heartbeats import Heartbeat, latest_health, record_heartbeat
from hotswap.common.api.base import ApiView
from hotswap.common.roles import Role


class DeviceHealthView(ApiView):
    """The health of one device."""

    roles = {"GET": Role.VIEWER, "POST": Role.DEVICE}

    @extend_schema(responses=HealthOutput)
    def get(self, request: Request, device_id: str) -> Response:
        device = Device.objects.filter(device_id=device_id).first()
        if device is None:
            raise DeviceNotFoundError(f"there is no device {device_id!r}")
        return Response(latest_health(device, timezone.now()))

    @extend_schema(request=HeartbeatInput, responses=HeartbeatOutput)
    def post(self, request: Request, device_id: str) -> Response:
        """Take in a heartbeat."""
        device = calling_device(request, device_id)
        given = self.validated(HeartbeatInput, request.data)
        answer = record_heartbeat(
            device=device, beat=Heartbeat(**given), now=timezone.now()
        )
        return Response(HeartbeatOutput(answer).data)
