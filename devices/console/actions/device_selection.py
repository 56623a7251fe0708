"""What people do to the devices that they have selected in the list."""

from typing import Any, cast

from django import forms
from django.http import HttpRequest

from devices.choices import GroupType
from devices.console.actions.device_group import MembersForm
from devices.console.audiences import ACKNOWLEDGE
from devices.console.fields import TagsField
from devices.inputs import DeviceChangesInput
from devices.models import DeviceGroup
from devices.services import groups, registry
from hotswap.common.console.actions.base import Action
from hotswap.common.console.forms import ConsoleForm
from hotswap.common.models import User
from hotswap.common.pluralize import counted

SHOWN_GROUPS = 200


class SelectionAction(Action):
    """An action of the list whose form begins with the selected devices."""

    is_of_list = True
    is_of_selection = True
    # The rows travel in the address, which no dialog knows of.
    is_dialog = False

    def make_form(self, request: HttpRequest, obj: Any) -> ConsoleForm:
        start = {"device_ids": "\n".join(request.GET.getlist("deviceIds"))}
        return self.form_class(request.POST or None, initial=start)


class GroupSelectionForm(MembersForm):
    group = forms.ChoiceField()
    field_order = ("group", "device_ids")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        static = DeviceGroup.objects.filter(type=GroupType.STATIC)
        found = list(static.values_list("pk", "name")[:SHOWN_GROUPS])
        cast(forms.ChoiceField, self.fields["group"]).choices = [
            ("", "choose one" if found else "there is no static group"),
            *((str(pk), name) for pk, name in found),
        ]


class AddToGroup(SelectionAction):
    name = "add-to-group"
    label = "Add to group"
    icon = "group_add"
    form_class = GroupSelectionForm

    def execute(self, user: User, obj: Any, given: dict[str, Any]) -> str:
        change = groups.add_members(
            actor=user,
            group_id=given["group"],
            device_ids=given["device_ids"],
            acknowledged=given.get(ACKNOWLEDGE, False),
        )
        number = counted(len(given["device_ids"]), "device is", "devices are")
        return f"{number} in {change.group}."


class TagSelectionForm(MembersForm):
    tags = TagsField(
        required=True,
        help_text="One a line, as in site: plant-7. Other tags of the devices stay.",
    )

    def clean_tags(self) -> dict[str, str]:
        tags: dict[str, str] = self.cleaned_data["tags"]
        self.check_with(DeviceChangesInput, {"tags": tags})
        return tags


class TagDevices(SelectionAction):
    name = "tag"
    label = "Tag"
    icon = "sell"
    form_class = TagSelectionForm

    def execute(self, user: User, obj: Any, given: dict[str, Any]) -> str:
        changed = registry.tag_devices(
            actor=user,
            device_ids=given["device_ids"],
            tags=given["tags"],
            acknowledged=given.get(ACKNOWLEDGE, False),
        )
        return f"{counted(changed, 'device is', 'devices are')} tagged."
