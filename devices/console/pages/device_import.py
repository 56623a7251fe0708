"""The list of imports, and the page of one, which moves while it runs."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from unfold.decorators import display

from devices.choices import ACTIONS, OPEN_IMPORTS, LineOutcome
from devices.console.actions.device_import import (
    ApplyImport,
    DownloadKeys,
    EraseKeys,
    ImportDevices,
)
from devices.console.badges import import_badge
from devices.models import Device, DeviceImport
from hotswap.common.console.badges import DONE, FAILED, MOVING, NOT_STARTED
from hotswap.common.console.narrow_row import NarrowRow
from hotswap.common.console.pages.base import AdminsOnly
from hotswap.common.console.requests import READING
from hotswap.common.console.text import age

SHOWN_LINES = 100


class DeviceImportAdmin(AdminsOnly):
    help_page = "devices.md#importing"
    api_path = "device-imports"
    api_field = "pk"
    audit_kind = "device-import"
    list_name = "Imports"
    console_actions = (ImportDevices, ApplyImport, DownloadKeys, EraseKeys)
    page_template = "console/import.html"
    empty_words = (
        "Nothing was imported in the last 30 days.",
        "Many devices are registered at once from a CSV file or from JSON lines.",
    )
    narrow_row = NarrowRow(
        first=("by", "state"), titled=("lines", "made", "altered", "refused")
    )
    list_display = (
        "since",
        "by",
        "kind",
        "state",
        "lines",
        "made",
        "altered",
        "refused",
    )
    ordering = ("-created_at",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeviceImport]:
        return DeviceImport.objects.select_related("requested_by")

    @display(description="Started", ordering="created_at")
    def since(self, batch: DeviceImport) -> SafeString:
        return age(batch.created_at)

    @display(description="By")
    def by(self, batch: DeviceImport) -> str:
        return batch.requested_by.username if batch.requested_by else "–"

    @display(description="Status")
    def state(self, batch: DeviceImport) -> SafeString:
        return import_badge(batch)

    @display(description="Mode")
    def kind(self, batch: DeviceImport) -> str:
        return f"{batch.mode}, dry run" if batch.is_dry_run else batch.mode

    @display(description="Updated")
    def altered(self, batch: DeviceImport) -> str:
        return f"{batch.updated:,}"

    @display(description="Lines")
    def lines(self, batch: DeviceImport) -> str:
        return f"{batch.total:,}"

    @display(description="Created")
    def made(self, batch: DeviceImport) -> str:
        return f"{batch.created:,}"

    @display(description="Rejected")
    def refused(self, batch: DeviceImport) -> str:
        return f"{batch.rejected:,}"

    def more_urls(self) -> list[URLPattern]:
        return [
            path(
                "<path:object_id>/live/",
                self.protected(self.live_view),
                name=self.url_name("live"),
            )
        ]

    def live_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Render the moving part of the page; when it is done, the page anew."""
        if request.method not in READING:
            return HttpResponse(status=405, headers={"Allow": ", ".join(READING)})
        if not self.has_view_permission(request):
            return HttpResponse(status=403)
        batch = self.found(request, object_id)
        headers = {"Cache-Control": "no-store"}
        if batch.status not in OPEN_IMPORTS:
            # The buttons for the keys lie outside of the moving part.
            headers["HX-Refresh"] = "true"
        return TemplateResponse(
            request,
            "console/import_live.html",
            {"item": batch, **self.page_context(request, batch)},
            headers=headers,
        )

    @staticmethod
    def created(batch: DeviceImport) -> list[tuple[str, str]]:
        """Return name and address of the first devices that it has registered."""
        lines = batch.lines.filter(outcome=LineOutcome.CREATED).order_by("line")
        names = list(lines.values_list("device_id", flat=True)[:SHOWN_LINES])
        keys = dict(
            Device.objects.filter(device_id__in=names).values_list("device_id", "pk")
        )
        return [
            (name, reverse("admin:devices_device_change", args=[keys[name]]))
            for name in names
            if name in keys
        ]

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        rejected = obj.lines.filter(outcome=LineOutcome.REJECTED).order_by("line")
        differing = obj.lines.filter(
            outcome__in=[LineOutcome.CREATED, LineOutcome.UPDATED]
        ).order_by("line")
        total = max(obj.total, 1)
        return {
            "status": import_badge(obj),
            "is_running": obj.status in OPEN_IMPORTS,
            "live_url": self.url("live", obj.pk),
            "started": age(obj.created_at),
            "finished": age(obj.finished_at),
            "keys_end": age(obj.keys_end_at) if obj.keys_end_at else "",
            "percent": 100 * obj.done // total,
            "segments": [
                {
                    "tone": tone,
                    "width": 100 * number / total,
                    "number": number,
                    "word": word,
                }
                for tone, number, word in (
                    (DONE, obj.created, "created"),
                    (MOVING, obj.updated, "updated"),
                    (NOT_STARTED, obj.unchanged, "unchanged"),
                    (FAILED, obj.rejected, "rejected"),
                )
            ],
            "differing": [
                {"line": line, "action": ACTIONS[LineOutcome(line.outcome)].value}
                for line in differing[:SHOWN_LINES]
            ]
            if obj.is_dry_run
            else [],
            "differing_count": obj.created + obj.updated,
            "applied_url": self.page_url(obj.applied_as) if obj.applied_as else "",
            "created_devices": [] if obj.is_dry_run else self.created(obj),
            "lines": list(rejected[:SHOWN_LINES]),
            "shown": SHOWN_LINES,
        }
