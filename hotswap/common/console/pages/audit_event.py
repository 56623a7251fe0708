"""The audit trail: a list that nobody changes."""

import json
from typing import Any

from django.db.models import QuerySet
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RadioFilter
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.models import AuditEvent, User


class ObjectKindFilter(RadioFilter):
    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        kinds = ("deployment", "device", "device-group", "device-model", "firmware")
        return [(kind, kind) for kind in (*kinds, "person")]

    def queryset(
        self, request: Any, queryset: QuerySet[AuditEvent]
    ) -> QuerySet[AuditEvent]:
        return queryset.filter(object_kind=self.value()) if self.value() else queryset


class ActorKindFilter(RadioFilter):
    title = "who"
    parameter_name = "who"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return list(AuditEvent.ActorKind.choices)

    def queryset(
        self, request: Any, queryset: QuerySet[AuditEvent]
    ) -> QuerySet[AuditEvent]:
        return queryset.filter(actor_kind=self.value()) if self.value() else queryset


PAGES = {
    "deployment": "admin:deployments_deployment_change",
    "device": "admin:devices_device_change",
    "device-group": "admin:devices_devicegroup_change",
    "firmware": "admin:firmware_firmware_change",
}


class AuditEventAdmin(ConsoleAdmin):
    empty_words = (
        "Nothing was recorded yet.",
        "What people do, and what the server decides, is kept here.",
    )
    list_name = "Audit"
    paginator = InfinitePaginator
    list_display = ("when", "who", "verb", "what", "said")
    list_display_links = None
    list_filter = (ObjectKindFilter, ActorKindFilter)
    search_fields = ("verb", "object_id")
    search_help_text = "Action or id of the object"
    ordering = ("-id",)

    def complete(self, rows: list[Any]) -> None:
        # Names are joined when read: the rows themselves hold pseudonyms only.
        actors = {row.actor for row in rows if row.actor}
        names = dict(
            User.objects.filter(pseudonym__in=actors).values_list(
                "pseudonym", "username"
            )
        )
        for row in rows:
            row.actor_name = names.get(row.actor)

    @display(description="When")
    def when(self, row: AuditEvent) -> SafeString:
        return format_html(
            '<time datetime="{}">{}</time>',
            row.at.isoformat(),
            f"{row.at:%Y-%m-%d %H:%M:%S} UTC",
        )

    @display(description="Who")
    def who(self, row: Any) -> str:
        match row.actor_kind:
            case AuditEvent.ActorKind.SERVER:
                return "the server"
            case AuditEvent.ActorKind.DEVICE:
                return "the device itself"
            case _:
                return row.actor_name or f"erased person {str(row.actor)[:8]}"

    @display(description="What")
    def what(self, row: AuditEvent) -> SafeString:
        words = f"{row.object_kind} {row.object_id[:8]}"
        try:
            url = reverse(PAGES[row.object_kind], args=[row.object_id])
        except (KeyError, NoReverseMatch):
            return format_html('<span title="{}">{}</span>', row.object_id, words)
        return format_html(
            '<a class="hs-link" href="{}" title="{}">{}</a>', url, row.object_id, words
        )

    @display(description="Details")
    def said(self, row: AuditEvent) -> SafeString:
        parts = [
            f"{name}: {value if isinstance(value, str) else json.dumps(value)}"
            for name, value in row.details.items()
            if value not in ("", None)
        ]
        return format_html('<span class="hs-details">{}</span>', "; ".join(parts))
