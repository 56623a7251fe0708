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
from hotswap.console.mailbox import has_mailbox
from hotswap.console.waiting import has_role, waiting_enrolments


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the entries of the sidebar; `needs` names the role of those out of reach.

    What is seldom needed is folded, unless one is there.
    """
    launch = reverse("admin:deployments_deployment_launch")

    def entry(
        title: str,
        name: str,
        symbol: str,
        role: Role = Role.VIEWER,
        *,
        waiting: int = 0,
        variant: str = "warning",
        query: str = "",
    ) -> dict[str, Any]:
        link = reverse(name)
        return {
            "title": title,
            "icon": symbol,
            "link": f"{link}?{query}" if query else link,
            "needs": "" if has_role(request, role) else role.value,
            "active": request.path == link
            or (
                name.endswith(("_changelist", "manual"))
                and request.path.startswith(link)
                and request.path != launch
            ),
            "badge": f"{waiting:,}" if waiting else "",
            "badge_variant": variant,
        }

    def listed(title: str, model: str, *more: Any, **badge: Any) -> dict[str, Any]:
        return entry(title, f"admin:{model}_changelist", *more, **badge)

    drafts = Firmware.objects.filter(status=FirmwareStatus.DRAFT)
    enrolments = waiting_enrolments()
    held_back = images_held_back().count()
    return [
        {
            "items": [
                entry("Overview", "admin:index", "home"),
                entry("System", "system", "monitor_heart"),
            ]
        },
        {
            "title": "Rollouts",
            "items": [
                listed(
                    "Deployments",
                    "deployments_deployment",
                    "rocket_launch",
                    waiting=Deployment.objects.active().count(),
                    variant="info",
                ),
                entry(
                    "Launch",
                    "admin:deployments_deployment_launch",
                    "play_circle",
                    Role.OPERATOR,
                ),
                listed("Rollbacks", "deployments_rollback", "history"),
                listed(
                    "Quarantine",
                    "deployments_quarantine",
                    "coronavirus",
                    waiting=Quarantine.objects.active().count(),
                ),
            ],
        },
        {
            "title": "Fleet",
            "items": [
                listed("Devices", "devices_device", "sensors"),
                listed("Groups", "devices_devicegroup", "workspaces"),
                listed(
                    "Enrolments",
                    "devices_enrolmentrequest",
                    "how_to_reg",
                    waiting=enrolments,
                    # First of all those that wait.
                    query="status=Pending" if enrolments else "",
                ),
                listed(
                    "Enrolment tokens", "devices_enrolmenttoken", "vpn_key", Role.ADMIN
                ),
                listed("Imports", "devices_deviceimport", "upload_file", Role.ADMIN),
            ],
        },
        {
            "title": "Catalogue",
            "items": [
                listed("Firmware", "firmware_firmware", "memory"),
                listed(
                    "Approvals",
                    "firmware_approvalrequest",
                    "approval",
                    waiting=drafts.count(),
                ),
                listed("Device models", "firmware_devicemodel", "developer_board"),
            ],
        },
        _folded(
            "Keys",
            [
                listed(
                    "Signing keys",
                    "firmware_signingkey",
                    "key",
                    waiting=held_back,
                    variant="danger",
                ),
                listed("Storage keys", "firmware_storagekey", "lock"),
            ],
            is_open=held_back > 0,
        ),
        _folded(
            "Notifications",
            [
                *(
                    listed(
                        channel.plural.capitalize(),
                        f"deployments_{channel.model._meta.model_name}",
                        channel.icon,
                        Role.ADMIN,
                    )
                    for channel in CHANNELS
                ),
                listed("Deliveries", "deployments_delivery", "outbox", Role.ADMIN),
                *(
                    [entry("Mailbox", "mailbox", "inbox", Role.ADMIN)]
                    if has_mailbox()
                    else []
                ),
            ],
        ),
        {
            "title": "Administration",
            "items": [
                listed("Audit", "common_auditevent", "history_edu", Role.ADMIN),
                listed("Users", "common_user", "group", Role.ADMIN),
            ],
        },
        _folded(
            "Help",
            [
                entry("Manual", "manual", "menu_book"),
                entry("API reference", "docs", "api"),
            ],
        ),
    ]


def _folded(
    title: str, items: list[dict[str, Any]], *, is_open: bool = False
) -> dict[str, Any]:
    """Return a group that is folded unless one of its pages is shown."""
    return {
        "title": title,
        "items": items,
        "collapsible": True,
        "is_open": is_open or any(item["active"] for item in items),
    }
