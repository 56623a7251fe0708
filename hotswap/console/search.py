"""The search over all kinds of objects."""

import re
from typing import Any

from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from unfold.dataclasses import SearchResult

from deployments.models import Deployment
from devices.models import Device, DeviceGroup
from firmware.models import DeviceModel, Firmware
from hotswap.common.models import User
from hotswap.common.roles import Role
from hotswap.console.waiting import has_role

FOUND_PER_KIND = 8
DIGEST = re.compile(r"[0-9a-fA-F]{6,64}")


def find(request: HttpRequest, text: str) -> list[SearchResult]:
    """Find what has a name, or a digest, like the text, a few of each kind."""
    if not has_role(request, Role.VIEWER):
        return []
    firmware = Firmware.objects.filter(
        Q(version__startswith=text) | Q(model__name__icontains=text) | _digest(text)
    )
    kinds: list[tuple[str, str, QuerySet[Any]]] = [
        (
            "Device",
            "devices_device",
            Device.objects.filter(device_id__icontains=text).order_by("device_id"),
        ),
        (
            "Deployment",
            "deployments_deployment",
            Deployment.objects.filter(name__icontains=text).order_by("-created_at"),
        ),
        (
            "Firmware",
            "firmware_firmware",
            firmware.select_related("model").order_by("-created_at"),
        ),
        (
            "Group",
            "devices_devicegroup",
            DeviceGroup.objects.filter(name__icontains=text).order_by("name"),
        ),
        (
            "Device model",
            "firmware_devicemodel",
            DeviceModel.objects.filter(name__icontains=text).order_by("name"),
        ),
    ]
    if has_role(request, Role.ADMIN):
        people = User.objects.filter(username__icontains=text).order_by("username")
        kinds.append(("Person", "common_user", people))
    return [
        SearchResult(
            title=str(each),
            description=kind,
            link=reverse(f"admin:{name}_change", args=[each.pk]),
            icon="arrow_forward",
        )
        for kind, name, found in kinds
        for each in found[:FOUND_PER_KIND]
    ]


def _digest(text: str) -> Q:
    """Match the begin of a SHA-256, once it is long enough to be meant as one."""
    is_digest = DIGEST.fullmatch(text) is not None
    return Q(sha256__startswith=text.lower()) if is_digest else Q(pk__in=[])
