"""What Admins do to people: add them, change them, shut them out."""

from typing import Any

from django import forms
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from hotswap.common import people
from hotswap.common.console.actions.base import Action
from hotswap.common.console.forms import ConsoleForm, EmptyForm
from hotswap.common.console.roles import role_name
from hotswap.common.models import User
from hotswap.common.roles import PEOPLE, Role


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
        people.create_person(
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
        people.set_person_active(actor=user, user_id=obj.pk, is_active=False)
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
        return (f"{obj.username} may log in again as {role_name(obj)}.",)

    def execute(self, user: User, obj: User, given: dict[str, Any]) -> str:
        people.set_person_active(actor=user, user_id=obj.pk, is_active=True)
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
        given = {"role": role_name(obj), "email": obj.email}
        return ChangePersonForm(request.POST or None, initial=given)

    def notes(self, obj: User) -> tuple[str, ...]:
        return ("Another role holds from the next click on, and for the API as well.",)

    def execute(self, user: User, obj: User, given: dict[str, Any]) -> str:
        person = people.change_person(
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
        people.set_password(
            username=obj.username,
            password=given["password"],
            actor=user,
            must_change=True,
        )
        return f"{obj.username} logs in with this password, and must change it then."
