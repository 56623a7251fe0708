"""The list and the page of a model: they only show."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, ClassVar

from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.generic import RedirectView
from unfold.admin import ModelAdmin

from hotswap.common.console.actions.base import Action, Button
from hotswap.common.console.panels import added_buttons, shown_panels
from hotswap.common.console.requests import READING, acting_person
from hotswap.common.models import User
from hotswap.common.roles import Role


class ConsoleAdmin(ModelAdmin):
    """Shows a list and pages. Nothing is saved, added or deleted by Django's forms."""

    console_actions: ClassVar[tuple[type[Action], ...]] = ()
    page_template: ClassVar[str] = ""
    list_name: ClassVar[str] = ""
    # How the audit trail calls these objects, and by which of their fields.
    audit_kind: ClassVar[str] = ""
    audit_field: ClassVar[str] = "pk"
    # What an empty list says: a sentence, and what would fill it.
    empty_words: ClassVar[tuple[str, str]]
    empty_value_display = "–"
    actions = None
    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False
    list_filter_sheet = True

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
            if not self.has_view_permission(request):
                raise PermissionDenied
            obj = None if action.is_of_list else self.found(request, object_id)
            return action.serve(self, request, obj)

        view.__name__ = f"{action.name}_view"
        view.csrf_exempt = action.is_csrf_checked_inside  # type: ignore[attr-defined]
        return view

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
            if action.is_of_list == (obj is None) and action.applies(obj)
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        if request.method not in READING:
            return HttpResponseNotAllowed(READING)
        return super().changelist_view(
            request,
            {
                "title": self.title,
                "console_buttons": self.buttons(acting_person(request), None),
                **(extra_context or {}),
            },
        )

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        changes = super().get_changelist_instance(request)
        self.complete(list(changes.result_list))
        return changes

    def complete(self, rows: list[Any]) -> None:
        """Add to the rows of a page what is counted for all of them at once."""

    def page_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show an object."""
        if request.method not in READING:
            return HttpResponseNotAllowed(READING)
        obj = self.found(request, object_id)
        if not self.has_view_permission(request, obj):
            raise PermissionDenied
        user = acting_person(request)
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
                "back_url": self.list_url(),
                "back_name": self.title,
                "buttons": self.buttons(user, obj),
                "panels": shown_panels(request, obj),
                **self.page_context(request, obj),
            },
        )

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {}


class AdminsOnly(ConsoleAdmin):
    """A list and pages that Admins alone see."""

    def has_view_permission(
        self, request: HttpRequest, obj: Model | None = None
    ) -> bool:
        return acting_person(request).may(Role.ADMIN)
