"""The list of firmware, and the page of one."""

from collections.abc import Iterator
from typing import Any

from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RadioFilter
from unfold.decorators import display

from firmware.choices import FirmwareStatus
from firmware.console.actions.firmware import (
    ApproveFirmware,
    CheckFirmware,
    DeleteFirmware,
    DeprecateFirmware,
    ReinstateFirmware,
    RejectFirmware,
)
from firmware.console.actions.upload import UploadFirmware
from firmware.console.badges import firmware_badge, incidents_badge
from firmware.models import Firmware, FirmwareSbom
from firmware.selectors import (
    firmware_figures,
    firmware_history,
    firmware_incidents,
    last_verification,
    name_actors,
    signature_holds,
)
from firmware.services.evidence import firmware_evidence
from hotswap.common.console.badges import DONE, FAILED, WAITS, badge
from hotswap.common.console.narrow_row import NarrowRow
from hotswap.common.console.pages.evidence import EvidencePage
from hotswap.common.console.text import age, in_bytes, percent_in_words
from hotswap.common.models import User

WHAT_TO_DO_ABOUT_DAMAGE = (
    "It is offered to no device any more. Upload the same image again under the same "
    "version, which repairs it; or restore the file from your backup and have it "
    "checked."
)


SHOWN_HISTORY = 50
SHOWN_COMPONENTS = 200


class DamagedFilter(RadioFilter):
    title = "damage"
    parameter_name = "damaged"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "damaged in the store")]

    def queryset(
        self, request: Any, queryset: QuerySet[Firmware]
    ) -> QuerySet[Firmware]:
        if self.value() == "yes":
            return queryset.filter(damaged_at__isnull=False, removed_at=None)
        return queryset


class StatusFilter(RadioFilter):
    title = "status"
    parameter_name = "status__exact"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return list(FirmwareStatus.choices)

    def queryset(
        self, request: Any, queryset: QuerySet[Firmware]
    ) -> QuerySet[Firmware]:
        return queryset.filter(status=self.value()) if self.value() else queryset


class FirmwareAdmin(EvidencePage):
    help_page = "firmware.md"
    api_path = "firmware"
    api_field = "pk"
    audit_kind = "firmware"
    is_signed = True
    empty_words = (
        "There is no firmware.",
        "Upload an image: it is a draft until another Admin approves it.",
    )
    console_actions = (
        UploadFirmware,
        ApproveFirmware,
        RejectFirmware,
        DeprecateFirmware,
        ReinstateFirmware,
        CheckFirmware,
        DeleteFirmware,
    )
    page_template = "console/firmware.html"
    narrow_row = NarrowRow(
        first=("model", "state"),
        left_out=("approver", "uploader", "bytes", "signed"),
        titled=("running", "success"),
    )
    list_display = (
        *("version", "model", "state", "running", "success", "approver"),
        *("uploader", "bytes", "signed", "since"),
    )
    list_select_related = ("model", "key", "uploaded_by", "approved_by")
    list_filter = (StatusFilter, DamagedFilter)
    search_fields = ("version", "model__name", "sha256")
    search_help_text = "Version, model or SHA-256"
    ordering = ("-created_at",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Firmware]:
        return Firmware.objects.select_related(
            *self.list_select_related
        ).prefetch_related("later_signatures__key")

    def more_urls(self) -> list[URLPattern]:
        return [
            *super().more_urls(),
            path(
                "<path:object_id>/sbom/",
                self.protected(self.sbom_view),
                name=self.url_name("sbom"),
            ),
        ]

    def sbom_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Send the bill of materials as it was uploaded."""
        firmware = self.found(request, object_id)
        sbom = FirmwareSbom.objects.filter(firmware=firmware).first()
        if sbom is None:
            raise Http404
        return HttpResponse(
            bytes(sbom.document),
            content_type="application/json",
            headers={
                "Content-Disposition": f'attachment; filename="sbom-{firmware.pk}.json"'
            },
        )

    def evidence(self, actor: User, obj: Firmware) -> Iterator[bytes]:
        return firmware_evidence(actor=actor, firmware_id=obj.pk)

    def complete(self, rows: list[Any]) -> None:
        ids = [row.pk for row in rows]
        incidents, figures = firmware_incidents(ids), firmware_figures(ids)
        for row in rows:
            row.incidents = incidents.get(row.pk)
            row.figures = figures[row.pk]

    @display(description="Status")
    def state(self, firmware: Any) -> SafeString:
        if firmware.incidents is None:
            return self.own_state(firmware)
        return format_html(
            "{} {}", self.own_state(firmware), incidents_badge(firmware.incidents)
        )

    @staticmethod
    def own_state(firmware: Firmware) -> SafeString:
        if firmware.damaged_at is None and firmware.signature_revoked_at is not None:
            held = badge("Held back", FAILED, "block", "its signing key was revoked")
            return format_html("{} {}", firmware_badge(firmware), held)
        if firmware.damaged_at is None:
            return firmware_badge(firmware)
        if firmware.removed_at is not None:
            removed = badge("Image removed", WAITS, "delete", firmware.damage)
            return format_html("{} {}", firmware_badge(firmware), removed)
        return format_html(
            '{} {} <span class="hs-hint">{}</span>',
            firmware_badge(firmware),
            badge("Damaged", FAILED, "broken_image", firmware.damage),
            "restore it or upload a new version",
        )

    @display(description="Devices running it")
    def running(self, firmware: Any) -> str:
        return f"{firmware.figures.device_count:,}"

    @display(description="Success rate")
    def success(self, firmware: Any) -> SafeString:
        figures = firmware.figures
        if not figures.settled_count:
            return format_html('<span class="hs-subtle">{}</span>', "–")
        return format_html(
            '{} <span class="hs-hint">of {}</span>',
            percent_in_words(figures.success_percent),
            f"{figures.settled_count:,}",
        )

    @display(description="Approved by")
    def approver(self, firmware: Firmware) -> str:
        return firmware.approved_by.username if firmware.approved_by else "–"

    @display(description="Size", ordering="size")
    def bytes(self, firmware: Firmware) -> str:
        return in_bytes(firmware.size)

    @display(description="Signed with")
    def signed(self, firmware: Firmware) -> SafeString:
        key, _ = firmware.best_signature()
        return format_html('<code class="hs-code">{}</code>', key.key_id)

    @display(description="Uploaded by")
    def uploader(self, firmware: Firmware) -> str:
        return firmware.uploaded_by.username if firmware.uploaded_by else "–"

    @display(description="Age", ordering="-created_at")
    def since(self, firmware: Firmware) -> SafeString:
        return age(firmware.created_at)

    def page_context(self, request: HttpRequest, obj: Firmware) -> dict[str, Any]:
        key, signature = obj.best_signature()
        verified = last_verification(obj)
        sbom = FirmwareSbom.objects.defer("document").filter(firmware=obj).first()
        return {
            "sbom": sbom,
            "sbom_uploaded": sbom and age(sbom.uploaded_at),
            "components": sbom.components[:SHOWN_COMPONENTS] if sbom else (),
            "sbom_url": self.url("sbom", obj.pk),
            "verified": verified,
            "verified_at": age(verified.at) if verified else "",
            "signature_badge": badge("Valid", DONE, "verified")
            if signature_holds(obj)
            else badge("Not valid", FAILED, "gpp_bad"),
            "history": name_actors(
                list(firmware_history(obj.pk).order_by("-id")[:SHOWN_HISTORY])
            ),
            "signature": signature,
            "signing_key": key,
            "signing_key_url": reverse(
                "admin:firmware_signingkey_change", args=[key.pk]
            ),
            "status": firmware_badge(obj),
            "size": f"{in_bytes(obj.size)} ({obj.size:,} bytes)",
            "what_to_do": WHAT_TO_DO_ABOUT_DAMAGE,
            "uploaded": age(obj.created_at),
            "approved": age(obj.approved_at),
        }
