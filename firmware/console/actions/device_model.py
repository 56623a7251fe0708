"""What people do to a device model: add it, change it."""

from typing import Any

from django import forms
from django.http import HttpRequest

from firmware.inputs import DeviceModelChangesInput, DeviceModelInput
from firmware.models import DeviceModel
from firmware.services.device_models import change_device_model, create_device_model
from firmware.versions import VersionScheme
from hotswap.common.console.actions.base import Action
from hotswap.common.console.forms import ConsoleForm
from hotswap.common.models import User
from hotswap.common.roles import Role

SECURE_BOOT_HELP = "Updates go only to devices whose last heartbeat reports it"


class VersionSchemeField(forms.ChoiceField):
    """How the versions of a model are written."""

    def __init__(self) -> None:
        super().__init__(
            label="Version scheme",
            choices=[
                (each.value, f"{each}: {each.expected}") for each in VersionScheme
            ],
            initial=VersionScheme.SEMVER.value,
            help_text="It can be changed until the first upload",
        )


class DeviceModelForm(ConsoleForm):
    name = forms.CharField(
        max_length=64, help_text="Letters, digits, dot, hyphen, underscore"
    )
    description = forms.CharField(max_length=500, required=False)
    versionScheme = VersionSchemeField()
    requiresSecureBoot = forms.BooleanField(
        label="Requires secure boot", required=False, help_text=SECURE_BOOT_HELP
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if "name" in cleaned:
            self.check_with(DeviceModelInput, cleaned)
        return cleaned


class DeviceModelChangesForm(ConsoleForm):
    description = forms.CharField(max_length=500, required=False)
    versionScheme = VersionSchemeField()
    requiresSecureBoot = forms.BooleanField(
        label="Requires secure boot", required=False, help_text=SECURE_BOOT_HELP
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        self.check_with(DeviceModelChangesInput, cleaned)
        return cleaned


class CreateDeviceModel(Action):
    name = "create"
    label = "Add device model"
    icon = "add"
    tone = "primary"
    role = Role.ADMIN
    is_of_list = True
    form_class = DeviceModelForm

    def execute(self, user: User, obj: Any, given: dict[str, Any]) -> str:
        model = create_device_model(
            actor=user,
            name=given["name"],
            description=given["description"],
            requires_secure_boot=given["requiresSecureBoot"],
            version_scheme=VersionScheme(given["versionScheme"]),
        )
        return f"The device model {model} is in the catalogue."


class ChangeDeviceModel(Action):
    name = "edit"
    label = "Edit"
    icon = "edit"
    role = Role.ADMIN
    form_class = DeviceModelChangesForm

    def make_form(self, request: HttpRequest, obj: DeviceModel) -> ConsoleForm:
        start = {
            "description": obj.description,
            "requiresSecureBoot": obj.requires_secure_boot,
            "versionScheme": obj.version_scheme,
        }
        return DeviceModelChangesForm(request.POST or None, initial=start)

    def notes(self, obj: DeviceModel) -> tuple[str, ...]:
        return (
            (
                "A requirement of secure boot counts from the next launch and the next "
                "offer on. Devices that have their order already finish it."
            ),
        )

    def execute(self, user: User, obj: DeviceModel, given: dict[str, Any]) -> str:
        model = change_device_model(
            actor=user,
            model_id=obj.pk,
            changes={
                "description": given["description"],
                "requires_secure_boot": given["requiresSecureBoot"],
                "version_scheme": VersionScheme(given["versionScheme"]),
            },
        )
        return f"The device model {model} is changed."
