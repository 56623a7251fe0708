"""The console's pages of enrolment: devices that ask to come in, and their tokens."""

import json
from datetime import timedelta
from typing import Any, cast

from django import forms
from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.decorators import display

from devices.api.enrolments import EnrolmentTokenInput
from devices.choices import OPEN_ENROLMENTS, EnrolmentStatus, TokenStatus
from devices.console.fields import JsonField, region_choices
from devices.models import Device, EnrolmentRequest, EnrolmentToken
from devices.services import enrolment
from firmware.models import DeviceModel
from hotswap.common.api.proxy import public_url
from hotswap.common.console.actions.base import Action
from hotswap.common.console.badges import (
    DONE,
    FAILED,
    MOVING,
    NOT_STARTED,
    WAITS,
    badge,
)
from hotswap.common.console.filters import StatusFilter
from hotswap.common.console.forms import CommentForm, ConsoleForm, EmptyForm
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.requests import acting_person
from hotswap.common.console.text import age
from hotswap.common.errors import HotSwapError
from hotswap.common.models import User
from hotswap.common.roles import Role

SHOWN_REQUESTS = 50

ENROLMENT_BADGES = {
    EnrolmentStatus.PENDING: (WAITS, "pending_actions"),
    EnrolmentStatus.APPROVED: (MOVING, "schedule_send"),
    EnrolmentStatus.REJECTED: (FAILED, "close"),
    EnrolmentStatus.COMPLETED: (DONE, "check"),
}
TOKEN_BADGES = {
    TokenStatus.ACTIVE: (DONE, "check"),
    TokenStatus.EXPIRED: (NOT_STARTED, "schedule"),
    TokenStatus.USED_UP: (NOT_STARTED, "done_all"),
    TokenStatus.REVOKED: (FAILED, "key_off"),
}


def enrolment_badge(request: EnrolmentRequest) -> SafeString:
    tone, icon = ENROLMENT_BADGES[EnrolmentStatus(request.status)]
    return badge(request.status, tone, icon)


def token_badge(token: EnrolmentToken) -> SafeString:
    status = token.status_at(timezone.now())
    tone, icon = TOKEN_BADGES[status]
    return badge(str(status.label), tone, icon)


# --- Devices that ask --------------------------------------------------------------


class ApproveEnrolment(Action):
    name = "approve"
    label = "Approve"
    icon = "check"
    tone = "primary"
    form_class = CommentForm

    def applies(self, obj: EnrolmentRequest) -> bool:
        return obj.status == EnrolmentStatus.PENDING

    def blocked_reason(self, user: User, obj: EnrolmentRequest) -> str:
        if Device.objects.filter(device_id=obj.device_id).exists():
            return "a device of this name was registered in the meantime"
        if obj.token.revoked_at is not None:
            return "its token was revoked"
        return ""

    def notes(self, obj: EnrolmentRequest) -> tuple[str, ...]:
        return (
            (
                f"{obj} ({obj.model}, {obj.region}) is registered and gets its key "
                "when it asks the next time."
            ),
        )

    def execute(self, user: User, obj: EnrolmentRequest, given: dict[str, Any]) -> str:
        enrolment.approve_enrolment(
            actor=user, enrolment_id=obj.pk, comment=given["comment"]
        )
        return f"{obj} is approved: it is in as soon as it asks again."


class RejectEnrolment(Action):
    name = "reject"
    label = "Reject"
    icon = "close"
    tone = "danger"

    def applies(self, obj: EnrolmentRequest) -> bool:
        return obj.status in OPEN_ENROLMENTS

    def notes(self, obj: EnrolmentRequest) -> tuple[str, ...]:
        return ("It is told so when it asks again, and gets no key with this token.",)

    def execute(self, user: User, obj: EnrolmentRequest, given: dict[str, Any]) -> str:
        enrolment.reject_enrolment(
            actor=user, enrolment_id=obj.pk, comment=given["reason"]
        )
        return f"{obj} is rejected."


class EnrolmentStatusFilter(StatusFilter):
    choices_of_status = EnrolmentStatus.choices


@admin.register(EnrolmentRequest)
class EnrolmentAdmin(ConsoleAdmin):
    list_name = "Enrolments"
    console_actions = (ApproveEnrolment, RejectEnrolment)
    page_template = "console/enrolment.html"
    empty_words = (
        "Nothing waits for you.",
        "Devices that register themselves with an enrolment token appear here.",
    )
    list_display = ("device_id", "model", "region", "token", "state", "since")
    list_filter = (EnrolmentStatusFilter,)
    search_fields = ("device_id",)
    search_help_text = "Device id"
    ordering = ("-created_at",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[EnrolmentRequest]:
        return EnrolmentRequest.objects.select_related("model", "token", "decided_by")

    @display(description="Status")
    def state(self, request: EnrolmentRequest) -> SafeString:
        return enrolment_badge(request)

    @display(description="Age", ordering="-created_at")
    def since(self, request: EnrolmentRequest) -> SafeString:
        return age(request.created_at)

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {
            "status": enrolment_badge(obj),
            "asked": age(obj.created_at),
            "decided": age(obj.decided_at),
            "completed": age(obj.completed_at),
            "tags": json.dumps(obj.tags, indent=2) if obj.tags else "",
        }


# --- Tokens ------------------------------------------------------------------------


class TokenForm(ConsoleForm):
    name = forms.CharField(max_length=128, help_text="For whom or where it is used")
    model = forms.ChoiceField(required=False)
    region = forms.ChoiceField(required=False)
    tags = JsonField(required=False, help_text='Given to each device: {"line": "3"}')
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


@admin.register(EnrolmentToken)
class EnrolmentTokenAdmin(ConsoleAdmin):
    list_name = "Enrolment tokens"
    console_actions = (CreateToken, RevokeToken)
    page_template = "console/enrolment_token.html"
    empty_words = (
        "There is no enrolment token.",
        "With one, devices register themselves: at once, or when a person approves.",
    )
    list_display = ("name", "model", "place", "asks", "used", "state", "ends")
    search_fields = ("name",)
    ordering = ("-created_at",)

    def has_view_permission(
        self, request: HttpRequest, obj: Model | None = None
    ) -> bool:
        return acting_person(request).may(Role.ADMIN)

    def get_queryset(self, request: HttpRequest) -> QuerySet[EnrolmentToken]:
        return EnrolmentToken.objects.select_related("model", "created_by")

    @display(description="Region")
    def place(self, token: EnrolmentToken) -> str:
        return token.region or "any"

    @display(description="Approval")
    def asks(self, token: EnrolmentToken) -> str:
        return "by a person" if token.needs_approval else "none"

    @display(description="Devices")
    def used(self, token: EnrolmentToken) -> str:
        if token.max_uses is None:
            return f"{token.uses:,}"
        return f"{token.uses:,} of {token.max_uses:,}"

    @display(description="Status")
    def state(self, token: EnrolmentToken) -> SafeString:
        return token_badge(token)

    @display(description="Ends", ordering="expires_at")
    def ends(self, token: EnrolmentToken) -> SafeString:
        return age(token.expires_at)

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        requests = obj.enrolmentrequest_set.order_by("-created_at")[:SHOWN_REQUESTS]
        return {
            "status": token_badge(obj),
            "used": self.used(obj),
            "ends": age(obj.expires_at),
            "made": age(obj.created_at),
            "revoked": age(obj.revoked_at),
            "tags": json.dumps(obj.tags, indent=2) if obj.tags else "",
            "requests": [
                {
                    "item": each,
                    "badge": enrolment_badge(each),
                    "asked": age(each.created_at),
                }
                for each in requests
            ],
        }
