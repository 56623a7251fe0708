"""The audit trail: a list that nobody changes."""

import json
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RadioFilter
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from hotswap.common.console.audit_chain import chain_context, check_view
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.models import AuditEvent, User

SPANS = (("1", "24 hours"), ("7", "7 days"), ("30", "30 days"))
# Of a search: words that are looked at, and objects of each kind that a word may name.
MAX_WORDS = 5
MAX_NAMED = 50


def pages_by_kind() -> dict[str, ConsoleAdmin]:
    """Return the page of each kind of object, by what the audit trail calls it."""
    return {
        page.audit_kind: page
        for page in admin.site._registry.values()
        if isinstance(page, ConsoleAdmin) and page.audit_kind
    }


class ObjectKindFilter(RadioFilter):
    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(kind, kind) for kind in sorted(pages_by_kind())]

    def queryset(
        self, request: Any, queryset: QuerySet[AuditEvent]
    ) -> QuerySet[AuditEvent]:
        return queryset.filter(object_kind=self.value()) if self.value() else queryset


class SinceFilter(RadioFilter):
    title = "when"
    parameter_name = "since"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(days, f"last {words}") for days, words in SPANS]

    def queryset(
        self, request: Any, queryset: QuerySet[AuditEvent]
    ) -> QuerySet[AuditEvent]:
        if self.value() not in dict(SPANS):
            return queryset
        begin = timezone.now() - timedelta(days=int(self.value()))
        return queryset.filter(at__gte=begin)


class ActorKindFilter(RadioFilter):
    title = "who"
    parameter_name = "who"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return list(AuditEvent.ActorKind.choices)

    def queryset(
        self, request: Any, queryset: QuerySet[AuditEvent]
    ) -> QuerySet[AuditEvent]:
        return queryset.filter(actor_kind=self.value()) if self.value() else queryset


class AuditEventAdmin(ConsoleAdmin):
    empty_words = (
        "Nothing was recorded yet.",
        "What people do, and what the server decides, is kept here.",
    )
    list_name = "Audit"
    paginator = InfinitePaginator
    list_display = ("when", "who", "verb", "what", "said")
    list_display_links = None
    list_filter = (SinceFilter, ObjectKindFilter, ActorKindFilter)
    list_before_template = "console/audit_chain.html"
    search_fields = ("verb", "object_id")
    search_help_text = "Action, person, device or another object"
    ordering = ("-id",)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        return super().changelist_view(
            request, {**chain_context(), **(extra_context or {})}
        )

    def more_urls(self) -> list[URLPattern]:
        check = self.protected(check_view)
        return [path("chain/", check, name=self.url_name("chain"))]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AuditEvent], search_term: str
    ) -> tuple[QuerySet[AuditEvent], bool]:
        """Find what each word names: an action, who acted, or what it was done to.

        Rows hold pseudonyms and ids; so people and objects are looked up by the word
        first, the first few of each kind.
        """
        for word in search_term.split()[:MAX_WORDS]:
            actors = User.objects.filter(username__icontains=word)
            pseudonyms = list(actors.values_list("pseudonym", flat=True)[:MAX_NAMED])
            found = Q(verb__icontains=word) | Q(object_id=word)
            found |= Q(actor__in=pseudonyms)
            for kind, page in pages_by_kind().items():
                if not page.search_fields:
                    continue
                objects, _ = page.get_search_results(
                    request, page.model._default_manager.all(), word
                )
                keys = objects.order_by().values_list(page.audit_field, flat=True)
                ids = [str(key) for key in keys[:MAX_NAMED]]
                found |= Q(object_kind=kind, object_id__in=ids)
            queryset = queryset.filter(found)
        return queryset, False

    def complete(self, rows: list[Any]) -> None:
        # Names are joined when read: the rows themselves hold pseudonyms only.
        actors = {row.actor for row in rows if row.actor}
        names = dict(
            User.objects.filter(pseudonym__in=actors).values_list(
                "pseudonym", "username"
            )
        )
        objects = self._objects(rows)
        for row in rows:
            row.actor_name = names.get(row.actor)
            row.object = objects.get((row.object_kind, row.object_id))

    @staticmethod
    def _objects(rows: list[Any]) -> dict[tuple[str, str], tuple[str, str]]:
        """Return name and address of what the rows are about, as far as it is there."""
        found = {}
        for kind, page in pages_by_kind().items():
            ids = {row.object_id for row in rows if row.object_kind == kind}
            if not ids:
                continue
            objects = page.model._default_manager.select_related()
            for each in objects.filter(**{f"{page.audit_field}__in": ids}):
                key = str(getattr(each, page.audit_field))
                found[kind, key] = (str(each), page.page_url(each))
        return found

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
    def what(self, row: Any) -> SafeString:
        if row.object is None:
            words = f"{row.object_kind} {row.object_id[:8]}"
            return format_html('<span title="{}">{}</span>', row.object_id, words)
        name, url = row.object
        return format_html(
            '{} <a class="hs-link" href="{}" title="{}">{}</a>',
            row.object_kind,
            url,
            row.object_id,
            name,
        )

    @display(description="Details")
    def said(self, row: AuditEvent) -> SafeString:
        parts = [
            f"{name}: {value if isinstance(value, str) else json.dumps(value)}"
            for name, value in row.details.items()
            if value not in ("", None)
        ]
        return format_html('<span class="hs-details">{}</span>', "; ".join(parts))
