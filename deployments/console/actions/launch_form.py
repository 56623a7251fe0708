"""The form of a launch: all strategies on one page.

The form only gathers; what is allowed is said by the API's `DeploymentInput`, so the
console and the API cannot differ.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from uuid import UUID

from django import forms
from django.conf import settings

from deployments.choices import (
    BusyDevices,
    OfflineDevices,
    OnLateBreach,
    OnWarning,
    Strategy,
)
from deployments.inputs import DeploymentInput
from deployments.strategies.fields import Field, Kind, StrategyDeclaration
from deployments.strategies.registry import STRATEGIES
from deployments.windows import DAYS, DEFAULT_ZONE
from devices.models import DeviceGroup
from devices.timezones import zone_named
from firmware.models import Firmware
from firmware.selectors import FirmwareIncidents, firmware_incidents
from health.triggers import TRIGGERS, Trigger
from hotswap.common.console.forms import ConsoleForm
from hotswap.common.durations import (
    duration_in_words,
    duration_of_words,
    format_duration,
    parse_duration,
)
from hotswap.common.wire import camelize

MAX_FIRMWARE = 500


TARGETS = (
    ("all", "Whole fleet"),
    ("groups", "Groups"),
    ("regions", "Regions"),
    ("devices", "List of devices"),
)


NAMED = {
    "groups": ("targetGroups", "Choose at least one group."),
    "regions": ("regions", "Choose at least one region."),
    "devices": ("targetDevices", "Name at least one device."),
}


NAMED_FIELDS = tuple((kind, field) for kind, (field, _) in NAMED.items())


NESTED = ("healthCriteria", "rollbackThresholds", "maintenanceWindow", "greenFleet")


DURATION_HELP = "As in 90 s, 30 min or 1 h 30 min"


class DurationText(forms.CharField):
    """A duration as people write it, or in ISO 8601; always ISO 8601 afterwards."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("required", False)
        super().__init__(**kwargs)

    def prepare_value(self, value: Any) -> Any:
        """Show ISO 8601 in words, and what was typed as it was typed."""
        try:
            return duration_in_words(parse_duration(value))
        except ValueError:
            return value

    def clean(self, value: Any) -> str:
        text: str = super().clean(value).strip()
        found = duration_of_words(text)
        if found is not None:
            return format_duration(found)
        if text and not text.upper().startswith("P"):
            raise forms.ValidationError(f"{text!r} is no duration. {DURATION_HELP}.")
        return text.upper()


def _demo(shortened: str, otherwise: str) -> str:
    """Return a start value: short on a demo stack, whose waits are all shortened."""
    return shortened if settings.DEMO_CLOCK else otherwise


def _limit_field(trigger: Trigger) -> str:
    return f"rollbackThresholds_{trigger.field}"


def _duration_field(trigger: Trigger) -> str:
    return f"rollbackThresholds_{camelize(trigger.duration)}"


def _limit_fields() -> dict[str, forms.Field]:
    """Return the fields of the limits, those that say most about a program first."""
    found: dict[str, forms.Field] = {}
    for each in reversed(TRIGGERS):
        unit = each.unit if each.scale == 1 else f"{each.minimum}–{each.maximum}"
        found[_limit_field(each)] = forms.FloatField(
            label=f"{each.title} of a device, {unit}",
            required=False,
            initial=each.default_limit,
        )
        found[_duration_field(each)] = DurationText(label="… for")
    return found


def _newest_sound(
    firmware: Sequence[Firmware], incidents: Mapping[UUID, FirmwareIncidents]
) -> str:
    """Return the id of the newest version with which nothing went wrong, or "".

    Args:
        firmware: what can be deployed, the latest approved first; versions of the model
            of the first sound one are compared.
    """
    sound = [each for each in firmware if each.pk not in incidents]
    same_model = [each for each in sound if each.model_id == sound[0].model_id]
    newest = max(same_model, key=lambda each: each.precedence, default=None)
    return "" if newest is None else str(newest.pk)


def _words(text: str) -> list[str]:
    """Split what was typed with commas, spaces or lines between."""
    return text.replace(",", " ").split()


class IntegerList(forms.CharField):
    """Whole numbers, typed with commas, spaces or lines between."""

    def clean(self, value: Any) -> list[int]:
        words = _words(super().clean(value))
        for word in words:
            if re.fullmatch("[0-9]{1,9}", word) is None:
                raise forms.ValidationError(f"{word!r} is no whole number.")
        return [int(word) for word in words]


def form_fields(field: Field) -> dict[str, forms.Field]:
    """Return what the form has for a declared field of a strategy, by its name.

    The form only gathers: ranges are checked as the API checks them.
    """
    name = camelize(field.name)
    options: dict[str, Any] = {
        "label": field.label,
        "required": False,
        "help_text": field.hint,
    }
    match field.kind:
        case Kind.INTEGER:
            return {name: forms.IntegerField(**options)}
        case Kind.INTEGERS:
            return {name: IntegerList(**options)}
        case Kind.DURATION:
            options["help_text"] = field.hint or DURATION_HELP
            return {name: DurationText(**options)}
        case Kind.BOOLEAN:
            return {name: forms.BooleanField(**options)}
        case Kind.CHOICE:
            return {name: forms.ChoiceField(choices=field.choices, **options)}
        case Kind.FLEET:
            return {
                f"{name}_group": forms.ChoiceField(
                    label=f"{field.label}: devices of the group",
                    required=False,
                    help_text="Neither group nor tag: a half is drawn",
                ),
                f"{name}_tag": forms.CharField(
                    label=f"{field.label}: devices with the tag",
                    required=False,
                    help_text="As in rack:b",
                ),
            }


def start_value(field: Field) -> Any:
    """Return what stands in the form for the default of a declared field."""
    match field.kind:
        case Kind.DURATION if field.default:
            usual = format_duration(timedelta(seconds=field.default))
            return _demo("PT10S", usual)
        case Kind.DURATION:
            return "PT0S"
        case Kind.INTEGERS:
            return ", ".join(str(each) for each in field.default)
        case _:
            return field.default


def own_fields(strategy: StrategyDeclaration) -> tuple[str, ...]:
    """Return the names of the fields that the form shows for a strategy."""
    order = ("regionOrder",) if strategy.orders_regions else ()
    return (*order, *(name for each in strategy.fields for name in form_fields(each)))


OWN_FIELDS = {name: own_fields(each) for name, each in STRATEGIES.items()}
INTEGER_LISTS = frozenset(
    camelize(field.name)
    for strategy in STRATEGIES.values()
    for field in strategy.fields
    if field.kind == Kind.INTEGERS
)


class LaunchForm(ConsoleForm):
    """Names are those of the API; `a-b` is the field `b` inside of `a`."""

    firmwareId = forms.ChoiceField(label="Firmware")
    name = forms.CharField(
        max_length=128, required=False, help_text="Empty: made from the firmware"
    )
    target = forms.ChoiceField(
        label="Devices", choices=TARGETS, widget=forms.RadioSelect, initial="all"
    )
    targetDevices = forms.CharField(
        label="Device ids",
        required=False,
        widget=forms.Textarea(attrs={"rows": 5, "spellcheck": "false"}),
        help_text="One a line, or separated by spaces or commas. A list is refused "
        "whole if one device of it is not eligible.",
    )
    targetGroups = forms.MultipleChoiceField(
        label="Groups", required=False, widget=forms.CheckboxSelectMultiple
    )
    regions = forms.MultipleChoiceField(
        label="Regions",
        required=False,
        widget=forms.CheckboxSelectMultiple,
        choices=lambda: [(each, each) for each in settings.REGIONS],
    )
    strategy = forms.ChoiceField(
        choices=[(name, Strategy(name).label) for name in STRATEGIES],
        widget=forms.RadioSelect,
        initial=Strategy.CANARY.value,
    )
    regionOrder = forms.CharField(
        label="Order of the regions",
        required=False,
        help_text="Separated by commas; regions not named come last",
    )
    healthThreshold = forms.FloatField(
        label="Gate: devices proved, %",
        required=False,
        help_text="Share of a stage that must succeed before the next one opens; "
        "empty: 99, for blue-green 99.5",
    )
    onWarning = forms.ChoiceField(
        label="If below the threshold",
        required=False,
        choices=[
            (OnWarning.PROCEED.value, "go on with a warning"),
            (OnWarning.PAUSE.value, "pause and ask"),
        ],
    )
    onLateBreach = forms.ChoiceField(
        label="If it falls below after the end",
        required=False,
        choices=[
            (OnLateBreach.DEPLOYMENT.value, "roll the deployment back"),
            (OnLateBreach.DEVICE.value, "send single devices back"),
        ],
    )
    rollbackThresholds_successRate = forms.FloatField(
        label="Roll back below, %", required=False, initial=95
    )
    rollbackThresholds_offlineAfter = DurationText(label="Offline after")
    healthCriteria_confirmationDuration = DurationText(
        label="Healthy for", help_text=DURATION_HELP
    )
    healthCriteria_heartbeatsRequired = forms.IntegerField(
        label="Heartbeats required", required=False, initial=2
    )
    healthCriteria_watchDuration = DurationText(label="Monitor for")
    scheduledAt = forms.DateTimeField(
        label="Start at",
        required=False,
        widget=forms.DateTimeInput(
            format="%Y-%m-%dT%H:%M", attrs={"type": "datetime-local"}
        ),
        help_text="Empty: at once. The time is in UTC",
    )
    # The browser puts its own here, and says so beside the time.
    scheduledZone = forms.CharField(
        required=False, max_length=64, widget=forms.HiddenInput, initial=DEFAULT_ZONE
    )
    offlineDevices = forms.ChoiceField(
        label="Offline devices",
        required=False,
        choices=[
            ("", "default: a list is refused, others wait"),
            (OfflineDevices.WAIT.value, "wait until they appear"),
            (OfflineDevices.EXCLUDE.value, "exclude"),
            (OfflineDevices.REJECT.value, "refuse the deployment"),
        ],
    )
    busyDevices = forms.ChoiceField(
        label="Devices in another update",
        required=False,
        choices=[
            (BusyDevices.WAIT.value, "wait for it"),
            (BusyDevices.EXCLUDE.value, "exclude"),
            (BusyDevices.REJECT.value, "refuse the deployment"),
        ],
    )
    offlineDeadline = DurationText(label="Give up on offline devices after")
    deviceTimeout = DurationText(label="A device has, from order to claim")
    maxAttempts = forms.IntegerField(label="Attempts a device", required=False)
    maxDevicesPerMinute = forms.IntegerField(
        label="Orders a minute, at most", required=False, help_text="Empty: no limit"
    )
    startSpread = DurationText(label="Spread the start of a stage over")
    requireApprovalPerStage = forms.BooleanField(
        label="A person approves each stage after the first", required=False
    )
    maintenanceWindow_days = forms.MultipleChoiceField(
        label="Only on",
        required=False,
        choices=[(each, each.capitalize()) for each in DAYS],
        widget=forms.CheckboxSelectMultiple,
        help_text="Maintenance window; none ticked: at any time",
    )
    maintenanceWindow_start = forms.CharField(
        label="from", required=False, widget=forms.TimeInput(attrs={"type": "time"})
    )
    maintenanceWindow_end = forms.CharField(
        label="to", required=False, widget=forms.TimeInput(attrs={"type": "time"})
    )
    maintenanceWindow_timezone = forms.CharField(
        label="Time zone",
        required=False,
        help_text="As in Europe/Berlin, or device: each device's own, by its tag",
    )

    reason = forms.CharField(
        label="Why it is launched again",
        max_length=2000,
        help_text="Kept in the audit trail and in the log.",
    )

    def __init__(self, *args: Any, asks_why: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields.update(_limit_fields())
        if not asks_why:
            del self.fields["reason"]
        firmware = list(
            Firmware.objects.deployable()
            .select_related("model")
            .order_by("-approved_at")[:MAX_FIRMWARE]
        )
        incidents = firmware_incidents([each.pk for each in firmware])
        self.fields["firmwareId"].choices = [  # type: ignore[attr-defined]
            ("", "Choose a firmware"),
            *(
                (
                    str(each.pk),
                    f"{each} – {incidents[each.pk]}"
                    if each.pk in incidents
                    else str(each),
                )
                for each in firmware
            ),
        ]
        groups = [
            (str(pk), name)
            for pk, name in DeviceGroup.objects.values_list("pk", "name")
        ]
        self.fields["targetGroups"].choices = groups  # type: ignore[attr-defined]
        self.fields["greenFleet_group"].choices = [  # type: ignore[attr-defined]
            ("", "–"),
            *groups,
        ]
        self.initial = {
            "firmwareId": _newest_sound(firmware, incidents),
            "regionOrder": ", ".join(settings.REGIONS),
            **{
                camelize(field.name): start_value(field)
                for strategy in STRATEGIES.values()
                for field in strategy.fields
            },
            **{
                _duration_field(each): _demo(
                    "PT10S" if each.default_duration else "PT0S",
                    format_duration(each.default_duration),
                )
                for each in TRIGGERS
            },
            "rollbackThresholds_offlineAfter": _demo("PT30S", "PT2M"),
            "healthCriteria_confirmationDuration": _demo("PT5S", "PT1M"),
            "healthCriteria_watchDuration": _demo("PT1M", "PT1H"),
            "offlineDeadline": _demo("PT10M", "P1D"),
            "deviceTimeout": _demo("PT2M", "PT30M"),
            "startSpread": "PT0S",
            "maxAttempts": 3,
            "maintenanceWindow_start": "22:00",
            "maintenanceWindow_end": "04:00",
            "maintenanceWindow_timezone": "UTC",
            **self.initial,
        }

    # What stands together on the page

    @property
    def strategy_fields(self) -> list[tuple[str, list[Any]]]:
        """The fields of each strategy that has some."""
        return [
            (name, [self[field] for field in fields])
            for name, fields in OWN_FIELDS.items()
            if fields
        ]

    @property
    def strategy_cards(self) -> list[tuple[Any, StrategyDeclaration]]:
        """The button of each strategy, with how it is shown."""
        return [(radio, STRATEGIES[radio.data["value"]]) for radio in self["strategy"]]

    @property
    def gate_fields(self) -> list[Any]:
        names = (
            *("healthThreshold", "onWarning", "rollbackThresholds_successRate"),
            "onLateBreach",
        )
        return [self[name] for name in names]

    @property
    def proof_fields(self) -> list[Any]:
        return [self[name] for name in self.fields if name.startswith("healthCri")]

    @property
    def threshold_fields(self) -> list[Any]:
        names = (*_limit_fields(), "rollbackThresholds_offlineAfter")
        return [self[name] for name in names]

    @property
    def time_fields(self) -> list[Any]:
        names = (
            "offlineDevices",
            "busyDevices",
            "offlineDeadline",
            "deviceTimeout",
            "maxAttempts",
            "maxDevicesPerMinute",
            "startSpread",
            "requireApprovalPerStage",
        )
        return [self[name] for name in names]

    @property
    def window_fields(self) -> list[Any]:
        return [self[name] for name in self.fields if name.startswith("maintenance")]

    @property
    def folded_fields(self) -> list[tuple[str, list[Any]]]:
        """What few launches change, by what it is about."""
        return [
            ("Gate: when the next stage opens", self.gate_fields),
            ("Proof of a device", self.proof_fields),
            ("Device rollback thresholds", self.threshold_fields),
            ("Waiting and attempts", self.time_fields),
            ("Maintenance window", self.window_fields),
        ]

    # What is sent

    @property
    def zone(self) -> tzinfo | None:
        """The time zone of the start; None where what was sent is none."""
        return zone_named(self.cleaned_data.get("scheduledZone") or DEFAULT_ZONE)

    def clean_scheduledZone(self) -> str:  # noqa: N802 - named after its field
        name: str = self.cleaned_data["scheduledZone"]
        if self.zone is None:
            raise forms.ValidationError(f"{name} is not a time zone")
        return name

    def start(self) -> datetime | None:
        """Return when it is to start, in the zone of whoever launches."""
        at: datetime | None = self.cleaned_data.get("scheduledAt")
        return None if at is None else at.replace(tzinfo=self.zone)

    def _check_start(self) -> None:
        """Refuse a time that clocks skip when they are put forward."""
        at = self.start()
        if at is None or self.zone is None:
            return
        if at.astimezone(UTC).astimezone(self.zone).replace(tzinfo=None) != at.replace(
            tzinfo=None
        ):
            self.add_error(
                "scheduledAt", "No clock of this zone shows that time on that day."
            )

    def clean_regionOrder(self) -> str:  # noqa: N802 - named after its field
        text: str = self.cleaned_data["regionOrder"]
        for name in _words(text):
            if name not in settings.REGIONS:
                known = ", ".join(settings.REGIONS)
                raise forms.ValidationError(f"{name} is no region; known are {known}")
        return text

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        for name, (field, message) in NAMED.items():
            if cleaned.get("target") == name and not cleaned.get(field):
                self.add_error(field, message)
        self._check_start()
        if not self.errors:
            self.body = self._body(cleaned)
            self.given = self.check_with(DeploymentInput, self.body)
        return cleaned

    def take_errors(self, errors: Any, prefix: str = "") -> None:
        """Fields inside of others are called `a_b` here."""
        super().take_errors(
            {
                f"{name}_{inner}": texts
                for name in NESTED
                if isinstance(errors.get(name), dict)
                for inner, texts in errors[name].items()
            }
            | {
                name: texts
                for name, texts in errors.items()
                if not (name in NESTED and isinstance(texts, dict))
            },
            prefix,
        )

    def _body(self, cleaned: dict[str, Any]) -> dict[str, Any]:
        """Write the body that the API would get."""
        body: dict[str, Any] = {}
        own = OWN_FIELDS.get(cleaned["strategy"], ())
        foreign = {field for fields in OWN_FIELDS.values() for field in fields}
        written_below = {
            *("target", "targetDevices", "targetGroups", "regions"),
            *("regionOrder", "reason", "scheduledZone"),
        }
        has_window = bool(cleaned.get("maintenanceWindow_days"))
        for name, value in cleaned.items():
            if name in written_below or value in ("", None, []):
                continue
            if name in foreign and name not in own:
                continue
            if name.startswith("maintenanceWindow") and not has_window:
                continue
            outer, _, inner = name.partition("_")
            if name == "greenFleet_tag":
                tag, _, of_tag = value.partition(":")
                body.setdefault(outer, {})[inner] = {tag.strip(): of_tag.strip()}
            elif inner:
                body.setdefault(outer, {})[inner] = value
            elif name == "scheduledAt":
                body[name] = value.replace(tzinfo=self.zone).isoformat()
            else:
                body[name] = value
        match cleaned["target"]:
            case "devices":
                names = _words(cleaned["targetDevices"])
                body["targetDevices"] = list(dict.fromkeys(names))
            case "groups":
                body["targetGroups"] = cleaned["targetGroups"]
            case "regions":
                body["regions"] = cleaned["regions"]
            case _:
                body["targetAll"] = True
        order = _words(cleaned.get("regionOrder") or "") if "regionOrder" in own else []
        if order and "regions" in body:
            # Those ticked, in the order named.
            body["regions"].sort(
                key=lambda name: order.index(name) if name in order else len(order)
            )
        elif order and "targetAll" in body:
            del body["targetAll"]
            rest = [name for name in settings.REGIONS if name not in order]
            body["regions"] = [*order, *rest]
        return body


LaunchForm.base_fields |= {
    name: made
    for strategy in STRATEGIES.values()
    for field in strategy.fields
    for name, made in form_fields(field).items()
}
