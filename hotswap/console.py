"""The console as a whole: what may be loaded, the sidebar, the index, the search."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.templatetags.static import static
from django.urls import reverse
from django.utils import timezone
from unfold.dataclasses import SearchResult

from deployments.choices import DeploymentStatus
from deployments.console.words import deployment_pill
from deployments.models import Deployment, Quarantine
from devices.choices import EnrolmentStatus
from devices.models import Device, DeviceKey, EnrolmentRequest
from firmware.choices import FirmwareStatus
from firmware.models import DeviceModel, Firmware
from firmware.services.rings import images_held_back
from hotswap.common.models import User
from hotswap.common.roles import Role

SHOWN_ON_INDEX = 10
FOUND_PER_KIND = 8

# Styles: Unfold's theme colours and htmx's indicator are `<style>` elements, and the
# API's documentation has one too. Scripts: Alpine and htmx evaluate expressions.
POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
CONSOLE_POLICY = f"{POLICY}; script-src 'self' 'unsafe-eval'"


class ContentSecurityMiddleware:
    """Tell browsers to load nothing from elsewhere and to run no inline script."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.console = ""

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        # Asked for here, as addresses are not known yet when this is made.
        self.console = self.console or reverse("admin:index")
        is_console = request.path.startswith(self.console)
        response.headers.setdefault(
            "Content-Security-Policy", CONSOLE_POLICY if is_console else POLICY
        )
        return response


def stylesheet(request: HttpRequest) -> str:
    return static("hotswap/console.css")


def script(request: HttpRequest) -> str:
    return static("hotswap/console.js")


def icon(request: HttpRequest) -> str:
    return static("hotswap/icon.svg")


def environment_label(request: HttpRequest) -> list[str] | None:
    """Say on every page of a demo that its waits are shorter than real ones."""
    if not settings.DEMO_CLOCK:
        return None
    return [f"Demo – waits shortened ({settings.DEMO_CLOCK})", "warning"]


def _may(request: HttpRequest, role: Role) -> bool:
    return isinstance(request.user, User) and request.user.may(role)


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
    if _may(request, Role.OPERATOR):
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
            "items": [entry("Index", "index", "home")],
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
                    **_badge(_waiting_enrolments(), "warning"),
                ),
            ],
        },
    ]
    if _may(request, Role.ADMIN):
        groups[-1]["items"] += [
            entry("Enrolment tokens", "devices_enrolmenttoken_changelist", "vpn_key"),
            entry("Imports", "devices_deviceimport_changelist", "upload_file"),
        ]
    if _may(request, Role.ADMIN):
        groups.append(
            {
                "title": "Notifications",
                "items": [
                    entry("Webhooks", "deployments_webhook_changelist", "webhook"),
                    entry(
                        "Mail recipients",
                        "deployments_mailrecipient_changelist",
                        "mail",
                    ),
                    entry("Gateways", "deployments_gateway_changelist", "sms"),
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


def _waiting_enrolments() -> int:
    return EnrolmentRequest.objects.filter(status=EnrolmentStatus.PENDING).count()


def _badge(number: int, variant: str) -> dict[str, str]:
    return {"badge": str(number), "badge_variant": variant} if number else {}


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
                "number": _waiting_enrolments(),
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
                "pill": deployment_pill(each),
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
        if _may(request, Role.OPERATOR)
        else "",
        "has_nothing": not Device.objects.exists(),
        "models_url": ""
        if DeviceModel.objects.exists()
        else reverse("admin:firmware_devicemodel_changelist"),
        "may_add_models": _may(request, Role.ADMIN),
        "register_url": reverse("admin:devices_device_register")
        if _may(request, Role.OPERATOR)
        else "",
    }
    return context


def find(request: HttpRequest, text: str) -> list[SearchResult]:
    """Find devices, deployments and firmware by their names, a few of each."""
    if not _may(request, Role.VIEWER):
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
