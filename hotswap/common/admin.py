"""People and the audit trail, for Admins."""

import json
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.models import Group
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django_celery_beat import models as beat
from unfold.contrib.filters.admin import RadioFilter
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from hotswap.common import services
from hotswap.common.console.actions.base import Action
from hotswap.common.console.badges import DONE, NOT_STARTED, badge
from hotswap.common.console.forms import ConsoleForm, EmptyForm
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.text import age
from hotswap.common.models import AuditEvent, User
from hotswap.common.roles import PEOPLE, Role

# Roles are fixed, and schedules belong to the settings: neither is edited by hand.
for model in (
    Group,
    beat.ClockedSchedule,
    beat.CrontabSchedule,
    beat.IntervalSchedule,
    beat.PeriodicTask,
    beat.SolarSchedule,
):
    if admin.site.is_registered(model):
        admin.site.unregister(model)


class ChangePersonForm(ConsoleForm):
    role = forms.ChoiceField(choices=[(role.value, role.value) for role in PEOPLE])
    email = forms.EmailField(required=False)


class NewPasswordForm(ConsoleForm):
    password = forms.CharField(
        widget=forms.PasswordInput(
            attrs={"autocomplete": "new-password"}, render_value=False
        ),
        help_text="Tell it to the person; they change it from the menu at their name.",
    )


class PersonForm(ChangePersonForm, NewPasswordForm):
    username = forms.CharField(max_length=150, validators=[User.username_validator])
    field_order = ("username", "email", "role", "password")

    def clean_username(self) -> str:
        name: str = self.cleaned_data["username"]
        if User.objects.filter(username__iexact=name).exists():
            raise ValidationError("There is a person of this name already.")
        return name

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        validate_password(
            password, User(username=self.cleaned_data.get("username", ""))
        )
        return password


class CreatePerson(Action):
    name = "create"
    label = "Add person"
    icon = "person_add"
    tone = "primary"
    role = Role.ADMIN
    is_of_list = True
    form_class = PersonForm

    def execute(self, user: User, obj: Any, given: dict[str, Any]) -> str:
        services.create_person(
            username=given["username"],
            email=given["email"],
            password=given["password"],
            role=Role(given["role"]),
            actor=user,
        )
        return f"{given['username']} may log in as {given['role']}."


class DisablePerson(Action):
    name = "disable"
    label = "Disable"
    icon = "person_off"
    tone = "danger"
    role = Role.ADMIN
    form_class = EmptyForm

    def applies(self, obj: User) -> bool:
        return obj.is_active

    def blocked_reason(self, user: User, obj: User) -> str:
        return "this is you" if obj.pk == user.pk else ""

    def notes(self, obj: User) -> tuple[str, ...]:
        return (
            (
                f"{obj.username} is logged out everywhere at once and cannot log in. "
                "What the person did stays in the audit trail."
            ),
        )

    def execute(self, user: User, obj: User, given: dict[str, Any]) -> str:
        services.set_person_active(actor=user, user_id=obj.pk, is_active=False)
        return f"{obj.username} is disabled."


class EnablePerson(Action):
    name = "enable"
    label = "Enable"
    icon = "person"
    role = Role.ADMIN
    form_class = EmptyForm

    def applies(self, obj: User) -> bool:
        return not obj.is_active

    def notes(self, obj: User) -> tuple[str, ...]:
        return (f"{obj.username} may log in again as {_role_held(obj)}.",)

    def execute(self, user: User, obj: User, given: dict[str, Any]) -> str:
        services.set_person_active(actor=user, user_id=obj.pk, is_active=True)
        return f"{obj.username} is enabled."


class ChangePerson(Action):
    name = "edit"
    label = "Edit"
    icon = "edit"
    role = Role.ADMIN
    form_class = ChangePersonForm

    def blocked_reason(self, user: User, obj: User) -> str:
        return "this is you" if obj.pk == user.pk else ""

    def make_form(self, request: HttpRequest, obj: User) -> ConsoleForm:
        given = {"role": _role_held(obj), "email": obj.email}
        return ChangePersonForm(request.POST or None, initial=given)

    def notes(self, obj: User) -> tuple[str, ...]:
        return ("Another role holds from the next click on, and for the API as well.",)

    def execute(self, user: User, obj: User, given: dict[str, Any]) -> str:
        person = services.change_person(
            actor=user,
            user_id=obj.pk,
            role=Role(given["role"]),
            email=given["email"],
        )
        return f"{person.username} is {given['role']}."


class SetPassword(Action):
    name = "set-password"
    label = "Set password"
    icon = "lock_reset"
    role = Role.ADMIN
    form_class = NewPasswordForm

    def blocked_reason(self, user: User, obj: User) -> str:
        is_own = obj.pk == user.pk
        return "change yours from the menu at your name" if is_own else ""

    def notes(self, obj: User) -> tuple[str, ...]:
        return (f"{obj.username} is logged out everywhere at once.",)

    def execute(self, user: User, obj: User, given: dict[str, Any]) -> str:
        services.set_password(
            username=obj.username, password=given["password"], actor=user
        )
        return f"{obj.username} logs in with the new password."


def _role_held(person: User) -> str:
    role = services.held_role(person)
    return role.value if role else "nobody"


@admin.register(User)
class UserAdmin(ConsoleAdmin):
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
        return _role_held(person)

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
            "role": _role_held(obj),
            "acts": AuditEvent.objects.filter(actor=obj.pseudonym).order_by("-id")[:20],
        }


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


@admin.register(AuditEvent)
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
