"""What Admins do to people: add, invite, change, shut out, erase."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from hotswap.common import people
from hotswap.common.api.proxy import public_url
from hotswap.common.console.actions.base import Action
from hotswap.common.console.forms import ConsoleForm, EmptyForm
from hotswap.common.console.roles import role_name
from hotswap.common.errors import InvalidInputError
from hotswap.common.invitations import MailUnavailableError, invite_person
from hotswap.common.models import User
from hotswap.common.roles import PEOPLE, Role
from hotswap.common.second_factors import has_second_factor
from hotswap.common.signatures import FIELD as SIGNATURE
from hotswap.common.signatures import Meaning

if TYPE_CHECKING:
    from hotswap.common.console.pages.base import ConsoleAdmin


class NameMismatchError(InvalidInputError):
    code = "name_mismatch"


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


class NewNameForm(ChangePersonForm):
    username = forms.CharField(max_length=150, validators=[User.username_validator])
    field_order: tuple[str, ...] = ("username", "email", "role")

    def clean_username(self) -> str:
        name: str = self.cleaned_data["username"]
        if User.objects.filter(username__iexact=name).exists():
            raise ValidationError("There is a person of this name already.")
        return name


class InvitationForm(NewNameForm):
    email = forms.EmailField()


class EraseForm(ConsoleForm):
    typed = forms.CharField(
        label="Name", help_text="Type the name of the person to confirm."
    )


class PersonForm(NewNameForm, NewPasswordForm):
    field_order = ("username", "email", "role", "password")

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        validate_password(
            password, User(username=self.cleaned_data.get("username", ""))
        )
        return password


class CreatePerson(Action):
    name = "create"
    needs_proof = True
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
            must_change=True,
        )
        return f"{given['username']} may log in as {given['role']}."


class InvitePerson(Action):
    name = "invite"
    needs_proof = True
    label = "Invite person"
    icon = "outgoing_mail"
    tone = "primary"
    role = Role.ADMIN
    is_of_list = True
    form_class = InvitationForm

    def notes(self, obj: Any) -> tuple[str, ...]:
        return ("The person gets a link by mail and chooses a password there.",)

    def serve(self, admin: "ConsoleAdmin", request: HttpRequest, obj: Any) -> Any:
        self.server = public_url(request)
        return super().serve(admin, request, obj)

    def execute(self, user: User, obj: Any, given: dict[str, Any]) -> str:
        person = people.create_person(
            username=given["username"],
            email=given["email"],
            password=people.one_time_password(),
            role=Role(given["role"]),
            actor=user,
            must_change=True,
        )
        try:
            invite_person(actor=user, user=person, server=self.server)
        except MailUnavailableError:
            return (
                f"{person.username} was added, but the mail server did not take the "
                "invitation: send it again from the page of the person."
            )
        return f"{person.username} is invited as {given['role']}."


class SendInvitation(Action):
    name = "send-invitation"
    label = "Send invitation"
    icon = "outgoing_mail"
    role = Role.ADMIN
    form_class = EmptyForm

    def applies(self, obj: User) -> bool:
        return obj.last_login is None and obj.is_active

    def blocked_reason(self, user: User, obj: User) -> str:
        return "" if obj.email else "there is no email address"

    def notes(self, obj: User) -> tuple[str, ...]:
        return (f"A link to choose a password by goes to {obj.email}.",)

    def serve(self, admin: "ConsoleAdmin", request: HttpRequest, obj: Any) -> Any:
        self.server = public_url(request)
        return super().serve(admin, request, obj)

    def execute(self, user: User, obj: User, given: dict[str, Any]) -> str:
        invite_person(actor=user, user=obj, server=self.server)
        return f"The invitation is on its way to {obj.email}."


class ResetSecondFactors(Action):
    name = "reset-second-factors"
    needs_proof = True
    label = "Reset second factors"
    icon = "phonelink_erase"
    role = Role.ADMIN
    form_class = EmptyForm

    def applies(self, obj: User) -> bool:
        return has_second_factor(obj)

    def blocked_reason(self, user: User, obj: User) -> str:
        return "remove yours in My account" if obj.pk == user.pk else ""

    def notes(self, obj: User) -> tuple[str, ...]:
        return (
            (
                f"For {obj.username}, who has lost them: apps, keys and recovery codes "
                "go, and every login ends."
            ),
        )

    def execute(self, user: User, obj: User, given: dict[str, Any]) -> str:
        people.remove_second_factors(actor=user, user_id=obj.pk)
        return f"{obj.username} logs in without a second factor, or sets up another."


class ErasePerson(Action):
    name = "erase"
    needs_proof = True
    label = "Erase"
    icon = "delete_forever"
    tone = "danger"
    role = Role.ADMIN
    form_class = EraseForm
    meaning = Meaning.ERASURE

    def blocked_reason(self, user: User, obj: User) -> str:
        return "this is you" if obj.pk == user.pk else ""

    def notes(self, obj: User) -> tuple[str, ...]:
        return (
            (
                "Name, address, logins, tokens and second factors are destroyed. What "
                "the person did stays in the audit trail, under the audit ID."
            ),
            "This cannot be undone.",
        )

    def execute(self, user: User, obj: User, given: dict[str, Any]) -> str:
        if given["typed"].strip() != obj.username:
            raise NameMismatchError("the name that was typed is another")
        people.erase_person(actor=user, user_id=obj.pk, signature=given.get(SIGNATURE))
        return "The person is erased."

    def next_url(self, admin: "ConsoleAdmin", obj: Any) -> str:
        return admin.list_url()


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
    needs_proof = True
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
    needs_proof = True
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
    needs_proof = True
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
