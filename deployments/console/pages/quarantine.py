"""The list of quarantined firmware, and the page of one quarantine."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString
from unfold.decorators import display

from deployments.console.actions.quarantine import Release
from deployments.models import Quarantine
from hotswap.common.console.narrow_row import NarrowRow
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.text import age


class QuarantineAdmin(ConsoleAdmin):
    help_page = "deployments.md#quarantine"
    api_path = "quarantines"
    console_actions = (Release,)
    narrow_row = NarrowRow(first=("image", "since"), titled=("failures",))
    list_display = ("on_device", "image", "failures", "last_code", "since")
    search_fields = ("device__device_id", "firmware__version")
    search_help_text = "Device or version"
    ordering = ("-quarantined_at",)
    page_template = "console/quarantine.html"
    list_name = "Quarantine"
    rows_name = "quarantined images"
    empty_words = (
        "No firmware is kept from a device.",
        "What fails on a device again and again is not offered there any more.",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Quarantine]:
        return Quarantine.objects.active().select_related("device", "firmware__model")

    @display(description="Device", ordering="device__device_id")
    def on_device(self, kept: Quarantine) -> str:
        return kept.device.device_id

    @display(description="Firmware")
    def image(self, kept: Quarantine) -> str:
        return str(kept.firmware)

    @display(description="Since", ordering="quarantined_at")
    def since(self, kept: Quarantine) -> SafeString:
        return age(kept.quarantined_at)

    def page_context(self, request: HttpRequest, obj: Quarantine) -> dict[str, Any]:
        return {
            "since": age(obj.quarantined_at),
            "device_url": reverse("admin:devices_device_change", args=[obj.device_id]),
            "firmware_url": reverse(
                "admin:firmware_firmware_change", args=[obj.firmware_id]
            ),
        }
