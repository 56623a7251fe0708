"""What people do to a device, its keys and its certificates."""

import json
from typing import Any, cast

from django import forms
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from rest_framework.exceptions import ValidationError

from devices.console.audiences import ACKNOWLEDGE, AcknowledgingForm
from devices.console.fields import JsonField, TagsField, region_choices
from devices.inputs import DeviceChangesInput, DeviceInput
from devices.models import Device
from devices.services import certificates, credentials, erasure, registry
from devices.services.certificates import MAX_PEM_CHARACTERS
from firmware.choices import KeyStatus
from firmware.model_field import offer_models
from firmware.models import DeviceModel, SigningKey
from hotswap.common.api.proxy import public_url
from hotswap.common.console.actions.base import Action
from hotswap.common.console.forms import CommentForm, ConsoleForm, EmptyForm, ReasonForm
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.errors import HotSwapError
from hotswap.common.models import User
from hotswap.common.roles import Role
from hotswap.common.signatures import FIELD as SIGNATURE
from hotswap.common.signatures import Meaning


class DeviceForm(AcknowledgingForm):
    region = forms.ChoiceField(choices=region_choices)
    tags = TagsField()
    metadata = JsonField(required=False, help_text="Any object of at most 16 KiB")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors:
            self.check_with(DeviceChangesInput, self.filled_in)
        return cleaned


class EditDevice(Action):
    name = "edit"
    label = "Edit"
    icon = "edit"
    form_class = DeviceForm

    def make_form(self, request: HttpRequest, obj: Device) -> ConsoleForm:
        start = {"region": obj.region, "tags": obj.tags, "metadata": obj.metadata}
        return DeviceForm(request.POST or None, initial=start)

    def execute(self, user: User, obj: Device, given: dict[str, Any]) -> str:
        is_ticked = given.pop(ACKNOWLEDGE, False)
        registry.change_device(
            actor=user,
            device_id=obj.device_id,
            changes=given,
            acknowledged=is_ticked,
        )
        return f"{obj} is changed."


class DisableDevice(Action):
    name = "disable"
    label = "Disable"
    icon = "pause"
    form_class = EmptyForm

    def applies(self, obj: Device) -> bool:
        return obj.enabled and obj.revoked_at is None

    def notes(self, obj: Device) -> tuple[str, ...]:
        return (
            (
                "New deployments exclude it. It may still report, and an update that "
                "is in progress goes on."
            ),
        )

    def execute(self, user: User, obj: Device, given: dict[str, Any]) -> str:
        registry.change_device(
            actor=user, device_id=obj.device_id, changes={"enabled": False}
        )
        return f"{obj} is disabled for updates."


class EnableDevice(Action):
    name = "enable"
    label = "Enable"
    icon = "play_arrow"
    form_class = EmptyForm

    def applies(self, obj: Device) -> bool:
        return not obj.enabled and obj.revoked_at is None

    def notes(self, obj: Device) -> tuple[str, ...]:
        return ("New deployments take it in again.",)

    def execute(self, user: User, obj: Device, given: dict[str, Any]) -> str:
        registry.change_device(
            actor=user, device_id=obj.device_id, changes={"enabled": True}
        )
        return f"{obj} is enabled for updates."


class RevokeForm(ReasonForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].required = False


class RevokeDevice(Action):
    name = "revoke"
    label = "Revoke"
    icon = "key_off"
    tone = "danger"
    form_class = RevokeForm

    def applies(self, obj: Device) -> bool:
        return obj.revoked_at is None

    def notes(self, obj: Device) -> tuple[str, ...]:
        return (
            (
                f"{obj} is shut out of every route within seconds: no heartbeat, no "
                "update, no download. This cannot be undone: the device must be "
                "registered anew."
            ),
        )

    def execute(self, user: User, obj: Device, given: dict[str, Any]) -> str:
        registry.revoke_device(
            actor=user, device_id=obj.device_id, reason=given["reason"]
        )
        return f"{obj} is revoked."


class EraseForm(ConsoleForm):
    typed = forms.CharField(
        label="Device id",
        max_length=128,
        help_text="Type it to confirm",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )


class EraseDevice(Action):
    name = "erase"
    label = "Erase"
    icon = "delete_forever"
    tone = "danger"
    role = Role.ADMIN
    form_class = EraseForm
    meaning = Meaning.DEVICE_ERASURE

    def notes(self, obj: Device) -> tuple[str, ...]:
        return (
            (
                f"All that is held about {obj} is deleted: name, tags, metadata, keys, "
                "groups, health, history, reports and what was logged about it. This "
                "cannot be undone."
            ),
            (
                "An update in progress is cancelled, and the device shut out at once. "
                "Deployments go on without it. What past ones counted stays counted, "
                "under an audit ID; the audit trail keeps that ID as well."
            ),
        )

    def execute(self, user: User, obj: Device, given: dict[str, Any]) -> str:
        if given["typed"].strip() != obj.device_id:
            raise ValidationError(f"That is not the id of {obj.device_id}.")
        erasure.erase_device(
            actor=user, device_id=obj.device_id, signature=given.get(SIGNATURE)
        )
        return "The device is erased."

    def next_url(self, admin: ConsoleAdmin, obj: Any) -> str:
        return admin.list_url()


class AcknowledgeAlarm(Action):
    name = "acknowledge"
    label = "Acknowledge alarm"
    icon = "notifications_off"
    form_class = CommentForm

    def applies(self, obj: Device) -> bool:
        return obj.alarm_at is not None

    def notes(self, obj: Device) -> tuple[str, ...]:
        return (
            (
                "The alarm disappears from the device and the overview; the audit "
                "trail keeps it. If the retired key is used again, it comes back."
            ),
        )

    def execute(self, user: User, obj: Device, given: dict[str, Any]) -> str:
        registry.acknowledge_alarm(
            actor=user, device_id=obj.device_id, comment=given["comment"]
        )
        return f"The alarm of {obj} is acknowledged."


class CertificateForm(ConsoleForm):
    certificate = forms.CharField(
        max_length=MAX_PEM_CHARACTERS,
        widget=forms.Textarea(
            attrs={"class": "hs-input hs-json", "rows": 8, "spellcheck": "false"}
        ),
        help_text="One certificate in PEM, without its chain and its private key",
    )


class AddCertificate(Action):
    name = "add-certificate"
    label = "Add certificate"
    icon = "verified_user"
    form_class = CertificateForm

    def applies(self, obj: Device) -> bool:
        return settings.DEVICE_CERTIFICATES != "off" and obj.revoked_at is None

    def execute(self, user: User, obj: Device, given: dict[str, Any]) -> str:
        added = certificates.add_certificate(
            actor=user, device_id=obj.device_id, certificate=given["certificate"]
        )
        return f"{obj} may call with {added}."


class CertificateChoiceForm(ConsoleForm):
    fingerprint = forms.ChoiceField(label="Certificate")

    def __init__(self, device: Device, *args: Any) -> None:
        super().__init__(*args)
        cast(forms.ChoiceField, self.fields["fingerprint"]).choices = [
            (each.fingerprint, str(each)) for each in device.certificates.all()
        ]


class RemoveCertificate(Action):
    name = "remove-certificate"
    label = "Remove certificate"
    icon = "remove_moderator"

    def applies(self, obj: Device) -> bool:
        return obj.certificates.exists()

    def notes(self, obj: Device) -> tuple[str, ...]:
        return ("It is shut out within seconds, with the tokens it was given.",)

    def make_form(self, request: HttpRequest, obj: Device) -> ConsoleForm:
        return CertificateChoiceForm(obj, request.POST or None)

    def execute(self, user: User, obj: Device, given: dict[str, Any]) -> str:
        certificates.remove_certificate(
            actor=user, device_id=obj.device_id, fingerprint=given["fingerprint"]
        )
        return f"The certificate of {obj} is removed."


class KeyAction(Action):
    """An action whose answer is a key that can be read this once."""

    def show_key(
        self, admin: ConsoleAdmin, request: HttpRequest, device: Device, key: str
    ) -> HttpResponse:
        server = public_url(request)
        return self.show(
            admin,
            request,
            None if self.is_of_list else device,
            EmptyForm(),
            device=device,
            device_url=admin.page_url(device),
            api_key=key,
            **_agent_files(device, server, key),
            subtitle=f"Key of {device}",
            heading=f"Key of {device}",
        )


def _agent_files(device: Device, server: str, api_key: str) -> dict[str, Any]:
    """Return the files of an agent, and one command that writes and starts it."""
    keys = SigningKey.objects.filter(
        status__in=[KeyStatus.ACTIVE, KeyStatus.RETIRING, KeyStatus.NEXT]
    )
    trusted = {f"{key.key_id}.pem": key.public_key.strip() for key in keys}
    config = "\n".join(
        # JSON strings and arrays of strings are TOML as well.
        f"{name} = {json.dumps(value)}"
        for name, value in {
            "server": server.rstrip("/"),
            "device_id": device.device_id,
            "model": device.model.name,
            "api_key_file": "api-key",
            "data_dir": "data",
            "trusted_keys": list(trusted),
        }.items()
    )
    files = {"api-key": api_key, "agent.toml": config, **trusted}
    folder = f"hotswap-{device.device_id.replace(':', '-')}"
    lines = [f"mkdir -p {folder} && cd {folder} && umask 077"]
    for name, text in files.items():
        lines += [f"cat > {name} <<'END'", text, "END"]
    start = "hotswap-agent --config agent.toml"
    return {
        "agent_files": list(files.items()),
        "connect_command": "\n".join([*lines, start]),
        "start_command": start,
    }


class RegisterForm(ConsoleForm):
    deviceId = forms.CharField(
        label="Device id",
        max_length=128,
        help_text="Your own name of it: letters, digits and . _ : -",
    )
    model = forms.ChoiceField()
    region = forms.ChoiceField(choices=region_choices)
    tags = TagsField()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = DeviceModel.objects.values_list("name", flat=True)
        offer_models(self.fields["model"], ((name, name) for name in names))
        self.fields["region"].initial = settings.DEFAULT_REGION

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors:
            self.given = self.check_with(DeviceInput, cleaned)
        return cleaned


class RegisterDevice(KeyAction):
    name = "register"
    label = "Register device"
    icon = "add"
    tone = "primary"
    is_of_list = True
    is_dialog = False
    form_class = RegisterForm
    template = "console/register.html"

    def serve(self, admin: ConsoleAdmin, request: HttpRequest, obj: Any) -> Any:
        user = cast(User, request.user)
        if request.method != "POST" or not user.may(self.role):
            return super().serve(admin, request, obj)
        form = RegisterForm(request.POST)
        if form.is_valid() and form.given is not None:
            given = dict(form.given)
            try:
                device, key = registry.register_device(
                    actor=user, model_name=given.pop("model"), **given
                )
            except HotSwapError as error:
                form.refuse(error)
            else:
                return self.show_key(admin, request, device, key)
        return self.show(admin, request, obj, form)


class RotateKey(KeyAction):
    name = "new-key"
    label = "New key"
    icon = "key"
    is_dialog = False
    form_class = EmptyForm
    template = "console/register.html"

    def applies(self, obj: Device) -> bool:
        return obj.revoked_at is None

    def notes(self, obj: Device) -> tuple[str, ...]:
        return ("The keys it has now stay valid for 24 hours, so that it can change.",)

    def serve(self, admin: ConsoleAdmin, request: HttpRequest, obj: Device) -> Any:
        user = cast(User, request.user)
        if request.method != "POST" or not user.may(self.role):
            return super().serve(admin, request, obj)
        form = EmptyForm(request.POST)
        try:
            issued = credentials.rotate_key(device_id=obj.device_id, actor=user)
        except HotSwapError as error:
            form.is_valid()
            form.refuse(error)
            return self.show(admin, request, obj, form)
        return self.show_key(admin, request, obj, issued.api_key)
