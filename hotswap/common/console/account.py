"""The pages of one's own account: logins, access tokens, the password."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import update_session_auth_hash
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from rest_framework.exceptions import Throttled

from hotswap.common.api.throttling import check_person_rate, guard_password
from hotswap.common.console.browsers import browser_in_words
from hotswap.common.console.forms import ConsoleForm, throttled_words
from hotswap.common.console.requests import READING, acting_person, too_many_requests
from hotswap.common.console.roles import role_name
from hotswap.common.console.text import age
from hotswap.common.errors import HotSwapError, NotFoundError
from hotswap.common.logins import Login, current_logins, end_login
from hotswap.common.models import PersonalToken, User
from hotswap.common.people import change_own_password
from hotswap.common.personal_data import personal_data_file
from hotswap.common.personal_tokens import (
    create_token,
    revoke_token,
    usable_tokens,
)
from hotswap.common.recent_proof import page_to_prove
from hotswap.common.roles import PEOPLE, Role
from hotswap.common.second_factors import has_second_factor
from hotswap.common.sessions import LOGIN, begin_session

VIA = {"console": "Console", "api": "API or command line"}


class OwnPasswordForm(ConsoleForm):
    current = forms.CharField(
        label="Present password",
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    new = forms.CharField(
        label="New password",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="12 characters or more.",
    )
    again = forms.CharField(
        label="New password again",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def clean(self) -> dict[str, Any]:
        given = self.cleaned_data
        if given.get("new") != given.get("again"):
            self.add_error("again", "The two new passwords differ.")
        return given


class TokenForm(ConsoleForm):
    name = forms.CharField(max_length=64, help_text="What it is for.")
    role = forms.ChoiceField()
    days = forms.TypedChoiceField(
        label="Lasts",
        coerce=int,
        choices=[(7, "7 days"), (30, "30 days"), (90, "90 days"), (366, "a year")],
        initial=90,
    )

    def __init__(self, person: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        roles = [role.value for role in PEOPLE if person.may(role)]
        self.fields["role"] = forms.ChoiceField(
            choices=[(role, role) for role in roles],
            initial=roles[-1],
            widget=self.fields["role"].widget,
            help_text="What it may do at most.",
        )


def account_links(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the entries of the menu at one's name."""
    return [
        {"title": "My account", "link": reverse("account")},
        {"title": "Second factors", "link": reverse("mfa_index")},
        {"title": "Change password", "link": reverse("admin:password_change")},
    ]


def login_rows(
    request: HttpRequest, logins: list[Login], end_url: Callable[[UUID], str]
) -> list[dict[str, Any]]:
    """Return logins as tables show them, each with the address that ends it."""
    mine: dict[str, str] = request.session.get(LOGIN) or {}
    return [
        {
            "via": VIA[each.via],
            "is_current": str(each.id) == mine.get("id"),
            "end_url": end_url(each.id),
            "address": each.address or "–",
            "agent": each.user_agent,
            "browser": browser_in_words(each.user_agent),
            "began": age(each.began_at),
            "seen": age(each.seen_at),
            "ends": age(each.ends_at),
        }
        for each in logins
    ]


def token_rows(
    tokens: Iterable[PersonalToken], revoke_url: Callable[[UUID], str]
) -> list[dict[str, Any]]:
    """Return tokens as tables show them, each with the address that revokes it."""
    return [
        {
            "name": each.name,
            "hint": each.hint,
            "role": each.role,
            "created": age(each.created_at),
            "used": age(each.last_used_at),
            "ends": age(each.expires_at),
            "revoke_url": revoke_url(each.pk),
        }
        for each in tokens
    ]


def account_view(request: HttpRequest) -> HttpResponse:
    """Show one's own account."""
    if request.method not in READING:
        return HttpResponseNotAllowed(READING)
    person = acting_person(request)
    logins = current_logins(user=person, now=timezone.now())
    return _page(
        request,
        "console/account.html",
        heading=person.username,
        role=role_name(person),
        has_factor=has_second_factor(person),
        tokens=token_rows(
            usable_tokens(person, timezone.now()),
            lambda each: reverse("account-revoke-token", args=(each,)),
        ),
        new_token_url=reverse("account-new-token"),
        logins=login_rows(
            request, logins, lambda each: reverse("account-end-login", args=(each,))
        ),
    )


def end_login_view(request: HttpRequest, login_id: UUID) -> HttpResponse:
    """End one of one's own logins."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    person = acting_person(request)
    end_and_confirm(request, person, login_id)
    return redirect("account")


def end_and_confirm(request: HttpRequest, person: User, login_id: UUID) -> None:
    """End a login of a person and say so on the next page."""
    try:
        end_login(
            actor=acting_person(request),
            user=person,
            login_id=login_id,
            now=timezone.now(),
        )
    except NotFoundError as error:
        messages.warning(request, error.detail)
    else:
        messages.success(request, "The login has ended.")


def new_token_view(request: HttpRequest) -> HttpResponse:
    """Make a personal access token, and show it this once."""
    if request.method not in (*READING, "POST"):
        return HttpResponseNotAllowed([*READING, "POST"])
    person = acting_person(request)
    confirm = page_to_prove(request, person, back=request.path)
    if confirm is not None:
        return redirect(confirm)
    form = TokenForm(person, request.POST if request.method == "POST" else None)
    shown: dict[str, Any] = {}
    if request.method == "POST" and form.is_valid():
        given = form.cleaned_data
        try:
            token, text = create_token(
                user=person,
                name=given["name"],
                role=Role(given["role"]),
                lifetime=timedelta(days=given["days"]),
                now=timezone.now(),
            )
        except HotSwapError as error:
            form.refuse(error)
        else:
            shown = {"token": token, "secret": text}
    return _page(
        request, "console/token_new.html", heading="New token", form=form, **shown
    )


def own_data_view(request: HttpRequest) -> HttpResponseBase:
    """Send all that is held about the person who asks, as a file."""
    if request.method != "GET":
        return HttpResponseNotAllowed(["GET"])
    return send_personal_data(request, acting_person(request))


def send_personal_data(request: HttpRequest, person: User) -> HttpResponseBase:
    """Send all that is held about a person to whoever has proved who they are."""
    actor = acting_person(request)
    confirm = page_to_prove(request, actor, back=request.path)
    if confirm is not None:
        return redirect(confirm)
    try:
        check_person_rate(actor.pseudonym, "EXPORTS_PER_MINUTE")
    except Throttled as error:
        return too_many_requests(error)
    return personal_data_file(actor=actor, person=person)


def revoke_token_view(request: HttpRequest, token_id: UUID) -> HttpResponse:
    """Revoke one of one's own tokens."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    revoke_and_confirm(request, acting_person(request), token_id)
    return redirect("account")


def revoke_and_confirm(request: HttpRequest, person: User, token_id: UUID) -> None:
    """Revoke a token of a person and say so on the next page."""
    try:
        revoke_token(
            actor=acting_person(request),
            user=person,
            token_id=token_id,
            now=timezone.now(),
        )
    except NotFoundError as error:
        messages.warning(request, error.detail)
    else:
        messages.success(request, "The token is revoked.")


def password_view(request: HttpRequest) -> HttpResponse:
    """Change one's own password; every other login ends."""
    if request.method not in (*READING, "POST"):
        return HttpResponseNotAllowed([*READING, "POST"])
    person = acting_person(request)
    form = OwnPasswordForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        given = form.cleaned_data
        try:
            changed = guard_password(
                request,
                person.username,
                lambda: change_own_password(
                    user=person, current=given["current"], new=given["new"]
                ),
            )
        except Throttled as error:
            form.add_error(None, throttled_words(error))
        except HotSwapError as error:
            form.refuse(error)
        else:
            assert changed is not None
            _go_on_as(request, changed)
            messages.success(request, "The password is changed; other logins ended.")
            return redirect("account")
    return _page(
        request,
        "console/password.html",
        heading="Change password",
        form=form,
        must_change=person.must_change_password,
        has_aged=person.has_aged_password(timezone.now()),
    )


def _go_on_as(request: HttpRequest, person: User) -> None:
    """Keep the session of whoever changed the password, under another key.

    Its row has gone with those of all others.
    """
    begin_session(request, timezone.now())
    update_session_auth_hash(request, person)


def _page(request: HttpRequest, template: str, **context: Any) -> HttpResponse:
    return TemplateResponse(
        request,
        template,
        {
            **admin.site.each_context(request),
            "title": "My account",
            "back_url": reverse("account"),
            "back_name": "My account",
            **context,
        },
        headers={"Cache-Control": "no-store"},
    )


urlpatterns: list[URLPattern] = [
    path("account/", admin.site.admin_view(account_view), name="account"),
    path("account/data/", admin.site.admin_view(own_data_view), name="account-data"),
    path(
        "account/logins/<uuid:login_id>/end/",
        admin.site.admin_view(end_login_view),
        name="account-end-login",
    ),
    path(
        "account/tokens/create/",
        admin.site.admin_view(new_token_view),
        name="account-new-token",
    ),
    path(
        "account/tokens/<uuid:token_id>/revoke/",
        admin.site.admin_view(revoke_token_view),
        name="account-revoke-token",
    ),
    path("password_change/", admin.site.admin_view(password_view)),
]
