"""The entries of the sidebar, with how much waits behind each."""

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from deployments.models import Deployment, Quarantine
from deployments.notifications.channels.registry import CHANNELS
from firmware.choices import FirmwareStatus
from firmware.models import Firmware
from firmware.services.key_rotation import images_held_back
from hotswap.common.roles import Role
from hotswap.console.waiting import has_role, waiting_enrolments


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the entries of the sidebar, those of Admins for Admins only."""
    launch = reverse("admin:deployments_deployment_launch")

    def entry(title: str, name: str, symbol: str, **more: Any) -> dict[str, Any]:
        link = reverse(f"admin:{name}")
        return {
            "title": title,
            "icon": symbol,
            "link": link,
            "active": request.path == link
            or (
                name.endswith("_changelist")
                and request.path.startswith(link)
                and request.path != launch
            ),
            **more,
        }

    deployments = [
        entry(
            "Deployments",
            "deployments_deployment_changelist",
            "rocket_launch",
            **_badge(Deployment.objects.active().count(), "info"),
        )
    ]
    if has_role(request, Role.OPERATOR):
        deployments.append(
            entry("Launch", "deployments_deployment_launch", "play_circle")
        )
    deployments.append(entry("Rollbacks", "deployments_rollback_changelist", "history"))
    deployments.append(
        entry(
            "Quarantine",
            "deployments_quarantine_changelist",
            "coronavirus",
            **_badge(Quarantine.objects.active().count(), "warning"),
        )
    )
    groups: list[dict[str, Any]] = [
        {
            "items": [
                entry("Index", "index", "home"),
                {
                    "title": "System",
                    "icon": "monitor_heart",
                    "link": reverse("system"),
                    "active": request.path == reverse("system"),
                },
            ],
        },
        {
            "title": "Rollouts",
            "items": deployments,
        },
        {
            "title": "Catalogue",
            "items": [
                entry("Firmware", "firmware_firmware_changelist", "memory"),
                entry(
                    "Approvals",
                    "firmware_approvalrequest_changelist",
                    "approval",
                    **_badge(
                        Firmware.objects.filter(status=FirmwareStatus.DRAFT).count(),
                        "warning",
                    ),
                ),
                entry(
                    "Device models",
                    "firmware_devicemodel_changelist",
                    "developer_board",
                ),
            ],
        },
        {
            "title": "Keys",
            "items": [
                entry(
                    "Signing keys",
                    "firmware_signingkey_changelist",
                    "key",
                    **_badge(images_held_back().count(), "danger"),
                ),
                entry("Storage keys", "firmware_storagekey_changelist", "lock"),
            ],
        },
        {
            "title": "Fleet",
            "items": [
                entry("Devices", "devices_device_changelist", "sensors"),
                entry("Groups", "devices_devicegroup_changelist", "workspaces"),
                entry(
                    "Enrolments",
                    "devices_enrolmentrequest_changelist",
                    "how_to_reg",
                    **_badge(waiting_enrolments(), "warning"),
                ),
            ],
        },
    ]
    if has_role(request, Role.ADMIN):
        groups[-1]["items"] += [
            entry("Enrolment tokens", "devices_enrolmenttoken_changelist", "vpn_key"),
            entry("Imports", "devices_deviceimport_changelist", "upload_file"),
        ]
    if has_role(request, Role.ADMIN):
        groups.append(
            {
                "title": "Notifications",
                "items": [
                    *(
                        entry(
                            channel.plural.capitalize(),
                            f"deployments_{channel.model._meta.model_name}_changelist",
                            channel.icon,
                        )
                        for channel in CHANNELS
                    ),
                    entry("Deliveries", "deployments_delivery_changelist", "outbox"),
                ],
            }
        )
        groups.append(
            {
                "title": "Administration",
                "items": [
                    entry("Audit", "common_auditevent_changelist", "history_edu"),
                    entry("People", "common_user_changelist", "group"),
                ],
            }
        )
    return groups


def _badge(number: int, variant: str) -> dict[str, str]:
    return {"badge": str(number), "badge_variant": variant} if number else {}
