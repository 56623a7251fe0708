"""What Admins do to enrolment tokens: make them, revoke them."""

from datetime import timedelta
from typing import Any, cast

from django import forms
from django.http import HttpRequest
from django.utils import timezone

from devices.choices import OPEN_ENROLMENTS
from devices.console.fields import TAGS_HELP, TagsField, region_choices
from devices.enrolment_inputs import EnrolmentTokenInput
from devices.models import EnrolmentToken
from devices.services import enrolment
from firmware.models import DeviceModel
from hotswap.common.api.proxy import public_url
from hotswap.common.console.actions.base import Action
from hotswap.common.console.forms import ConsoleForm, EmptyForm
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.requests import acting_person
from hotswap.common.errors import HotSwapError
from hotswap.common.models import User
from hotswap.common.roles import Role


class TokenForm(ConsoleForm):
    name = forms.CharField(max_length=128, help_text="For whom or where it is used")
    model = forms.ChoiceField(required=False)
    region = forms.ChoiceField(required=False)
    tags = TagsField(help_text=f"{TAGS_HELP}; given to each device")
    needsApproval = forms.BooleanField(
        label="A person approves each device", required=False, initial=True
    )
    maxUses = forms.IntegerField(
        label="Devices at most",
        required=False,
        min_value=1,
        help_text="Empty: any number",
    )
    days = forms.IntegerField(
        label="Valid for days", initial=30, min_value=1, max_value=3650
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = DeviceModel.objects.values_list("name", flat=True)
        cast(forms.ChoiceField, self.fields["model"]).choices = [
            ("", "any"),
            *((name, name) for name in names),
        ]
        cast(forms.ChoiceField, self.fields["region"]).choices = [
            ("", "any"),
            *region_choices(),
        ]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors:
            ends = timezone.now() + timedelta(days=cleaned["days"])
            self.given = self.check_with(
                EnrolmentTokenInput,
                {
                    "name": cleaned["name"],
                    "model": cleaned["model"] or None,
                    "region": cleaned["region"] or None,
                    "tags": cleaned["tags"],
                    "needsApproval": cleaned["needsApproval"],
                    "maxUses": cleaned["maxUses"],
                    "expiresAt": ends.isoformat(),
                },
            )
        return cleaned


class CreateToken(Action):
    name = "create"
    needs_proof = True
    label = "Make token"
    icon = "add"
    tone = "primary"
    role = Role.ADMIN
    is_of_list = True
    is_dialog = False
    form_class = TokenForm
    template = "console/shown_once.html"

    def serve(self, admin: ConsoleAdmin, request: HttpRequest, obj: Any) -> Any:
        user = acting_person(request)
        if request.method != "POST" or not user.may(self.role):
            return super().serve(admin, request, obj)
        form = TokenForm(request.POST)
        if form.is_valid() and form.given is not None:
            given = dict(form.given)
            try:
                token, value = enrolment.create_enrolment_token(
                    actor=user,
                    model_name=given.pop("model"),
                    region=given.pop("region") or "",
                    **given,
                )
            except HotSwapError as error:
                form.refuse(error)
            else:
                server = public_url(request)
                return self.show(
                    admin,
                    request,
                    None,
                    EmptyForm(),
                    value=value,
                    what="token",
                    if_lost="Only a digest of it is kept. If it is lost, make a new "
                    "one.",
                    owner="token",
                    owner_url=admin.page_url(token),
                    address=f"{server.rstrip('/')}/api/v1/enrolments",
                    heading=f"Token {token}",
                )
        return self.show(admin, request, obj, form)


class RevokeToken(Action):
    name = "revoke"
    label = "Revoke"
    icon = "key_off"
    tone = "danger"
    role = Role.ADMIN
    form_class = EmptyForm

    def applies(self, obj: EnrolmentToken) -> bool:
        return obj.revoked_at is None

    def notes(self, obj: EnrolmentToken) -> tuple[str, ...]:
        waiting = obj.enrolmentrequest_set.filter(status__in=OPEN_ENROLMENTS).count()
        return (
            (
                f"It lets nobody in any more. {waiting:,} of its devices have yet to "
                "get their key, and are refused; devices that are in stay in. This "
                "cannot be undone."
            ),
        )

    def execute(self, user: User, obj: EnrolmentToken, given: dict[str, Any]) -> str:
        enrolment.revoke_enrolment_token(actor=user, token_id=obj.pk)
        return f"The token {obj} is revoked."
