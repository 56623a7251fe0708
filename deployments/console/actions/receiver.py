"""What Admins do to the receivers of each channel."""

from typing import Any, ClassVar

from django import forms
from django.http import HttpRequest

from deployments.choices import DeliveryStatus
from deployments.models import Delivery, Receiver, Webhook
from deployments.notifications.channels.types import Channel, Endpoint
from deployments.receiver_inputs import ADDITIONS
from deployments.rules.events import NEEDS_A_PERSON, NOTIFIED_CHOICES
from deployments.services import receivers
from hotswap.common.console.actions.base import Action
from hotswap.common.console.forms import ConsoleForm, EmptyForm
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.requests import acting_person
from hotswap.common.errors import HotSwapError
from hotswap.common.models import User
from hotswap.common.pluralize import counted
from hotswap.common.roles import Role

# The field of what nobody should see again, nor a browser keep.
_UNSEEN = {"autocomplete": "off", "spellcheck": "false"}


class ReceiverForm(ConsoleForm):
    """What all of them have; the first field of each kind is its own."""

    events = forms.MultipleChoiceField(
        choices=NOTIFIED_CHOICES,
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="None ticked: all of them.",
    )
    description = forms.CharField(max_length=200, required=False)


class EndpointForm(ReceiverForm):
    """With the field that says where, beside which stands why it is refused."""

    endpoint: ClassVar[Endpoint]

    def refuse(self, error: HotSwapError) -> None:
        found = [x for x in error.errors if x.pointer == f"/{self.endpoint.name}"]
        if found:
            self.add_error(self.endpoint.name, found[0].detail)
        else:
            super().refuse(error)


def _endpoint_form(endpoint: Endpoint, field: forms.Field) -> type[EndpointForm]:
    members = {
        "endpoint": endpoint,
        "field_order": (endpoint.name,),
        endpoint.name: field,
    }
    return type("EndpointForm", (EndpointForm,), members)


def addition_form(channel: Channel) -> type[ReceiverForm]:
    """Return the form that adds a receiver of a channel."""
    endpoint = channel.endpoint
    field = forms.CharField(
        label=endpoint.label,
        max_length=endpoint.maximum_length,
        help_text=endpoint.hint,
        widget=forms.TextInput(
            attrs=_UNSEEN | {"placeholder": endpoint.placeholder}
            if endpoint.is_secret
            else {}
        ),
    )
    return _endpoint_form(endpoint, field)


def changes_form(channel: Channel) -> type[ReceiverForm]:
    """Return the form that changes one; a secret endpoint stays if left empty."""
    endpoint = channel.endpoint
    if not endpoint.is_changeable:
        return ReceiverForm
    if not endpoint.is_secret:
        return addition_form(channel)
    field = forms.CharField(
        label=f"New {endpoint.label[:1].lower()}{endpoint.label[1:]}",
        max_length=endpoint.maximum_length,
        required=False,
        help_text="Empty: it stays as it is.",
        widget=forms.TextInput(attrs=_UNSEEN),
    )
    return _endpoint_form(endpoint, field)


class ReceiverAction(Action):
    role = Role.ADMIN
    form_class: ClassVar[type[ConsoleForm]] = EmptyForm


class RotateSecret(ReceiverAction):
    name = "rotate-secret"
    needs_proof = True
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
        webhook, secret = receivers.rotate_secret(actor=user, webhook_id=obj.pk)
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


class AddReceiver(ReceiverAction):
    """Adds one whose form has nothing to show once."""

    channel: ClassVar[Channel]
    name = "add"
    needs_proof = True
    icon = "add"
    tone = "primary"
    is_of_list = True

    def make_form(self, request: HttpRequest, obj: Any) -> ConsoleForm:
        form = super().make_form(request, obj)
        if self.channel.is_for_people:
            form.initial["events"] = list(NEEDS_A_PERSON)
        if form.is_bound and form.is_valid():
            form.check_with(ADDITIONS[self.channel.model], form.cleaned_data)
        return form

    def execute(self, user: User, obj: Any, given: dict[str, Any]) -> str:
        added = receivers.create_receiver(actor=user, kind=self.channel.model, **given)
        return f"{added} is told from now on."


class AddWithSecret(AddReceiver):
    """Adds one and shows its secret, on a page of its own."""

    is_dialog = False
    template = "console/shown_once.html"

    def serve(self, admin: ConsoleAdmin, request: HttpRequest, obj: Any) -> Any:
        user = acting_person(request)
        if request.method != "POST" or not user.may(self.role):
            return super().serve(admin, request, obj)
        form = self.make_form(request, obj)
        if form.is_valid():
            try:
                webhook, secret = receivers.create_webhook(
                    actor=user, **form.cleaned_data
                )
            except HotSwapError as error:
                form.refuse(error)
            else:
                return _secret_shown(self, admin, request, webhook, secret)
        return self.show(admin, request, obj, form)


def add_action(channel: Channel) -> type[Action]:
    """Return what adds a receiver of a channel."""
    base = AddWithSecret if channel.has_secret else AddReceiver
    members = {
        "channel": channel,
        "label": f"Add {channel.name}",
        "form_class": addition_form(channel),
    }
    return type(f"Add{channel.model.__name__}", (base,), members)


class EditReceiver(ReceiverAction):
    """Changes one; where its endpoint is secret, the form does not show it."""

    channel: ClassVar[Channel]
    name = "edit"
    needs_proof = True
    label = "Edit"
    icon = "edit"

    def make_form(self, request: HttpRequest, obj: Receiver) -> ConsoleForm:
        endpoint = self.channel.endpoint
        shown = () if endpoint.is_secret else (endpoint.name,)
        return self.form_class(
            request.POST if request.method == "POST" else None,
            initial={
                name: getattr(obj, name) for name in (*shown, "events", "description")
            },
        )

    def execute(self, user: User, obj: Receiver, given: dict[str, Any]) -> str:
        endpoint = self.channel.endpoint
        kept = () if given.get(endpoint.name) else (endpoint.name,)
        changed = receivers.change_receiver(
            actor=user,
            kind=type(obj),
            receiver_id=obj.pk,
            changes={name: given[name] for name in given if name not in kept},
        )
        return f"{changed} is changed."


def edit_action(channel: Channel) -> type[Action]:
    """Return what changes a receiver of a channel."""
    members = {"channel": channel, "form_class": changes_form(channel)}
    return type(f"Edit{channel.model.__name__}", (EditReceiver,), members)


class EnableReceiver(ReceiverAction):
    name = "enable"
    label = "Enable"
    icon = "play_arrow"
    tone = "primary"

    def applies(self, obj: Receiver) -> bool:
        return not obj.enabled

    def notes(self, obj: Receiver) -> tuple[str, ...]:
        return (
            f"Why it was disabled: {obj.disabled_reason}.",
            "It is sent what happens from now on; what has failed can be resent.",
        )

    def execute(self, user: User, obj: Receiver, given: dict[str, Any]) -> str:
        _set_enabled(user, obj, to=True)
        return f"{obj} is told from now on."


class DisableReceiver(ReceiverAction):
    name = "disable"
    label = "Disable"
    icon = "pause"

    def applies(self, obj: Receiver) -> bool:
        return obj.enabled

    def notes(self, obj: Receiver) -> tuple[str, ...]:
        waiting = Delivery.objects.of(obj).filter(status=DeliveryStatus.PENDING).count()
        waits = counted(
            waiting, "delivery that waits counts", "deliveries that wait count"
        )
        return (f"It is told nothing more. {waits} as failed.",)

    def execute(self, user: User, obj: Receiver, given: dict[str, Any]) -> str:
        _set_enabled(user, obj, to=False)
        return f"{obj} is told nothing more."


def _set_enabled(user: User, receiver: Receiver, *, to: bool) -> None:
    receivers.change_receiver(
        actor=user,
        kind=type(receiver),
        receiver_id=receiver.pk,
        changes={"enabled": to},
    )


class SendTest(ReceiverAction):
    name = "test"
    label = "Send test"
    icon = "send"

    def heading(self, obj: Receiver) -> str:
        return f"Send a test to {obj}"

    def blocked_reason(self, user: User, obj: Receiver) -> str:
        return "" if obj.enabled else "it is disabled"

    def notes(self, obj: Receiver) -> tuple[str, ...]:
        return ("A notification that tells nothing is sent the usual way.",)

    def execute(self, user: User, obj: Receiver, given: dict[str, Any]) -> str:
        receivers.send_test(actor=user, kind=type(obj), receiver_id=obj.pk)
        return "A test is on its way: its delivery below says what becomes of it."


class DeleteReceiver(ReceiverAction):
    name = "delete"
    label = "Delete"
    icon = "delete"
    tone = "danger"

    def notes(self, obj: Receiver) -> tuple[str, ...]:
        count = Delivery.objects.of(obj).count()
        return (f"It goes with the log of its deliveries, {count:,} of them.",)

    def execute(self, user: User, obj: Receiver, given: dict[str, Any]) -> str:
        receivers.delete_receiver(actor=user, kind=type(obj), receiver_id=obj.pk)
        return f"{obj} is deleted."

    def next_url(self, admin: ConsoleAdmin, obj: Any) -> str:
        return admin.list_url()
