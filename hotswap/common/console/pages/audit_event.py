"""The audit trail: a list that nobody changes."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, time, timedelta
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models import CharField, F, Q, QuerySet, Value
from django.db.models.functions import Cast
from django.http import (
    HttpRequest,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.dateparse import parse_date
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RadioFilter
from unfold.decorators import display

from hotswap.common import audit
from hotswap.common.console.audit_chain import chain_context, check_view
from hotswap.common.console.names import names_of
from hotswap.common.console.narrow_row import NarrowRow
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.requests import READING, acting_person
from hotswap.common.console.roles import require_role
from hotswap.common.console.text import (
    age,
    details_with_digests,
    event_in_words,
    event_pattern,
    ids_in,
)
from hotswap.common.console.text_filter import TextFilter
from hotswap.common.csv_cells import MARK, csv_lines
from hotswap.common.models import AuditEvent, User
from hotswap.common.roles import Role
from hotswap.common.trail.export import Form, export_response

SPANS = (("1", "24 hours"), ("7", "7 days"), ("30", "30 days"))
# What is recorded of things that have no page.
KINDS_WITHOUT_PAGE = ("audit", "audit-key", "device-list", "master-key", "token-key")
# Of a search: words that are looked at, and objects of each kind that a word may name.
MAX_WORDS = 5
MAX_NAMED = 50
# Beside the kinds of objects: who acted.
PERSON = "by a person"
# From one value to the next in an index, however many rows have each.
KNOWN = """
    WITH RECURSIVE known AS (
        (SELECT {column} AS value FROM common_auditevent ORDER BY 1 LIMIT 1)
        UNION ALL
        SELECT (
            SELECT {column} FROM common_auditevent
            WHERE {column} > known.value ORDER BY 1 LIMIT 1
        )
        FROM known WHERE known.value IS NOT NULL
    )
    SELECT value FROM known WHERE value IS NOT NULL
"""
EXPORTED_AT_MOST = 100_000
EXPORT_BATCH = 2000
EXPORTED_COLUMNS = (
    *("id", "at", "actorKind", "actor", "person"),
    *("verb", "objectKind", "objectId", "details"),
)


def pages_by_kind() -> dict[str, ConsoleAdmin]:
    """Return the page of each kind of object, by what the audit trail calls it."""
    return {
        page.audit_kind: page
        for page in admin.site._registry.values()
        if isinstance(page, ConsoleAdmin) and page.audit_kind
    }


def mentioned_in(rows: Iterable[AuditEvent]) -> dict[str, set[str]]:
    """Return the ids that the details of rows name, by the kind of object.

    A detail is called as the kind is, as in `firmware`; any other id may be that of a
    person.
    """
    mentioned: dict[str, set[str]] = defaultdict(set)
    kinds = pages_by_kind()
    for row in rows:
        for name, value in (row.details or {}).items():
            kind = name if name in kinds else "person"
            mentioned[kind] |= ids_in({name: value})
    return mentioned


def objects_of(
    rows: Iterable[AuditEvent], mentioned: Mapping[str, set[str]] | None = None
) -> dict[tuple[str, str], tuple[str, str]]:
    """Return name and address of what rows are about, as far as it is there.

    Args:
        mentioned: further ids by their kind.
    """
    wanted: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        wanted[row.object_kind].add(row.object_id)
    for kind, ids in (mentioned or {}).items():
        if kind != "person":
            wanted[kind] |= ids
    found = {}
    for kind, page in pages_by_kind().items():
        name = page.audit_field
        field = page.opts.pk if name == "pk" else page.opts.get_field(name)
        ids = {each for each in wanted[kind] if _fits(field, each)}
        if not ids:
            continue
        objects = page.model._default_manager.select_related()
        for each in objects.filter(**{f"{name}__in": ids}):
            key = str(getattr(each, name))
            found[kind, key] = (str(each), page.page_url(each))
    return found


def known(column: str) -> list[str]:
    """Return the different actions or kinds that were ever recorded, by an index."""
    name = connection.ops.quote_name(column)
    with connection.cursor() as cursor:
        cursor.execute(KNOWN.format(column=name))
        return [value for (value,) in cursor.fetchall()]


def done_by(name: str) -> Q:
    """Match what people of a name like this have done.

    Rows hold pseudonyms; so the people are looked up first, the first few.
    """
    return Q(actor__in=[key for _, key in people_like(name)])


def people_like(name: str) -> QuerySet[User, tuple[str, str]]:
    """Return the first few people of a name like this, as `(PERSON, pseudonym)`."""
    people = User.objects.filter(username__icontains=name)
    return _keys(people, PERSON, "pseudonym")


def objects_like(
    request: HttpRequest, name: str
) -> list[QuerySet[Any, tuple[str, str]]]:
    """Return the first few objects of each kind with a name like this.

    Names are those that the lists of the objects are searched for: the id of a device,
    the version of a firmware, the name of a deployment.
    """
    found = []
    for kind, page in pages_by_kind().items():
        if page.search_fields:
            rows = page.model._default_manager.all()
            objects, _ = page.get_search_results(request, rows, name)
            found.append(_keys(objects, kind, page.audit_field))
    return found


def _keys(rows: QuerySet[Any], kind: str, field: str) -> QuerySet[Any, tuple[str, str]]:
    """Return the kind and the key of the first few rows."""
    keys = rows.order_by().annotate(
        audited_kind=Value(kind, CharField()),
        audited_key=Cast(F(field), CharField()),
    )
    return keys.values_list("audited_kind", "audited_key")[:MAX_NAMED]


def done_to(keys: Iterable[tuple[str, str]], name: str, kinds: Collection[str]) -> Q:
    """Match what was done to objects, or to whatever has this very id.

    Args:
        keys: kind and key of each.
        kinds: all that are known; the index of objects begins with them.
    """
    found = Q(object_kind__in=kinds, object_id=name)
    by_kind: dict[str, list[str]] = defaultdict(list)
    for kind, key in keys:
        by_kind[kind].append(key)
    for kind, ids in by_kind.items():
        found |= Q(object_kind=kind, object_id__in=ids)
    return found


class PersonFilter(TextFilter):
    title = "person"
    parameter_name = "person"
    hint = "name"

    def queryset(
        self, request: Any, queryset: QuerySet[AuditEvent]
    ) -> QuerySet[AuditEvent]:
        return queryset.filter(done_by(self.text())) if self.text() else queryset


class ObjectFilter(TextFilter):
    title = "object"
    parameter_name = "object"
    hint = "device, version, name"

    def queryset(
        self, request: Any, queryset: QuerySet[AuditEvent]
    ) -> QuerySet[AuditEvent]:
        if not self.text():
            return queryset
        first, *others = objects_like(request, self.text())
        keys = first.union(*others, all=True)
        return queryset.filter(done_to(keys, self.text(), known("object_kind")))


class ActionFilter(TextFilter):
    title = "action"
    parameter_name = "verb"
    hint = "device.revoked"

    def queryset(
        self, request: Any, queryset: QuerySet[AuditEvent]
    ) -> QuerySet[AuditEvent]:
        if not self.text():
            return queryset
        pattern = re.compile(event_pattern(self.text()), re.IGNORECASE)
        return queryset.filter(verb__in=filter(pattern.search, known("verb")))


class ObjectKindFilter(RadioFilter):
    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [
            (kind, kind) for kind in sorted({*pages_by_kind(), *KINDS_WITHOUT_PAGE})
        ]

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


class DayFilter(TextFilter):
    """Rows from a day on, or up to its end; days begin at midnight UTC."""

    input_type = "date"
    is_end = False

    def queryset(
        self, request: Any, queryset: QuerySet[AuditEvent]
    ) -> QuerySet[AuditEvent]:
        if not self.text():
            return queryset
        try:
            day = parse_date(self.text())
        except ValueError:
            day = None
        if day is None:
            messages.warning(request, f"{self.text()!r} is not a day: 2026-11-30.")
            return queryset.none()
        zone = timezone.get_default_timezone()
        if self.is_end:
            return queryset.filter(at__lte=datetime.combine(day, time.max, zone))
        return queryset.filter(at__gte=datetime.combine(day, time.min, zone))


class FromFilter(DayFilter):
    title = "from"
    parameter_name = "from"


class UntilFilter(DayFilter):
    title = "until"
    parameter_name = "until"
    is_end = True


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
    help_page = "console.md#audit"
    api_path = "audit-events"
    needed_role = Role.ADMIN
    empty_words = (
        "Nothing was recorded yet.",
        "What people do, and what the server decides, is kept here.",
    )
    list_name = "Audit"
    rows_name = "events"
    narrow_row = NarrowRow(first=("action_name", "who"))
    list_display = ("when", "who", "action_name", "what", "said")
    list_display_links = None
    list_filter = (
        *(PersonFilter, ObjectFilter, ActionFilter, ObjectKindFilter),
        *(ActorKindFilter, SinceFilter, FromFilter, UntilFilter),
    )
    list_before_template = "console/audit_chain.html"
    search_fields = ("verb", "object_id")
    search_help_text = "Action, person, device or another object"
    ordering = ("-id",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AuditEvent], search_term: str
    ) -> tuple[QuerySet[AuditEvent], bool]:
        """Find what each word names: an action, who acted, or what it was done to."""
        words = search_term.split()[:MAX_WORDS]
        if not words:
            return queryset, False
        verbs, kinds = known("verb"), known("object_kind")
        for word in words:
            people = people_like(word)
            keys = list(people.union(*objects_like(request, word), all=True))
            queryset = queryset.filter(
                Q(verb__in=[verb for verb in verbs if word.lower() in verb])
                | Q(actor__in=[key for kind, key in keys if kind == PERSON])
                | done_to((each for each in keys if each[0] != PERSON), word, kinds)
            )
        return queryset, False

    def complete(self, rows: list[Any]) -> None:
        # Names are joined when read: the rows themselves hold pseudonyms only.
        mentioned = mentioned_in(rows)
        people = names_of(
            [row.actor for row in rows] + [UUID(each) for each in mentioned["person"]]
        )
        objects = objects_of(rows, mentioned)
        for row in rows:
            row.actor_name = people.get(row.actor)
            row.object = objects.get((row.object_kind, row.object_id))
            row.names = {str(key): name for key, name in people.items()} | {
                key: name for (_, key), (name, _) in objects.items()
            }

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        query = request.GET.urlencode()
        export = self.export_button("export", query)
        signed = [
            replace(
                self.export_button(f"export-signed-{form}", query),
                label=f"Export signed {form.upper()}",
                icon="verified",
                name=f"export-signed-{form}",
            )
            for form in Form
        ]
        return super().changelist_view(
            request,
            {
                "console_buttons": [export, *signed],
                **chain_context(),
                **(extra_context or {}),
            },
        )

    def more_urls(self) -> list[URLPattern]:
        export, check = self.protected(self.export_view), self.protected(check_view)
        signed = self.protected(self.signed_export_view)
        return [
            path("export/", export, name=self.url_name("export")),
            *(
                path(
                    f"export-signed/{form}/",
                    signed,
                    {"form": form},
                    name=self.url_name(f"export-signed-{form}"),
                )
                for form in Form
            ),
            path("chain/", check, name=self.url_name("chain")),
        ]

    def export_view(self, request: HttpRequest) -> Any:
        """Send the rows of the list, as it is filtered, the newest 100,000 at most."""
        if request.method not in READING:
            return HttpResponseNotAllowed(READING)
        person = acting_person(request)
        require_role(person, self.needed_role)
        try:
            rows = self.get_changelist_instance(request).queryset
        except IncorrectLookupParameters:
            return HttpResponseRedirect(self.list_url())
        audit.record(
            actor=person,
            verb="audit.exported",
            object_kind="audit",
            object_id="export",
            details=dict(request.GET.items()),
        )
        return StreamingHttpResponse(
            exported_rows(rows),
            content_type="text/csv; charset=utf-8",
            headers={
                "Cache-Control": "no-store",
                "Content-Disposition": (
                    f'attachment; filename="audit-{timezone.now():%Y-%m-%d}.csv"'
                ),
            },
        )

    def signed_export_view(self, request: HttpRequest, form: Form) -> Any:
        """Send all rows of the list, as it is filtered, with their signature."""
        if request.method != "GET":
            return HttpResponseNotAllowed(["GET"])
        person = acting_person(request)
        require_role(person, self.needed_role)
        try:
            rows = self.get_changelist_instance(request).queryset
        except IncorrectLookupParameters:
            return HttpResponseRedirect(self.list_url())
        return export_response(
            rows,
            actor=person,
            query=dict(request.GET.items()),
            now=timezone.now(),
            form=form,
        )

    @display(description="When")
    def when(self, row: AuditEvent) -> SafeString:
        return age(row.at)

    @display(description="Who")
    def who(self, row: Any) -> str:
        match row.actor_kind:
            case AuditEvent.ActorKind.SERVER:
                return "the server"
            case AuditEvent.ActorKind.DEVICE:
                return "the device itself"
            case _:
                return row.actor_name or f"erased person {str(row.actor)[:8]}"

    @display(description="Action")
    def action_name(self, row: AuditEvent) -> SafeString:
        words = event_in_words(row.verb)
        return format_html('<span title="{}">{}</span>', row.verb, words)

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
    def said(self, row: Any) -> SafeString:
        return format_html(
            '<span class="hs-details">{}</span>',
            details_with_digests(row.details, row.names),
        )


def _fits(field: Any, object_id: str) -> bool:
    """Tell whether a row may be about an object of the table that a field is of.

    The account that a refused login named is `unknown` where nobody has the name.
    """
    try:
        field.to_python(object_id)
    except ValidationError:
        return False
    return True


def exported_rows(rows: QuerySet[AuditEvent]) -> Iterator[bytes]:
    """Write rows as CSV, the newest first, in batches."""
    yield MARK + csv_lines([EXPORTED_COLUMNS])
    last, left = None, EXPORTED_AT_MOST
    rows = rows.order_by("-id")
    while left > 0:
        batch = rows if last is None else rows.filter(pk__lt=last)
        found = list(batch[: min(EXPORT_BATCH, left)])
        if not found:
            return
        names = names_of(row.actor for row in found)
        yield csv_lines(
            (
                str(row.pk),
                row.at.isoformat(),
                row.actor_kind,
                str(row.actor or ""),
                names.get(row.actor, ""),
                row.verb,
                row.object_kind,
                row.object_id,
                json.dumps(row.details, ensure_ascii=False) if row.details else "",
            )
            for row in found
        )
        last, left = found[-1].pk, left - len(found)
