"""What people do to groups: make them, change their rule or members, remove them."""

from collections.abc import Callable
from typing import Any, ClassVar, cast

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponseNotAllowed

from devices.choices import GroupType
from devices.console.audiences import ACKNOWLEDGE, AcknowledgingForm
from devices.console.fields import tag_lines
from devices.inputs import GroupInput, MembersInput
from devices.models import DeviceGroup
from devices.rules import Rule
from devices.selectors import rule_of
from devices.services import groups
from firmware.models import DeviceModel
from hotswap.common.console.actions.base import Action
from hotswap.common.console.forms import ConsoleForm, EmptyForm
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.requests import READING, acting_person, go_to
from hotswap.common.console.roles import require_role
from hotswap.common.errors import HotSwapError
from hotswap.common.models import User
from hotswap.common.pluralize import counted


class GroupForm(AcknowledgingForm):
    name = forms.CharField(max_length=128)
    description = forms.CharField(max_length=500, required=False)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors:
            self.check_with(GroupInput, self.filled_in)
        return cleaned


class CreateGroup(Action):
    name = "create"
    label = "Add static group"
    icon = "add"
    is_of_list = True
    form_class = GroupForm

    def notes(self, obj: Any) -> tuple[str, ...]:
        return ("Its devices are those that you put in. It starts empty.",)

    def execute(self, user: User, obj: Any, given: dict[str, Any]) -> str:
        group = groups.create_group(actor=user, type=GroupType.STATIC, **given)
        return f"The group {group} is there; open it to put devices in."


class StaticAction(Action):
    """An action that makes sense for static groups alone."""

    def applies(self, obj: DeviceGroup) -> bool:
        return obj.type == GroupType.STATIC


class RenameGroup(StaticAction):
    name = "rename"
    label = "Rename"
    icon = "edit"
    form_class = GroupForm

    def make_form(self, request: HttpRequest, obj: DeviceGroup) -> ConsoleForm:
        start = {"name": obj.name, "description": obj.description}
        return GroupForm(request.POST or None, initial=start)

    def execute(self, user: User, obj: DeviceGroup, given: dict[str, Any]) -> str:
        change = groups.change_group(
            actor=user, group_id=obj.pk, rule=rule_of(obj), **given
        )
        return f"The group is called {change.group}."


class MembersForm(AcknowledgingForm):
    device_ids = forms.CharField(
        label="Device ids",
        widget=forms.Textarea(attrs={"rows": 8, "spellcheck": "false"}),
        help_text="One a line, or separated by spaces or commas",
    )

    def clean_device_ids(self) -> list[str]:
        text: str = self.cleaned_data["device_ids"]
        names = list(dict.fromkeys(text.replace(",", " ").split()))
        serializer = MembersInput(data={"deviceIds": names})
        if not serializer.is_valid():
            self.take_errors(serializer.errors)
        return names


class ChangeMembers(StaticAction):
    """Change who is in a group, by `change`; `place` says where they are then."""

    form_class = MembersForm
    change: Callable[..., Any]
    place: str

    def execute(self, user: User, obj: DeviceGroup, given: dict[str, Any]) -> str:
        device_ids = given["device_ids"]
        self.change(
            actor=user,
            group_id=obj.pk,
            device_ids=device_ids,
            acknowledged=given.get(ACKNOWLEDGE, False),
        )
        devices = counted(len(device_ids), "device is", "devices are")
        return f"{devices} {self.place} {obj}."


class AddMembers(ChangeMembers):
    name = "add-devices"
    label = "Add devices"
    icon = "add"
    tone = "primary"
    change = staticmethod(groups.add_members)
    place = "in"


class RemoveMembers(ChangeMembers):
    name = "remove-devices"
    label = "Remove devices"
    icon = "remove"
    change = staticmethod(groups.remove_members)
    place = "out of"

    def notes(self, obj: DeviceGroup) -> tuple[str, ...]:
        return ("The devices stay; deployments that have started keep them.",)


class DeleteGroup(Action):
    name = "remove"
    label = "Remove group"
    icon = "delete"
    tone = "danger"
    form_class = EmptyForm

    def notes(self, obj: DeviceGroup) -> tuple[str, ...]:
        return (
            (
                "Its devices stay. Deployments that have started are not affected; "
                "while one to come names the group, it cannot be removed."
            ),
        )

    def execute(self, user: User, obj: DeviceGroup, given: dict[str, Any]) -> str:
        groups.delete_group(actor=user, group_id=obj.pk)
        return f"The group {obj} is gone."

    def next_url(self, admin: ConsoleAdmin, obj: Any) -> str:
        return admin.list_url()


def _models() -> list[tuple[str, str]]:
    names = DeviceModel.objects.order_by("name").values_list("name", flat=True)
    return [(name, name) for name in names]


def _parts(text: str) -> list[str]:
    return text.replace(",", " ").split()


# Stands for the name of a group whose rule is only tried.
UNNAMED = "-"


class RuleForm(AcknowledgingForm):
    """A rule field by field; what is allowed is said by the API's `GroupInput`."""

    name = forms.CharField(max_length=128)
    description = forms.CharField(max_length=500, required=False)
    region = forms.MultipleChoiceField(
        label="Region is one of",
        required=False,
        widget=forms.CheckboxSelectMultiple,
        choices=lambda: [(region, region) for region in settings.REGIONS],
    )
    model = forms.MultipleChoiceField(
        label="Model is one of",
        required=False,
        widget=forms.CheckboxSelectMultiple,
        choices=_models,
    )
    tags = forms.CharField(
        label="Tags",
        required=False,
        widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false"}),
        help_text="One a line, as in site: plant-7. Lines of the same name: any of "
        "their values will do. Different names: all must hold.",
    )
    atLeast = forms.CharField(
        label="Firmware is at least", required=False, max_length=64
    )
    below = forms.CharField(label="Firmware is below", required=False, max_length=64)
    versions = forms.CharField(
        label="Firmware is one of",
        required=False,
        help_text="Versions, separated by spaces or commas. A device that has not "
        "told its version matches none.",
    )

    @property
    def naming_fields(self) -> list[Any]:
        return [self["name"], self["description"]]

    @property
    def rule_fields(self) -> list[Any]:
        return [self[name] for name in ("region", "model", "tags")]

    @property
    def version_fields(self) -> list[Any]:
        return [self[name] for name in ("atLeast", "below", "versions")]

    @staticmethod
    def start_of(rule: Rule | None) -> dict[str, Any]:
        """Return what the fields hold for a rule."""
        rule = rule or Rule()
        return {
            "region": list(rule.regions),
            "model": list(rule.models),
            "tags": "\n".join(
                f"{name}: {value}" for name, values in rule.tags for value in values
            ),
            "atLeast": rule.at_least,
            "below": rule.below,
            "versions": ", ".join(rule.versions),
        }

    def clean_tags(self) -> dict[str, list[str]]:
        tags: dict[str, list[str]] = {}
        for _, name, value in tag_lines(self.cleaned_data["tags"]):
            tags.setdefault(name, []).append(value)
        return tags

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if self.errors:
            return cleaned
        version = {
            "atLeast": cleaned["atLeast"],
            "below": cleaned["below"],
            "is": _parts(cleaned["versions"]),
        }
        rule = {name: cleaned[name] for name in ("region", "model", "tags")} | {
            "firmwareVersion": {name: part for name, part in version.items() if part}
        }
        self.given = self.check_with(
            GroupInput,
            {
                "name": cleaned["name"] or UNNAMED,
                "description": cleaned["description"],
                "type": GroupType.DYNAMIC.value,
                "rule": {name: part for name, part in rule.items() if part},
            },
        )
        return cleaned

    def take_errors(self, errors: Any, prefix: str = "") -> None:
        """Put errors inside of the rule beside the field they speak of."""
        inside = dict(errors)
        rule = inside.pop("rule", {})
        version = rule.pop("firmwareVersion", {}) if isinstance(rule, dict) else {}
        if not isinstance(rule, dict):
            rule = {"rule": rule}
        if isinstance(version, dict):
            rule |= {"versions" if k == "is" else k: v for k, v in version.items()}
        flat = {name: list(_texts(found)) for name, found in rule.items()}
        super().take_errors(inside | flat, prefix)


def _texts(found: Any) -> Any:
    """Walk the sentences of nested errors."""
    if isinstance(found, dict):
        found = found.values()
    elif not isinstance(found, list):
        yield found
        return
    for part in found:
        yield from _texts(part)


class RuleAction(Action):
    """The rule builder: its preview writes nothing, its other button saves."""

    tone = "primary"
    is_dialog = False
    form_class = RuleForm
    template = "console/rule.html"
    examples: ClassVar[tuple[str, ...]] = ()

    def start(self, request: HttpRequest, obj: DeviceGroup | None) -> dict[str, Any]:
        """Return what the form starts with."""
        raise NotImplementedError

    def save(
        self, user: User, obj: DeviceGroup | None, form: RuleForm
    ) -> tuple[DeviceGroup, str]:
        """Call the service; return the group, and the sentence that is shown."""
        raise NotImplementedError

    def serve(self, admin: ConsoleAdmin, request: HttpRequest, obj: Any) -> Any:
        if request.method not in (*READING, "POST"):
            return HttpResponseNotAllowed([*READING, "POST"])
        user = acting_person(request)
        require_role(user, self.role)
        if request.method != "POST":
            form = RuleForm(initial=self.start(request, obj))
            return self.show(admin, request, obj, form, examples=_examples())
        form = RuleForm(request.POST)
        # A rule can be tried before its group has a name.
        form.fields["name"].required = "save" in request.POST
        preview = None
        if form.is_valid() and form.given is not None:
            try:
                if "save" in request.POST:
                    group, message = self.save(user, obj, form)
                    messages.success(request, message)
                    return go_to(request, admin.page_url(group))
                preview = groups.preview_rule(
                    rule=form.given["rule"], group_id=None if obj is None else obj.pk
                )
            except HotSwapError as error:
                form.refuse(error)
            else:
                if preview.difference is not None and preview.difference.affected:
                    form.ask()
        return self.show(
            admin, request, obj, form, examples=_examples(), preview=preview
        )


def _examples() -> list[tuple[str, str, Rule]]:
    """Return three rules to start from: number, title, rule."""
    region = settings.REGIONS[0]
    model = DeviceModel.objects.order_by("name").values_list("name", flat=True).first()
    return [
        ("1", "One site", Rule(tags=(("site", ("plant-7",)),))),
        ("2", "Old firmware in a region", Rule(regions=(region,), below="2.0.0")),
        (
            "3",
            "A test ring of a model",
            Rule(models=(model,) if model else (), tags=(("ring", ("test", "pilot")),)),
        ),
    ]


class CreateDynamicGroup(RuleAction):
    name = "create-dynamic"
    label = "Add dynamic group"
    icon = "rule"
    is_of_list = True

    def start(self, request: HttpRequest, obj: DeviceGroup | None) -> dict[str, Any]:
        wanted = request.GET.get("example")
        rules = {number: rule for number, _, rule in _examples()}
        return RuleForm.start_of(rules.get(wanted or ""))

    def save(
        self, user: User, obj: DeviceGroup | None, form: RuleForm
    ) -> tuple[DeviceGroup, str]:
        group = groups.create_group(actor=user, **cast(dict[str, Any], form.given))
        return group, f"The group {group} is there."


class EditRule(RuleAction):
    name = "edit-rule"
    label = "Edit rule"
    icon = "rule"

    def applies(self, obj: DeviceGroup) -> bool:
        return obj.type == GroupType.DYNAMIC

    def start(self, request: HttpRequest, obj: DeviceGroup | None) -> dict[str, Any]:
        assert obj is not None
        start = {"name": obj.name, "description": obj.description}
        return start | RuleForm.start_of(rule_of(obj))

    def save(
        self, user: User, obj: DeviceGroup | None, form: RuleForm
    ) -> tuple[DeviceGroup, str]:
        assert obj is not None
        given = {
            name: value
            for name, value in cast(dict[str, Any], form.given).items()
            if name != "type"
        }
        change = groups.change_group(
            actor=user, group_id=obj.pk, acknowledged=form.is_ticked, **given
        )
        return change.group, f"{change.group} is changed."
