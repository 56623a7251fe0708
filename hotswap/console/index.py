"""The first page: what runs, and what waits for a person."""

from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from deployments.choices import DeploymentStatus
from deployments.console.badges import deployment_badge
from deployments.models import Deployment
from devices.choices import EnrolmentStatus
from devices.models import Device, DeviceKey
from firmware.choices import FirmwareStatus
from firmware.models import DeviceModel, Firmware
from hotswap.common.roles import Role
from hotswap.console.waiting import has_role, waiting_enrolments

SHOWN_ON_INDEX = 10


def overview(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Fill the index: what runs, and what waits for a person."""
    active = list(
        Deployment.objects.active()
        .select_related("firmware__model")
        .order_by("-created_at")
    )
    paused = sum(each.status == DeploymentStatus.PAUSED for each in active)
    drafts = Firmware.objects.filter(status=FirmwareStatus.DRAFT)
    deployments = reverse("admin:deployments_deployment_changelist")
    firmware = reverse("admin:firmware_firmware_changelist")
    enrolments = reverse("admin:devices_enrolmentrequest_changelist")
    devices = reverse("admin:devices_device_changelist")
    context |= {
        "title": "HotSwap",
        "cards": [
            {
                "number": len(active),
                "label": "deployments under way",
                "tone": "blue",
                "url": f"{deployments}?state=active",
            },
            {
                "number": paused,
                "label": "paused, waiting for a person",
                "tone": "amber",
                "url": f"{deployments}?state={DeploymentStatus.PAUSED.value}",
            },
            {
                "number": drafts.count(),
                "label": "firmware waiting for approval",
                "tone": "amber",
                "url": reverse("admin:firmware_approvalrequest_changelist"),
            },
            {
                "number": waiting_enrolments(),
                "label": "devices waiting to be let in",
                "tone": "amber",
                "url": f"{enrolments}?status={EnrolmentStatus.PENDING.value}",
            },
            {
                "number": Firmware.objects.filter(damaged_at__isnull=False).count(),
                "label": "firmware damaged in the store",
                "tone": "red",
                "url": f"{firmware}?damaged=yes",
            },
            {
                "number": Device.objects.alarmed().count(),
                "label": "devices whose retired key was used",
                "tone": "red",
                "url": f"{devices}?key=alarm",
            },
            {
                "number": DeviceKey.objects.expiring(timezone.now()).count(),
                "label": "device keys expired or soon to expire",
                "tone": "amber",
                "url": f"{devices}?key=expiring",
            },
        ],
        "deployments": [
            {
                "object": each,
                "badge": deployment_badge(each),
                "url": reverse("admin:deployments_deployment_change", args=[each.pk]),
            }
            for each in active[:SHOWN_ON_INDEX]
        ],
        "drafts": [
            {
                "object": each,
                "url": reverse("admin:firmware_firmware_change", args=[each.pk]),
            }
            for each in drafts.select_related("model", "uploaded_by").order_by(
                "created_at"
            )[:SHOWN_ON_INDEX]
        ],
        "launch_url": reverse("admin:deployments_deployment_launch")
        if has_role(request, Role.OPERATOR)
        else "",
        "has_nothing": not Device.objects.exists(),
        "models_url": ""
        if DeviceModel.objects.exists()
        else reverse("admin:firmware_devicemodel_changelist"),
        "may_add_models": has_role(request, Role.ADMIN),
        "register_url": reverse("admin:devices_device_register")
        if has_role(request, Role.OPERATOR)
        else "",
    }
    return context
