"""The list of people, and the page of one."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.decorators import display

from hotswap.common.console.actions.user import (
    ChangePerson,
    CreatePerson,
    DisablePerson,
    EnablePerson,
    SetPassword,
)
from hotswap.common.console.badges import DONE, NOT_STARTED, badge
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.roles import role_name
from hotswap.common.console.text import age
from hotswap.common.models import AuditEvent, User

SHOWN_ACTIONS = 20


class UserAdmin(ConsoleAdmin):
    audit_kind = "person"
    audit_field = "pseudonym"
    empty_words = (
        "There is nobody.",
        "Add a person with a role.",
    )
    console_actions = (
        *(CreatePerson, ChangePerson, SetPassword),
        *(DisablePerson, EnablePerson),
    )
    list_name = "People"
    page_template = "console/person.html"
    list_display = ("username", "held_role", "email", "state", "seen")
    search_fields = ("username", "email")
    ordering = ("username",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        return User.objects.prefetch_related("groups")

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

    def page_context(self, request: HttpRequest, obj: User) -> dict[str, Any]:
        return {
            "status": self.state(obj),
            "role": role_name(obj),
            "audited": AuditEvent.objects.filter(actor=obj.pseudonym).order_by("-id")[
                :SHOWN_ACTIONS
            ],
        }
