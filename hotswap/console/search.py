"""The search over all kinds of objects."""

from django.http import HttpRequest
from django.urls import reverse
from unfold.dataclasses import SearchResult

from deployments.models import Deployment
from devices.models import Device
from firmware.models import Firmware
from hotswap.common.roles import Role
from hotswap.console.waiting import has_role

FOUND_PER_KIND = 8


def find(request: HttpRequest, text: str) -> list[SearchResult]:
    """Find devices, deployments and firmware by their names, a few of each."""
    if not has_role(request, Role.VIEWER):
        return []
    devices = Device.objects.filter(device_id__icontains=text).order_by("device_id")
    deployments = Deployment.objects.filter(name__icontains=text).order_by(
        "-created_at"
    )
    firmware = Firmware.objects.filter(version__startswith=text).select_related("model")
    found = [
        *((each, "Device", "devices_device") for each in devices[:FOUND_PER_KIND]),
        *(
            (each, "Deployment", "deployments_deployment")
            for each in deployments[:FOUND_PER_KIND]
        ),
        *(
            (each, "Firmware", "firmware_firmware")
            for each in firmware[:FOUND_PER_KIND]
        ),
    ]
    return [
        SearchResult(
            title=str(each),
            description=kind,
            link=reverse(f"admin:{name}_change", args=[each.pk]),
            icon="arrow_forward",
        )
        for each, kind, name in found
    ]
