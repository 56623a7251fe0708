"""The queue of approvals: what waits for a person, and what was decided."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RadioFilter
from unfold.decorators import display

from firmware.choices import FirmwareStatus
from firmware.console.badges import DECISIONS
from firmware.console.sentences import compared_with_fleet
from firmware.models import ApprovalRequest, Firmware
from firmware.selectors import common_images, name_actors
from hotswap.common.console.badges import WAITS, badge
from hotswap.common.console.narrow_row import NarrowRow
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.text import age
from hotswap.common.models import AuditEvent


class DecidedFilter(RadioFilter):
    title = "state"
    parameter_name = "decided"
    unset = "to be decided"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "decided")]

    def queryset(
        self, request: Any, queryset: QuerySet[ApprovalRequest]
    ) -> QuerySet[ApprovalRequest]:
        if self.value() == "yes":
            return queryset.exclude(status=FirmwareStatus.DRAFT)
        return queryset.filter(status=FirmwareStatus.DRAFT)


class ApprovalAdmin(ConsoleAdmin):
    help_page = "firmware.md#approve"
    empty_words = (
        "Nothing waits for you.",
        format_html(
            "Uploaded firmware appears here until a second person has approved or "
            'rejected it. <a class="hs-link" href="{}">What was decided</a>',
            "?decided=yes",
        ),
    )
    list_name = "Approvals"
    rows_name = "images"
    narrow_row = NarrowRow(first=("decision",), titled=("requester", "since"))
    list_display = ("image", "requester", "since", "said", "change", "decision")
    list_display_links = None
    list_filter = (DecidedFilter,)
    search_fields = ("version", "model__name")
    ordering = ("created_at",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApprovalRequest]:
        return ApprovalRequest.objects.select_related("model", "uploaded_by")

    def complete(self, rows: list[Any]) -> None:
        approved = (
            Firmware.objects.filter(
                status=FirmwareStatus.APPROVED, model__in={row.model_id for row in rows}
            )
            .order_by("model_id", "-precedence", "-created_at")
            .distinct("model_id")
        )
        newest = {each.model_id: each for each in approved}
        common = common_images({row.model_id for row in rows})
        events = AuditEvent.objects.filter(
            object_kind="firmware",
            object_id__in=[str(row.pk) for row in rows],
            verb__in=DECISIONS,
        )
        decisions = {each.object_id: each for each in name_actors(list(events))}
        for row in rows:
            row.newest = newest.get(row.model_id)
            row.common = common.get(row.model_id)
            row.decided = decisions.get(str(row.pk))

    @display(description="Firmware")
    def image(self, row: ApprovalRequest) -> SafeString:
        return format_html(
            '<a class="hs-link" href="{}">{}</a>',
            reverse("admin:firmware_firmware_change", args=[row.pk]),
            row,
        )

    @display(description="Requested by")
    def requester(self, row: ApprovalRequest) -> str:
        return row.uploaded_by.username if row.uploaded_by else "–"

    @display(description="Age", ordering="created_at")
    def since(self, row: ApprovalRequest) -> SafeString:
        return age(row.created_at)

    @display(description="Note for the approver")
    def said(self, row: ApprovalRequest) -> str:
        return row.request_comment or "–"

    @display(description="Compared with what the fleet runs")
    def change(self, row: Any) -> str:
        if row.status != FirmwareStatus.DRAFT:
            return "–"
        return "; ".join(compared_with_fleet(row, row.common, row.newest))

    @display(description="Decision")
    def decision(self, row: Any) -> SafeString:
        if row.decided is None:
            return badge("Waiting", WAITS, "pending_actions")
        return format_html(
            "<span>{} {}, {} {}</span>",
            badge(*DECISIONS[row.decided.verb]),
            row.decided.actor_name or "a person since erased",
            age(row.decided.at),
            row.decided.details.get("comment", ""),
        )
