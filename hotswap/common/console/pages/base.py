"""The list and the page of a model: they only show."""

from collections.abc import Callable, Mapping
from functools import update_wrapper
from types import MappingProxyType
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.contrib.admin.utils import unquote
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.generic import RedirectView
from rest_framework.exceptions import Throttled
from unfold.admin import ModelAdmin
from unfold.decorators import display
from unfold.views import ChangeList

from hotswap.common.api.proxy import public_url
from hotswap.common.api.throttling import check_person_rate
from hotswap.common.console.actions.base import Action, Button
from hotswap.common.console.narrow_row import NarrowRow
from hotswap.common.console.paginator import ListPaginator
from hotswap.common.console.panels import (
    Column,
    added_buttons,
    added_columns,
    added_filters,
    added_selection_buttons,
    shown_panels,
)
from hotswap.common.console.requests import (
    READING,
    acting_person,
    go_to,
    too_many_requests,
)
from hotswap.common.console.roles import require_role
from hotswap.common.console.text import curl_command
from hotswap.common.models import User
from hotswap.common.recent_proof import page_to_prove
from hotswap.common.roles import Role
from hotswap.common.signatures import ShownSignature, signatures_of


class List(ChangeList):
    """The rows of a list, in the order of a column that it may be sorted by.

    Django takes an order by any column from the address, shown as sortable or not.
    """

    def get_ordering_field(self, field_name: str) -> Any:
        if field_name not in self.sortable_by:
            return None
        return super().get_ordering_field(field_name)


class ConsoleAdmin(ModelAdmin):
    """Shows a list and pages. Nothing is saved, added or deleted by Django's forms."""

    console_actions: ClassVar[tuple[type[Action], ...]] = ()
    page_template: ClassVar[str] = ""
    list_name: ClassVar[str] = ""
    # What the rows of the list are, where its name does not say it.
    rows_name: ClassVar[str] = ""
    # How the audit trail calls these objects, and by which of their fields.
    audit_kind: ClassVar[str] = ""
    audit_field: ClassVar[str] = "pk"
    # Whether people sign what is done to them (`hotswap.common.signatures`).
    is_signed: ClassVar[bool] = False
    # Who sees the list and the pages, and where in the manual they are explained.
    needed_role: ClassVar[Role] = Role.VIEWER
    help_page: ClassVar[str] = "console.md"
    # Where the API has the same: below `/api/v1/`, an object by one of its fields, and
    # the filters of the list by the names that they have there.
    api_path: ClassVar[str] = ""
    api_field: ClassVar[str] = ""
    api_filters: ClassVar[Mapping[str, str]] = MappingProxyType({})
    # The field by which rows are selected; "" where they cannot be.
    selection_field: ClassVar[str] = ""
    # How a row stands on a phone.
    narrow_row: ClassVar[NarrowRow] = NarrowRow()
    # What stands beside the chips of the filters; "" for nothing.
    chips_template: ClassVar[str] = ""
    # What an empty list says: a sentence, and what would fill it.
    empty_words: ClassVar[tuple[str, str]]
    empty_value_display = "–"
    actions = None
    list_per_page = 50
    paginator = ListPaginator
    list_max_show_all = 0
    show_full_result_count = False

    def has_view_permission(
        self, request: HttpRequest, obj: Model | None = None
    ) -> bool:
        return acting_person(request).may(self.needed_role)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(
        self, request: HttpRequest, obj: Model | None = None
    ) -> bool:
        return False

    def has_delete_permission(
        self, request: HttpRequest, obj: Model | None = None
    ) -> bool:
        return False

    def lookup_allowed(
        self, lookup: str, value: str, request: HttpRequest | None = None
    ) -> bool:
        """Take the parameters of the list's own filters, and no other (400).

        Django would filter by any column with any lookup: by regular expressions that
        never end, and by columns that the list does not show.
        """
        filters = self.list_filter if request is None else self.get_list_filter(request)
        return any(lookup == getattr(each, "parameter_name", None) for each in filters)

    @property
    def title(self) -> str:
        name = self.list_name or str(self.opts.verbose_name_plural)
        return name[:1].upper() + name[1:]

    # Addresses

    def url_name(self, name: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{name}"

    def url(self, name: str, *args: object) -> str:
        return reverse(f"admin:{self.url_name(name)}", args=args)

    def list_url(self) -> str:
        return self.url("changelist")

    def page_url(self, obj: Any) -> str:
        return self.url("change", obj.pk)

    def action_url(self, action: Action, obj: Any) -> str:
        return self.url(action.name, *(() if obj is None else (obj.pk,)))

    def export_button(self, url_name: str, query: str = "") -> Button:
        """Return the button that downloads the rows of the list.

        Args:
            query: of the list as it is filtered, without its question mark.
        """
        url = self.url(url_name) + (f"?{query}" if query else "")
        return Button(
            label="Export CSV",
            icon="download",
            tone="plain",
            url=url,
            name="export",
            blocked_reason="",
            is_dialog=False,
        )

    def protected(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """Let only people of the console in, and nobody store what they see."""
        inner = self.admin_site.admin_view(view)
        return update_wrapper(inner, view)

    def get_urls(self) -> list[URLPattern]:
        urls = [
            path(
                "",
                self.protected(self.changelist_view),
                name=self.url_name("changelist"),
            )
        ]
        for action_class in self.console_actions:
            action = action_class()
            place = "" if action.is_of_list else "<path:object_id>/"
            urls.append(
                path(
                    f"{place}{action.name}/",
                    self.protected(self._action_view(action)),
                    name=self.url_name(action.name),
                )
            )
        urls += self.more_urls()
        if self.page_template:
            urls += [
                path(
                    "<path:object_id>/change/",
                    self.protected(self.page_view),
                    name=self.url_name("change"),
                ),
                path(
                    "<path:object_id>/",
                    RedirectView.as_view(
                        pattern_name=f"admin:{self.url_name('change')}"
                    ),
                ),
            ]
        return urls

    def more_urls(self) -> list[URLPattern]:
        return []

    def _action_view(self, action: Action) -> Callable[..., Any]:
        def view(request: HttpRequest, object_id: str | None = None) -> Any:
            person = acting_person(request)
            require_role(person, self.needed_role)
            if action.rate and request.method == "POST":
                try:
                    check_person_rate(person.pseudonym, action.rate)
                except Throttled as error:
                    return too_many_requests(error)
            obj = None if action.is_of_list else self.found(request, object_id)
            if action.asks_for_proof() and person.may(action.role):
                # A dialog has no page of its own to come back to.
                page = self.list_url() if obj is None else self.page_url(obj)
                page = page if action.is_dialog else request.get_full_path()
                confirm = page_to_prove(request, person, back=page)
                if confirm is not None:
                    return go_to(request, confirm)
            return action.serve(self, request, obj)

        view.__name__ = f"{action.name}_view"
        view.csrf_exempt = action.is_csrf_checked_inside  # type: ignore[attr-defined]
        return view

    def api_call(self, request: HttpRequest, obj: Any = None) -> str:
        """Return the command that reads the same over the API; "" for none."""
        if not self.api_path or (obj is not None and not self.api_field):
            return ""
        url = f"{public_url(request).rstrip('/')}/api/v1/{self.api_path}"
        if obj is not None:
            return curl_command(f"{url}/{getattr(obj, self.api_field)}")
        query = {
            name: request.GET[own]
            for own, name in self.api_filters.items()
            if request.GET.get(own)
        }
        return curl_command(f"{url}?{urlencode(query)}" if query else url)

    # Pages

    def found(self, request: HttpRequest, object_id: str | None) -> Any:
        """Return the object, or answer 404."""
        obj = self.get_object(request, unquote(object_id or ""))
        if obj is None:
            raise Http404
        return obj

    def buttons(self, user: User, obj: Any) -> list[Button]:
        """Return the actions of an object, or of the list, in their order.

        What other apps add to the page of an object comes first.
        """
        added = [] if obj is None else added_buttons(user, obj)
        return added + [
            action.button(self, user, obj)
            for action in (action_class() for action_class in self.console_actions)
            if action.is_of_list == (obj is None)
            and not action.is_of_selection
            and action.applies(obj)
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        if request.method not in READING:
            return HttpResponseNotAllowed(READING)
        require_role(acting_person(request), self.needed_role)
        return super().changelist_view(
            request,
            {
                "title": self.title,
                "help_page": self.help_page,
                "api_call": self.api_call(request),
                "console_buttons": self.buttons(acting_person(request), None),
                **(extra_context or {}),
            },
        )

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        return [*super().get_list_filter(request), *added_filters(self.model)]

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        """Return the columns, those of other apps last."""
        added = [_added_column(each) for each in added_columns(self.model)]
        return [*super().get_list_display(request), *added]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[List]:
        return List

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        changes = super().get_changelist_instance(request)
        rows = list(changes.result_list)
        self.complete(rows)
        for column in added_columns(self.model):
            values = column.values(rows)
            for row in rows:
                setattr(row, f"added_{column.name}", values.get(row.pk))
        changes.selection_buttons = self.selection_buttons(acting_person(request))
        return changes

    def selection_buttons(self, user: User) -> list[Button]:
        """Return what can be done to selected rows, what other apps add last."""
        own = [
            action.button(self, user, None)
            for action in (action_class() for action_class in self.console_actions)
            if action.is_of_selection
        ]
        return own + added_selection_buttons(self.model, user)

    def complete(self, rows: list[Any]) -> None:
        """Add to the rows of a page what is counted for all of them at once."""

    def page_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show an object."""
        if request.method not in READING:
            return HttpResponseNotAllowed(READING)
        user = acting_person(request)
        require_role(user, self.needed_role)
        obj = self.found(request, object_id)
        return TemplateResponse(
            request,
            self.page_template,
            {
                **self.admin_site.each_context(request),
                # Not `object`: Unfold would make breadcrumbs of its own from that.
                "item": obj,
                "title": self.title,
                "subtitle": str(obj),
                "heading": str(obj),
                "help_page": self.help_page,
                "api_call": self.api_call(request, obj),
                "back_url": self.list_url(),
                "back_name": self.title,
                "buttons": self.buttons(user, obj),
                "panels": shown_panels(request, obj),
                "signatures": self.signatures(obj),
                **self.page_context(request, obj),
            },
        )

    def signatures(self, obj: Any) -> list[ShownSignature]:
        """Return what people have signed about an object."""
        if not self.is_signed:
            return []
        key = str(getattr(obj, self.audit_field))
        return signatures_of(self.audit_kind, [key])

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {}


def _added_column(column: Column) -> Callable[[Any], Any]:
    @display(description=column.title)
    def shown(row: Any) -> Any:
        return getattr(row, f"added_{column.name}")

    shown.__name__ = column.name
    return shown


class AdminsOnly(ConsoleAdmin):
    """A list and pages that Admins alone see."""

    needed_role = Role.ADMIN
