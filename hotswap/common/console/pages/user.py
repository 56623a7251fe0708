"""The list of people, and the page of one."""

from typing import Any
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.decorators import display

from hotswap.common.console.account import (
    end_and_confirm,
    login_rows,
    revoke_and_confirm,
    send_personal_data,
    token_rows,
)
from hotswap.common.console.actions.user import (
    ChangePerson,
    CreatePerson,
    DisablePerson,
    EnablePerson,
    ErasePerson,
    InvitePerson,
    ResetSecondFactors,
    SendInvitation,
    SetPassword,
)
from hotswap.common.console.badges import DONE, NOT_STARTED, badge
from hotswap.common.console.narrow_row import NarrowRow
from hotswap.common.console.pages.audit_event import objects_of
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.requests import acting_person
from hotswap.common.console.roles import role_name
from hotswap.common.console.text import age
from hotswap.common.logins import current_logins
from hotswap.common.models import AuditEvent, User
from hotswap.common.personal_tokens import usable_tokens
from hotswap.common.roles import Role

SHOWN_ACTIONS = 20


class UserAdmin(ConsoleAdmin):
    help_page = "api.md#roles"
    needed_role = Role.ADMIN
    audit_kind = "person"
    audit_field = "pseudonym"
    api_path = "people"
    api_field = "pseudonym"
    empty_words = (
        "There is nobody.",
        "Add a person with a role.",
    )
    console_actions = (
        *(InvitePerson, CreatePerson, SendInvitation, ChangePerson, SetPassword),
        *(ResetSecondFactors, DisablePerson, EnablePerson, ErasePerson),
    )
    list_name = "Users"
    page_template = "console/person.html"
    narrow_row = NarrowRow(first=("state",), titled=("seen",))
    list_display = ("username", "held_role", "email", "state", "seen")
    search_fields = ("username", "email")
    ordering = ("username",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        return User.objects.filter(erased_at__isnull=True).prefetch_related("groups")

    @display(description="Role")
    def held_role(self, person: User) -> str:
        return role_name(person)

    @display(description="Status")
    def state(self, person: User) -> SafeString:
        if person.is_active:
            return badge("Enabled", DONE, "check")
        return badge("Disabled", NOT_STARTED, "block")

    @display(description="Last login")
    def seen(self, person: User) -> SafeString:
        return age(person.last_login)

    def more_urls(self) -> list[URLPattern]:
        return [
            path(
                "<path:object_id>/data/",
                self.protected(self.data_view),
                name=self.url_name("data"),
            ),
            path(
                "<path:object_id>/logins/<uuid:login_id>/end/",
                self.protected(self.end_login_view),
                name=self.url_name("end-login"),
            ),
            path(
                "<path:object_id>/tokens/<uuid:token_id>/revoke/",
                self.protected(self.revoke_token_view),
                name=self.url_name("revoke-token"),
            ),
        ]

    def end_login_view(
        self, request: HttpRequest, object_id: str, login_id: UUID
    ) -> HttpResponse:
        """End a login of a person; Admins alone see people."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not acting_person(request).may(Role.ADMIN):
            raise PermissionDenied
        person = self.found(request, object_id)
        end_and_confirm(request, person, login_id)
        return redirect(self.page_url(person))

    def data_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Send all that is held about a person; Admins alone see people."""
        if request.method != "GET":
            return HttpResponseNotAllowed(["GET"])
        if not acting_person(request).may(Role.ADMIN):
            raise PermissionDenied
        return send_personal_data(request, self.found(request, object_id))

    def revoke_token_view(
        self, request: HttpRequest, object_id: str, token_id: UUID
    ) -> HttpResponse:
        """Revoke a token of a person; Admins alone see people."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not acting_person(request).may(Role.ADMIN):
            raise PermissionDenied
        person = self.found(request, object_id)
        revoke_and_confirm(request, person, token_id)
        return redirect(self.page_url(person))

    def page_context(self, request: HttpRequest, obj: User) -> dict[str, Any]:
        done = AuditEvent.objects.filter(actor=obj.pseudonym)
        audited = list(done.order_by("-id")[:SHOWN_ACTIONS])
        objects = objects_of(audited)
        return {
            "tokens": token_rows(
                usable_tokens(obj, timezone.now()),
                lambda each: self.url("revoke-token", obj.pk, each),
            ),
            "logins": login_rows(
                request,
                current_logins(user=obj, now=timezone.now()),
                lambda each: self.url("end-login", obj.pk, each),
            ),
            "status": self.state(obj),
            "data_url": self.url("data", obj.pk),
            "role": role_name(obj),
            "audited": [
                (row, objects.get((row.object_kind, row.object_id))) for row in audited
            ],
        }
