"""The parts that every page of the console is made of.

Rules:
- A list and a page of an object only show. Whatever changes something is a `Verb`: a
  form of its own that acts on POST alone and calls one service.
- What a role may not do is shown, disabled, with the role that it needs.
- Colours mean the same everywhere: green is done, blue is moving, amber waits for a
  person, red has failed, grey has not started. A word and an icon stand beside them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import update_wrapper
from typing import Any, ClassVar, cast

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.generic import RedirectView
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.serializers import BaseSerializer
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import RadioFilter
from unfold.widgets import INPUT_CLASSES, TEXTAREA_CLASSES

from hotswap.common.errors import HotSwapError
from hotswap.common.models import User
from hotswap.common.roles import Role

NOT_STARTED, MOVING, DONE, WAITS, FAILED = "grey", "blue", "green", "amber", "red"
READING = ("GET", "HEAD")


# --- Small pieces ------------------------------------------------------------------


def pill(word: str, tone: str, icon: str, title: str = "") -> SafeString:
    """Show a status: colour, icon and word together."""
    return format_html(
        '<span class="hs-pill hs-{}" title="{}"><span class="material-symbols-outlined"'
        ' aria-hidden="true">{}</span>{}</span>',
        tone,
        title,
        icon,
        word,
    )


def span_in_words(seconds: float) -> str:
    """Say how long a span is, in its largest unit: `3 min`."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def age(at: datetime | None, now: datetime | None = None) -> SafeString:
    """Say how long ago it was, or until it is; the exact time is in the tooltip."""
    if at is None:
        return format_html('<span class="hs-subtle">{}</span>', "–")
    seconds = ((now or timezone.now()) - at).total_seconds()
    words = (
        f"{span_in_words(seconds)} ago"
        if seconds >= 0
        else f"in {span_in_words(-seconds)}"
    )
    return format_html(
        '<time datetime="{}" title="{} UTC">{}</time>',
        at.isoformat(),
        f"{at:%Y-%m-%d %H:%M:%S}",
        words,
    )


def in_bytes(size: int) -> str:
    """Show a size with its unit: `12.4 MB`."""
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= length:
            return f"{size / length:.1f} {unit}"
    return f"{size} B"


def acting_person(request: HttpRequest) -> User:
    """Return the person who is logged in."""
    return cast(User, request.user)


# --- Forms -------------------------------------------------------------------------


class ConsoleForm(forms.Form):
    """A form in the console's clothes, whose errors can come from a service."""

    required_css_class = "required"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("label_suffix", "")
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            widget = field.widget
            if isinstance(widget, forms.Textarea):
                widget.attrs.setdefault("class", " ".join(TEXTAREA_CLASSES))
                if str(widget.attrs.get("rows")) == "10":
                    # Django's own default; a form that wants more says so.
                    widget.attrs["rows"] = 4
            elif not isinstance(
                widget,
                forms.CheckboxInput
                | forms.RadioSelect
                | forms.CheckboxSelectMultiple
                | forms.ClearableFileInput
                | forms.HiddenInput,
            ):
                widget.attrs.setdefault("class", " ".join(INPUT_CLASSES))

    def refuse(self, error: HotSwapError) -> None:
        """Show why a service refused, with the first reasons it names."""
        self.add_error(None, error.detail)
        for part in error.errors[:20]:
            if part.detail != error.detail:
                self.add_error(None, part.detail)

    def check_with(
        self, serializer_class: type[BaseSerializer[Any]], data: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Validate as the API does; errors go to the fields of the same name."""
        serializer = serializer_class(data=data)
        if serializer.is_valid():
            found: dict[str, Any] = serializer.validated_data
            return found
        self.take_errors(serializer.errors)
        return None

    def take_errors(self, errors: Any, prefix: str = "") -> None:
        """Put nested errors of the API beside the fields they speak of."""
        for name, found in errors.items():
            full = f"{prefix}{name}"
            if isinstance(found, dict):
                if all(isinstance(key, str) for key in found):
                    self.take_errors(found, f"{full}-")
                    continue
                found = [text for part in found.values() for text in part]
            # What stands in no field of its own is said beside the one that holds it.
            outer = prefix.removesuffix("-")
            field = next((each for each in (full, outer) if each in self.fields), None)
            label = "" if field == full else f"{name if field else full}: "
            for text in found:
                self.add_error(field, f"{label}{text}")


class ReasonForm(ConsoleForm):
    reason = forms.CharField(
        max_length=2000,
        widget=forms.Textarea,
        help_text="Kept in the audit trail and in the log.",
    )


class CommentForm(ConsoleForm):
    comment = forms.CharField(max_length=2000, widget=forms.Textarea, required=False)


class EmptyForm(ConsoleForm):
    """Nothing to ask; the POST itself is the confirmation."""


def error_lines(error: ValidationError) -> list[str]:
    """Flatten an error of the API into sentences."""

    def walk(found: Any, name: str) -> Iterable[str]:
        if isinstance(found, dict):
            for key, part in found.items():
                yield from walk(part, str(key))
        elif isinstance(found, list | tuple):
            for part in found:
                yield from walk(part, name)
        elif isinstance(found, ErrorDetail):
            yield f"{name}: {found}" if name else str(found)

    return list(walk(error.detail, ""))


# --- Verbs -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Button:
    """A verb as it is shown; `blocked` says why it cannot be pressed."""

    label: str
    icon: str
    tone: str
    url: str
    name: str
    blocked: str
    is_dialog: bool


def link_button(user: User, label: str, icon: str, url: str, role: Role) -> Button:
    """Return a button that leads to another page, where people of a role act."""
    blocked = "" if user.may(role) else f"needs {role.value}"
    name = label.lower().replace(" ", "-")
    return Button(label, icon, "plain", url, name, blocked, is_dialog=False)


class Verb:
    """One thing that people do: asked by a form, done by one service on POST.

    A verb of a list has no object; `obj` is None then.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    icon: ClassVar[str] = "play_arrow"
    tone: ClassVar[str] = "plain"
    role: ClassVar[Role] = Role.OPERATOR
    form_class: ClassVar[type[ConsoleForm]] = ReasonForm
    template: ClassVar[str] = "console/dialog.html"
    is_dialog: ClassVar[bool] = True
    is_of_list: ClassVar[bool] = False
    is_csrf_checked_inside: ClassVar[bool] = False

    def applies(self, obj: Any) -> bool:
        """Tell whether the verb makes sense for an object in this state."""
        return True

    def obstacle(self, user: User, obj: Any) -> str:
        """Say why this person cannot do it although the role allows it."""
        return ""

    def heading(self, obj: Any) -> str:
        return f"{self.label} {obj}" if obj is not None else self.label

    def notes(self, obj: Any) -> Sequence[str]:
        """Say what will happen, in sentences above the form."""
        return ()

    def make_form(self, request: HttpRequest, obj: Any) -> ConsoleForm:
        return self.form_class(request.POST if request.method == "POST" else None)

    def act(self, user: User, obj: Any, given: dict[str, Any]) -> str:
        """Call the service; return the sentence that is shown after it."""
        raise NotImplementedError

    def next_url(self, admin: "ConsoleAdmin", obj: Any) -> str:
        """Return where to go after it is done."""
        return admin.list_url() if obj is None else admin.page_url(obj)

    def blocked(self, user: User, obj: Any) -> str:
        if not user.may(self.role):
            return f"needs {self.role.value}"
        return self.obstacle(user, obj)

    def button(self, admin: "ConsoleAdmin", user: User, obj: Any) -> Button:
        return Button(
            label=self.label,
            icon=self.icon,
            tone=self.tone,
            url=admin.verb_url(self, obj),
            name=self.name,
            blocked=self.blocked(user, obj),
            is_dialog=self.is_dialog,
        )

    def serve(self, admin: "ConsoleAdmin", request: HttpRequest, obj: Any) -> Any:
        """Answer GET with the form; act on POST."""
        if request.method not in (*READING, "POST"):
            return HttpResponseNotAllowed([*READING, "POST"])
        user = acting_person(request)
        if not user.may(self.role):
            raise PermissionDenied
        form = self.make_form(request, obj)
        if request.method == "POST" and form.is_valid():
            try:
                said = self.act(user, obj, form.cleaned_data)
            except HotSwapError as error:
                form.refuse(error)
            except ValidationError as error:
                for line in error_lines(error):
                    form.add_error(None, line)
            else:
                if form.is_valid():
                    messages.success(request, said)
                    return go_to(request, self.next_url(admin, obj))
        return self.show(admin, request, obj, form)

    def show(
        self,
        admin: "ConsoleAdmin",
        request: HttpRequest,
        obj: Any,
        form: ConsoleForm,
        **more: Any,
    ) -> HttpResponse:
        """Render the form: a piece for the dialog, or a page where there is none."""
        is_piece = self.is_dialog and "HX-Request" in request.headers
        user = acting_person(request)
        context = {
            **({} if is_piece else admin.admin_site.each_context(request)),
            "verb": self,
            "form": form,
            # Not `object`: Unfold would make breadcrumbs of its own from that.
            "item": obj,
            "title": admin.title,
            "subtitle": self.heading(obj),
            "heading": self.heading(obj),
            "notes": self.notes(obj),
            "obstacle": self.obstacle(user, obj),
            "form_url": admin.verb_url(self, obj),
            "back_url": admin.list_url() if obj is None else admin.page_url(obj),
            "back_name": admin.title if obj is None else str(obj),
            "layout": "console/piece.html" if is_piece else "console/page.html",
            "is_piece": is_piece,
            **more,
        }
        return TemplateResponse(
            request,
            self.template,
            context,
            headers={"Cache-Control": "no-store", "Vary": "HX-Request"},
        )


def go_to(request: HttpRequest, url: str) -> HttpResponse:
    """Redirect the page, also when a dialog asked."""
    if "HX-Request" in request.headers:
        return HttpResponse(status=204, headers={"HX-Redirect": url})
    return HttpResponseRedirect(url)


# --- Filters -----------------------------------------------------------------------


class StatusFilter(RadioFilter):
    """The filter of a list by its column `status`."""

    title = "status"
    parameter_name = "status"
    choices_of_status: ClassVar[list[tuple[str, str]]]

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return list(self.choices_of_status)

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(status=self.value()) if self.value() else queryset


# --- Admins ------------------------------------------------------------------------


class ConsoleAdmin(ModelAdmin):
    """Shows a list and pages. Nothing is saved, added or deleted by Django's forms."""

    verbs: ClassVar[tuple[type[Verb], ...]] = ()
    page_template: ClassVar[str] = ""
    list_name: ClassVar[str] = ""
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

    def verb_url(self, verb: Verb, obj: Any) -> str:
        return self.url(verb.name, *(() if obj is None else (obj.pk,)))

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
        for verb_class in self.verbs:
            verb = verb_class()
            place = "" if verb.is_of_list else "<path:object_id>/"
            urls.append(
                path(
                    f"{place}{verb.name}/",
                    self.protected(self._verb_view(verb)),
                    name=self.url_name(verb.name),
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

    def _verb_view(self, verb: Verb) -> Callable[..., Any]:
        def view(request: HttpRequest, object_id: str | None = None) -> Any:
            if not self.has_view_permission(request):
                raise PermissionDenied
            obj = None if verb.is_of_list else self.found(request, object_id)
            return verb.serve(self, request, obj)

        view.__name__ = f"{verb.name}_view"
        view.csrf_exempt = verb.is_csrf_checked_inside  # type: ignore[attr-defined]
        return view

    # Pages

    def found(self, request: HttpRequest, object_id: str | None) -> Any:
        """Return the object, or answer 404."""
        obj = self.get_object(request, unquote(object_id or ""))
        if obj is None:
            raise Http404
        return obj

    def buttons(self, user: User, obj: Any) -> list[Button]:
        """Return the verbs of an object, or of the list, in their order."""
        return [
            verb.button(self, user, obj)
            for verb in (verb_class() for verb_class in self.verbs)
            if verb.is_of_list == (obj is None) and verb.applies(obj)
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
                **self.page_context(request, obj),
            },
        )

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {}
