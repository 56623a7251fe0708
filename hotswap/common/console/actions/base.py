"""What every action of the console shares: a form, and one service on POST."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.utils.text import capfirst
from rest_framework.exceptions import Throttled, ValidationError

from hotswap.common.console.forms import (
    ConsoleForm,
    ReasonForm,
    error_lines,
    throttled_words,
)
from hotswap.common.console.requests import READING, acting_person, go_to
from hotswap.common.console.roles import require_role
from hotswap.common.errors import HotSwapError
from hotswap.common.models import User
from hotswap.common.roles import Role
from hotswap.common.signatures import FIELD as SIGNATURE
from hotswap.common.signatures import Meaning
from hotswap.common.signing_people import (
    SignatureWrongError,
    sign,
    signing_blocked_reason,
)

# Of a recovery code; those of an app have six.
MAX_CODE_DIGITS = 8

if TYPE_CHECKING:
    from hotswap.common.console.pages.base import ConsoleAdmin


@dataclass(frozen=True, slots=True)
class Button:
    """An action as it is shown; `blocked_reason` says why it cannot be
    pressed, "" if it can.
    """

    label: str
    icon: str
    tone: str
    url: str
    name: str
    blocked_reason: str
    is_dialog: bool


def link_button(user: User, label: str, icon: str, url: str, role: Role) -> Button:
    """Return a button that leads to another page, where people of a role act."""
    blocked = "" if user.may(role) else f"needs {role.value}"
    name = label.lower().replace(" ", "-")
    return Button(label, icon, "plain", url, name, blocked, is_dialog=False)


class Action:
    """One thing that people do: asked by a form, done by one service on POST.

    An action of a list has no object; `obj` is None then.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    icon: ClassVar[str] = "play_arrow"
    tone: ClassVar[str] = "plain"
    role: ClassVar[Role] = Role.OPERATOR
    # Names the setting that says how often a person may send it in a minute.
    rate: ClassVar[str] = ""
    form_class: ClassVar[type[ConsoleForm]] = ReasonForm
    template: ClassVar[str] = "console/dialog.html"
    is_dialog: ClassVar[bool] = True
    is_of_list: ClassVar[bool] = False
    # Done to the rows of a list that are selected.
    is_of_selection: ClassVar[bool] = False
    is_csrf_checked_inside: ClassVar[bool] = False
    # Asks for the password or second factor again, unless it was given lately: it gives
    # somebody rights or secrets, or takes away what guards them.
    needs_proof: ClassVar[bool] = False
    # What the person signs by it; None where nothing is signed.
    meaning: ClassVar[Meaning | None] = None

    def applies(self, obj: Any) -> bool:
        """Tell whether the action makes sense for an object in this state."""
        return True

    def blocked_reason(self, user: User, obj: Any) -> str:
        """Return why this person cannot execute it although the role allows it."""
        return ""

    def heading(self, obj: Any) -> str:
        return f"{self.label} {obj}" if obj is not None else self.label

    def notes(self, obj: Any) -> Sequence[str]:
        """Say what will happen, in sentences above the form."""
        return ()

    def make_form(self, request: HttpRequest, obj: Any) -> ConsoleForm:
        return self.form_class(request.POST if request.method == "POST" else None)

    def execute(self, user: User, obj: Any, given: dict[str, Any]) -> str:
        """Call the service; return the sentence that is shown after it.

        Args:
            given: the fields of the form; `signature` is a `Signature` where the action
                is signed.
        """
        raise NotImplementedError

    def next_url(self, admin: "ConsoleAdmin", obj: Any) -> str:
        """Return where to go after it is done."""
        return admin.list_url() if obj is None else admin.page_url(obj)

    def denial_reason(self, user: User, obj: Any) -> str:
        """Return the role that is missing, else the blocked reason, else ""."""
        if not user.may(self.role):
            return f"needs {self.role.value}"
        return self._reason_blocked(user, obj)

    def _reason_blocked(self, user: User, obj: Any) -> str:
        """Return the blocked reason, or that this person cannot sign, else ""."""
        return self.blocked_reason(user, obj) or (
            signing_blocked_reason(user) if self.is_signed() else ""
        )

    def asks_for_proof(self) -> bool:
        """Tell whether it asks who it is; a signature is asked for each time."""
        return self.needs_proof and not self.is_signed()

    def is_signed(self) -> bool:
        """Tell whether the person has to sign what the action does."""
        return self.meaning is not None and settings.REQUIRE_SIGNATURES

    def _sign(self, request: HttpRequest, user: User, form: ConsoleForm) -> None:
        """Put the signature in the place of the password or code that was typed.

        A password is longer than any code, so that one field takes both.
        """
        assert self.meaning is not None
        typed: str = form.cleaned_data[SIGNATURE]
        code = typed.strip()
        is_code = code.isdecimal() and len(code) <= MAX_CODE_DIGITS
        try:
            form.cleaned_data[SIGNATURE] = sign(
                request,
                user,
                self.meaning,
                password=None if is_code else typed,
                code=code if is_code else None,
            )
        except SignatureWrongError as error:
            form.add_error(SIGNATURE, f"{capfirst(error.detail)}.")
        except Throttled as error:
            form.add_error(SIGNATURE, throttled_words(error))

    def button(self, admin: "ConsoleAdmin", user: User, obj: Any) -> Button:
        return Button(
            label=self.label,
            icon=self.icon,
            tone=self.tone,
            url=admin.action_url(self, obj),
            name=self.name,
            blocked_reason=self.denial_reason(user, obj),
            is_dialog=self.is_dialog,
        )

    def serve(self, admin: "ConsoleAdmin", request: HttpRequest, obj: Any) -> Any:
        """Answer GET with the form; act on POST."""
        if request.method not in (*READING, "POST"):
            return HttpResponseNotAllowed([*READING, "POST"])
        user = acting_person(request)
        require_role(user, self.role)
        form = self.make_form(request, obj)
        if self.is_signed():
            assert self.meaning is not None
            form.ask_for_signature(self.meaning.statement)
        if request.method == "POST" and form.is_valid() and self.is_signed():
            self._sign(request, user, form)
        if request.method == "POST" and form.is_valid():
            try:
                message = self.execute(user, obj, form.cleaned_data)
            except HotSwapError as error:
                form.refuse(error)
            except ValidationError as error:
                for line in error_lines(error):
                    form.add_error(None, line)
            else:
                if form.is_valid():
                    messages.success(request, message)
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
            "action": self,
            "form": form,
            # Not `object`: Unfold would make breadcrumbs of its own from that.
            "item": obj,
            "title": admin.title,
            "subtitle": self.heading(obj),
            "heading": self.heading(obj),
            "notes": self.notes(obj),
            "blocked_reason": self._reason_blocked(user, obj),
            "form_url": admin.action_url(self, obj),
            "back_url": admin.list_url() if obj is None else admin.page_url(obj),
            "back_name": admin.title if obj is None else str(obj),
            "help_page": admin.help_page,
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


class LinkedAction(Action):
    """An action of a list that a link asks for, and no button.

    What it is about stands in the address of the link, by the names of its form.
    """

    is_of_list = True

    def applies(self, obj: Any) -> bool:
        return False

    def make_form(self, request: HttpRequest, obj: Any) -> ConsoleForm:
        return self.form_class(request.POST or None, initial=request.GET.dict())
