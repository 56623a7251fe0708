"""What Admins do to webhooks, mail recipients and gateways."""

from collections.abc import Callable
from typing import Any, ClassVar

from django import forms
from django.http import HttpRequest
from rest_framework.serializers import BaseSerializer

from deployments.choices import DeliveryStatus
from deployments.exceptions import GatewayRefusedError, WebhookRefusedError
from deployments.listener_inputs import GatewayInput, MailRecipientInput, WebhookInput
from deployments.models import Delivery, Listener, Webhook
from deployments.rules.events import NEEDS_A_PERSON, NOTIFIED_CHOICES
from deployments.services import listeners
from hotswap.common.console.actions.base import Action
from hotswap.common.console.forms import ConsoleForm, EmptyForm
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.requests import acting_person
from hotswap.common.errors import HotSwapError
from hotswap.common.models import User
from hotswap.common.roles import Role
from hotswap.common.words import counted


class ListenerForm(ConsoleForm):
    """What all of them have; the first field of each kind is its own."""

    events = forms.MultipleChoiceField(
        choices=NOTIFIED_CHOICES,
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="None ticked: all of them.",
    )
    description = forms.CharField(max_length=200, required=False)


class UrlForm(ListenerForm):
    """With a URL, beside which stands why nothing may be sent there."""

    field_order = ("url",)

    def refuse(self, error: HotSwapError) -> None:
        if isinstance(error, WebhookRefusedError | GatewayRefusedError):
            self.add_error("url", error.errors[0].detail)
        else:
            super().refuse(error)


class WebhookForm(UrlForm):
    url = forms.CharField(
        label="URL",
        max_length=2000,
        help_text="Public and over https://, unless its network is allowed by name.",
    )


class GatewayForm(UrlForm):
    url = forms.CharField(
        label="Apprise URL",
        max_length=2000,
        widget=forms.TextInput(
            attrs={
                "autocomplete": "off",
                "spellcheck": "false",
                "placeholder": "twilio://account:token@from/to",
            }
        ),
        help_text="It holds secrets: only what stands before :// is shown again.",
    )


class GatewayChangesForm(GatewayForm):
    url = forms.CharField(
        label="New apprise URL",
        max_length=2000,
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text="Empty: it stays as it is.",
    )


class MailRecipientForm(ListenerForm):
    address = forms.CharField(label="Mail address", max_length=254)
    field_order = ("address",)


class ListenerAction(Action):
    role = Role.ADMIN
    form_class: ClassVar[type[ConsoleForm]] = EmptyForm


class AddWebhook(ListenerAction):
    name = "add"
    label = "Add webhook"
    icon = "add"
    tone = "primary"
    is_of_list = True
    is_dialog = False
    form_class = WebhookForm
    template = "console/shown_once.html"

    def serve(self, admin: ConsoleAdmin, request: HttpRequest, obj: Any) -> Any:
        user = acting_person(request)
        if request.method != "POST" or not user.may(self.role):
            return super().serve(admin, request, obj)
        form = WebhookForm(request.POST)
        if form.is_valid() and form.check_with(WebhookInput, form.cleaned_data):
            try:
                webhook, secret = listeners.create_webhook(
                    actor=user, **form.cleaned_data
                )
            except HotSwapError as error:
                form.refuse(error)
            else:
                return _secret_shown(self, admin, request, webhook, secret)
        return self.show(admin, request, obj, form)


class RotateSecret(ListenerAction):
    name = "rotate-secret"
    label = "Rotate secret"
    icon = "key"
    is_dialog = False
    template = "console/shown_once.html"

    def heading(self, obj: Webhook) -> str:
        return f"Rotate the secret of {obj}"

    def notes(self, obj: Webhook) -> tuple[str, ...]:
        return (
            "A new secret is made and shown once.",
            "For a day each request is signed with the former one too.",
        )

    def serve(self, admin: ConsoleAdmin, request: HttpRequest, obj: Any) -> Any:
        user = acting_person(request)
        if request.method != "POST" or not user.may(self.role):
            return super().serve(admin, request, obj)
        webhook, secret = listeners.rotate_secret(actor=user, webhook_id=obj.pk)
        return _secret_shown(self, admin, request, webhook, secret)


def _secret_shown(
    action: Action,
    admin: ConsoleAdmin,
    request: HttpRequest,
    webhook: Webhook,
    secret: str,
) -> Any:
    return action.show(
        admin,
        request,
        None if action.is_of_list else webhook,
        EmptyForm(),
        value=secret,
        what="secret",
        if_lost="The receiver verifies signatures with it. If it is lost, rotate it.",
        owner="webhook",
        owner_url=admin.page_url(webhook),
        heading=f"Secret of {webhook}",
    )


class AddListener(ListenerAction):
    """Adds one whose form has nothing to show once."""

    name = "add"
    icon = "add"
    tone = "primary"
    is_of_list = True
    input_class: type[BaseSerializer[Any]]
    create: ClassVar[Callable[..., Listener]]

    def make_form(self, request: HttpRequest, obj: Any) -> ConsoleForm:
        form = super().make_form(request, obj)
        form.initial["events"] = list(NEEDS_A_PERSON)
        if form.is_bound and form.is_valid():
            form.check_with(self.input_class, form.cleaned_data)
        return form

    def execute(self, user: User, obj: Any, given: dict[str, Any]) -> str:
        added = type(self).create(actor=user, **given)
        return f"{added} is told from now on."


class AddMailRecipient(AddListener):
    label = "Add mail recipient"
    form_class = MailRecipientForm
    input_class = MailRecipientInput
    create = staticmethod(listeners.create_mail_recipient)


class EditListener(ListenerAction):
    name = "edit"
    label = "Edit"
    icon = "edit"
    form_class = ListenerForm
    start_fields: ClassVar[tuple[str, ...]] = ("events", "description")

    def make_form(self, request: HttpRequest, obj: Listener) -> ConsoleForm:
        return self.form_class(
            request.POST if request.method == "POST" else None,
            initial={name: getattr(obj, name) for name in self.start_fields},
        )

    def execute(self, user: User, obj: Listener, given: dict[str, Any]) -> str:
        changed = listeners.change_listener(
            actor=user, kind=type(obj), listener_id=obj.pk, changes=given
        )
        return f"{changed} is changed."


class EditWebhook(EditListener):
    form_class = WebhookForm
    start_fields = ("url", "events", "description")


class AddGateway(AddListener):
    label = "Add gateway"
    form_class = GatewayForm
    input_class = GatewayInput
    create = staticmethod(listeners.create_gateway)


class EditGateway(EditListener):
    form_class = GatewayChangesForm

    def execute(self, user: User, obj: Listener, given: dict[str, Any]) -> str:
        kept = () if given["url"] else ("url",)
        changes = {name: given[name] for name in given if name not in kept}
        return super().execute(user, obj, changes)


class EnableListener(ListenerAction):
    name = "enable"
    label = "Enable"
    icon = "play_arrow"
    tone = "primary"

    def applies(self, obj: Listener) -> bool:
        return not obj.enabled

    def notes(self, obj: Listener) -> tuple[str, ...]:
        return (
            f"Why it was disabled: {obj.disabled_reason}.",
            "It is told of what happens from now on; what has failed can be resent.",
        )

    def execute(self, user: User, obj: Listener, given: dict[str, Any]) -> str:
        _set_enabled(user, obj, to=True)
        return f"{obj} is told from now on."


class DisableListener(ListenerAction):
    name = "disable"
    label = "Disable"
    icon = "pause"

    def applies(self, obj: Listener) -> bool:
        return obj.enabled

    def notes(self, obj: Listener) -> tuple[str, ...]:
        waiting = Delivery.objects.of(obj).filter(status=DeliveryStatus.PENDING).count()
        waits = counted(
            waiting, "delivery that waits counts", "deliveries that wait count"
        )
        return (f"It is told nothing more. {waits} as failed.",)

    def execute(self, user: User, obj: Listener, given: dict[str, Any]) -> str:
        _set_enabled(user, obj, to=False)
        return f"{obj} is told nothing more."


def _set_enabled(user: User, listener: Listener, *, to: bool) -> None:
    listeners.change_listener(
        actor=user,
        kind=type(listener),
        listener_id=listener.pk,
        changes={"enabled": to},
    )


class SendTest(ListenerAction):
    name = "test"
    label = "Send test"
    icon = "send"

    def heading(self, obj: Listener) -> str:
        return f"Send a test to {obj}"

    def blocked_reason(self, user: User, obj: Listener) -> str:
        return "" if obj.enabled else "it is disabled"

    def notes(self, obj: Listener) -> tuple[str, ...]:
        return ("A notification that tells nothing is sent the usual way.",)

    def execute(self, user: User, obj: Listener, given: dict[str, Any]) -> str:
        listeners.send_test(actor=user, kind=type(obj), listener_id=obj.pk)
        return "A test is on its way: its delivery below says what becomes of it."


class DeleteListener(ListenerAction):
    name = "delete"
    label = "Delete"
    icon = "delete"
    tone = "danger"

    def notes(self, obj: Listener) -> tuple[str, ...]:
        count = Delivery.objects.of(obj).count()
        return (f"It goes with the log of its deliveries, {count:,} of them.",)

    def execute(self, user: User, obj: Listener, given: dict[str, Any]) -> str:
        listeners.delete_listener(actor=user, kind=type(obj), listener_id=obj.pk)
        return f"{obj} is deleted."

    def next_url(self, admin: ConsoleAdmin, obj: Any) -> str:
        return admin.list_url()
