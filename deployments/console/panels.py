"""What deployments show on the pages of firmware, devices and groups."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RadioFilter

from deployments.choices import DeploymentStatus, TargetStatus
from deployments.console.badges import (
    DEPLOYMENT_BADGES,
    TARGET_BADGES,
    deployment_badge,
    failed_of,
    status_badge,
    words_of,
)
from deployments.console.live import segments_of
from deployments.models import Deployment, Event, Quarantine, Target, Update
from deployments.services.progress import count_stages_of, total_of
from devices.models import Device, DeviceGroup
from firmware.console.sentences import fleet_of_model
from firmware.models import Firmware
from firmware.selectors import firmware_incidents, firmware_use
from hotswap.common.console.actions.base import Button, link_button
from hotswap.common.console.badges import DONE, FAILED, MOVING, NOT_STARTED, badge
from hotswap.common.console.panels import (
    Column,
    Panel,
    register_button,
    register_column,
    register_filter,
    register_log,
    register_panel,
    register_selection_button,
)
from hotswap.common.console.text import age
from hotswap.common.models import User
from hotswap.common.roles import Role

SHOWN_ORDERS = 10
SHOWN_DEPLOYMENTS = 20
ORDER_BADGES = {
    "success": (DONE, "check"),
    "failed": (FAILED, "error"),
    "cancelled": (NOT_STARTED, "block"),
    "superseded": (NOT_STARTED, "block"),
}


def _launch_button(user: User, **chosen: str) -> Button:
    """Lead to a launch in which something is chosen already."""
    url = f"{reverse('admin:deployments_deployment_launch')}?{urlencode(chosen)}"
    return link_button(user, "Launch", "rocket_launch", url, Role.OPERATOR)


def launch_of_firmware(user: User, firmware: Firmware) -> Button | None:
    """Return the way to a launch of a firmware, if it can be deployed."""
    if not Firmware.objects.deployable().filter(pk=firmware.pk).exists():
        return None
    return _launch_button(user, firmwareId=str(firmware.pk))


def launch_to_device(user: User, device: Device) -> Button | None:
    """Return the way to a launch to a device, if that takes updates."""
    if device.revoked_at is not None or not device.enabled:
        return None
    return _launch_button(user, target="devices", targetDevices=device.device_id)


def launch_to_group(user: User, group: DeviceGroup) -> Button:
    """Return the way to a launch to a group."""
    return _launch_button(user, target="groups", targetGroups=str(group.pk))


def incidents_context(
    request: HttpRequest, firmware: Firmware
) -> dict[str, Any] | None:
    """Return what has gone wrong with a firmware before."""
    incidents = firmware_incidents([firmware.pk]).get(firmware.pk)
    return None if incidents is None else {"incidents": incidents}


def use_context(request: HttpRequest, firmware: Firmware) -> dict[str, Any]:
    """Return how the installs of a firmware end, and what deploys it now."""
    use = firmware_use(firmware)
    return {
        "use": use,
        "fleet": fleet_of_model(firmware, use),
        "deployment_pages": [
            (
                each,
                DEPLOYMENT_BADGES[DeploymentStatus(each.status)][2],
                reverse("admin:deployments_deployment_change", args=[each.id]),
            )
            for each in use.deployments
        ],
    }


def deployments_context(request: HttpRequest, firmware: Firmware) -> dict[str, Any]:
    """Return the deployments of a firmware, the newest first, and what they came to."""
    found = list(
        Deployment.objects.filter(firmware=firmware)
        .select_related("created_by")
        .order_by("-created_at")[: SHOWN_DEPLOYMENTS + 1]
    )
    counts = count_stages_of([each.pk for each in found])
    now = timezone.now()
    rows = []
    for each in found[:SHOWN_DEPLOYMENTS]:
        progress = total_of(counts[each.pk]).by_status
        rows.append(
            {
                "deployment": each,
                "url": reverse("admin:deployments_deployment_change", args=[each.pk]),
                "badge": deployment_badge(each, failed=failed_of(progress)),
                "segments": segments_of(progress),
                "updated": progress[TargetStatus.SUCCESS],
                "total": sum(progress.values()),
                "created": age(each.created_at, now),
            }
        )
    return {"rows": rows, "has_more": len(found) > SHOWN_DEPLOYMENTS}


def updates_context(request: HttpRequest, device: Device) -> dict[str, Any]:
    """Return the last deployments of a device, and its last orders."""
    now = timezone.now()
    orders = (
        Update.objects.filter(device=device)
        .select_related("firmware__model", "deployment")
        .order_by("-offered_at")[:SHOWN_ORDERS]
    )
    targets = (
        Target.objects.filter(device=device)
        .select_related("deployment__firmware__model")
        .order_by("-pk")[:SHOWN_ORDERS]
    )
    return {
        "orders": [
            {
                "order": order,
                "badge": badge(
                    order.status, *ORDER_BADGES.get(order.status, (MOVING, "sync"))
                ),
                "offered": age(order.offered_at, now),
            }
            for order in orders
        ],
        "deployments": [
            {
                "target": target,
                "status": deployment_badge(target.deployment),
                "badge": status_badge(TARGET_BADGES, target.status),
                "changed": age(target.updated_at, now),
            }
            for target in targets
        ],
    }


def newest_events(
    device: Device, limit: int, until: datetime | None
) -> Iterable[Event]:
    """Return the newest lines about a device in the logs of its deployments."""
    events = Event.objects.filter(device=device)
    if until is not None:
        events = events.filter(at__lte=until)
    return events.order_by("-at", "-id")[:limit]


def last_deployments(devices: Sequence[Device]) -> dict[Any, SafeString]:
    """Return the newest deployment of each device of a page, and how it went there."""
    targets = (
        Target.objects.filter(device__in=devices)
        .order_by("device_id", "-pk")
        .distinct("device_id")
        .select_related("deployment")
    )
    return {
        target.device_id: format_html(
            '<a class="hs-link" href="{}">{}</a> <span class="hs-hint">{}</span>',
            reverse("admin:deployments_deployment_change", args=[target.deployment_id]),
            target.deployment,
            TARGET_BADGES[TargetStatus(target.status)][2],
        )
        for target in targets
    }


class LastOutcomeFilter(RadioFilter):
    """How the newest deployment of a device went there."""

    title = "last outcome"
    parameter_name = "outcome"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return words_of(TARGET_BADGES)

    def queryset(self, request: Any, queryset: QuerySet[Device]) -> QuerySet[Device]:
        if self.value() not in TargetStatus.values:
            return queryset
        newer = Target.objects.filter(device=OuterRef("device"), pk__gt=OuterRef("pk"))
        ended = Target.objects.filter(
            ~Exists(newer), device=OuterRef("pk"), status=self.value()
        )
        return queryset.filter(Exists(ended))


class QuarantinedFilter(RadioFilter):
    title = "quarantine"
    parameter_name = "quarantined"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "quarantined")]

    def queryset(self, request: Any, queryset: QuerySet[Device]) -> QuerySet[Device]:
        if self.value() != "yes":
            return queryset
        held = Quarantine.objects.active().filter(device=OuterRef("pk"))
        return queryset.filter(Exists(held))


def launch_to_selection(user: User) -> Button:
    """Return the way to a launch to the selected devices."""
    url = reverse("admin:deployments_deployment_launch")
    return link_button(user, "Deploy to these", "rocket_launch", url, Role.OPERATOR)


def register_panels() -> None:
    """Show on the pages of other apps what deployments have to say there."""
    register_button(Firmware, launch_of_firmware)
    register_button(Device, launch_to_device)
    register_button(DeviceGroup, launch_to_group)
    register_panel(
        Firmware, Panel("banners", "console/firmware_incidents.html", incidents_context)
    )
    register_panel(
        Firmware,
        Panel("use", "console/firmware_deployments.html", deployments_context),
    )
    register_panel(Firmware, Panel("image", "console/firmware_use.html", use_context))
    register_panel(
        Device, Panel("updates", "console/device_deployments.html", updates_context)
    )
    register_log(Device, newest_events)
    register_filter(Device, QuarantinedFilter)
    register_filter(Device, LastOutcomeFilter)
    register_column(
        Device, Column("last_deployment", "Last deployment", last_deployments)
    )
    register_selection_button(Device, launch_to_selection)
