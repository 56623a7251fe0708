"""The console's pages of devices and groups.

What other apps keep beside a device (its latest state, its orders, its log lines) is
reached through the reverse relations, and its history through a hook, so that nothing
here imports those apps.
"""

import itertools
import json
from datetime import datetime, timedelta
from typing import Any, cast
from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.module_loading import import_string
from django.utils.safestring import SafeString
from rest_framework.exceptions import ValidationError
from unfold.contrib.filters.admin import RadioFilter
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from devices.api.serializers import (
    DeviceChangesInput,
    DeviceInput,
)
from devices.api.views import devices_file, export_response
from devices.choices import (
    DeviceHealth,
    DeviceStatus,
    GroupType,
    KeyStatus,
    RunKnowledge,
)
from devices.console import enrolments, imports  # noqa: F401
from devices.console.audiences import TICK, KnowingForm
from devices.console.fields import JsonField, region_choices
from devices.console.groups import (
    AddMembers,
    CreateDynamicGroup,
    CreateGroup,
    DeleteGroup,
    EditRule,
    RemoveMembers,
    RenameGroup,
)
from devices.models import Device, DeviceCertificate, DeviceGroup, DeviceKey
from devices.querysets import DeviceQuerySet
from devices.selectors import (
    count_members,
    devices_of,
    groups_of,
    revocation_reason,
    rule_of,
)
from devices.services import certificates, credentials, erasure, registry
from devices.services.certificates import MAX_PEM_CHARACTERS
from firmware.model_field import offer_models
from firmware.models import DeviceModel
from hotswap.common.api.proxy import public_url
from hotswap.common.console.actions.base import Action, Button, link_button
from hotswap.common.console.badges import (
    DONE,
    FAILED,
    MOVING,
    NOT_STARTED,
    WAITS,
    badge,
)
from hotswap.common.console.forms import CommentForm, ConsoleForm, EmptyForm, ReasonForm
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.requests import READING, acting_person
from hotswap.common.console.text import age, span_in_words
from hotswap.common.errors import HotSwapError
from hotswap.common.models import User
from hotswap.common.roles import Role

SHOWN_MODELS = 50
SHOWN_MEMBERS = 100
SHOWN_ORDERS = 10
SHOWN_EVENTS = 30
SHOWN_KEYS = 6
SHOWN_RUNS = 12
NOT_REPORTED = "not reported"
# So long the page of a device says that another board was heard in its name.
SHOWN_DUPLICATE = timedelta(days=7)

STATUS_BADGES = {
    DeviceStatus.ONLINE: (DONE, "wifi"),
    DeviceStatus.OFFLINE: (FAILED, "wifi_off"),
    DeviceStatus.NEVER_SEEN: (NOT_STARTED, "schedule"),
    DeviceStatus.REVOKED: (NOT_STARTED, "key_off"),
}
VERDICT_BADGES = {
    "healthy": (DONE, "check"),
    "degraded": (WAITS, "warning"),
    "unhealthy": (FAILED, "error"),
    "unknown": (NOT_STARTED, "help"),
}
ORDER_BADGES = {
    "success": (DONE, "check"),
    "failed": (FAILED, "error"),
    "cancelled": (NOT_STARTED, "block"),
    "superseded": (NOT_STARTED, "block"),
}
KEY_BADGES = {
    KeyStatus.VALID: (DONE, "key"),
    KeyStatus.EXPIRING: (WAITS, "schedule"),
    KeyStatus.EXPIRED: (FAILED, "key_off"),
    KeyStatus.NONE: (NOT_STARTED, "key_off"),
}
RUN_BADGES = {
    RunKnowledge.REPORTED: (NOT_STARTED, "campaign"),
    RunKnowledge.PROVED: (DONE, "verified"),
    RunKnowledge.RETURNED: (WAITS, "undo"),
    RunKnowledge.TRIED: (FAILED, "science"),
}
LEVEL_TONES = {"INFO": NOT_STARTED, "WARNING": WAITS, "ERROR": FAILED}


def device_badge(device: Device) -> SafeString:
    status = device.status_at(timezone.now())
    tone, icon = STATUS_BADGES[status]
    return badge(status.label.capitalize(), tone, icon)


def key_badge(device: Device, now: datetime) -> SafeString:
    """Show how the current key of a device stands, an alarm before all."""
    if device.alarm_at is not None:
        return badge("alarm", FAILED, "gpp_maybe", "a retired key was used")
    status = device.key_status_at(now)
    tone, icon = KEY_BADGES[status]
    ends = device.key_expires_at
    word = status.label
    if ends is not None and status in (KeyStatus.EXPIRING, KeyStatus.EXPIRED):
        days = span_in_words(abs((ends - now).total_seconds()))
        word = f"expires in {days}" if ends > now else f"expired {days} ago"
    return badge(word, tone, icon, f"{ends:%Y-%m-%d %H:%M} UTC" if ends else "")


def _key_look(key: DeviceKey, now: datetime) -> tuple[str, str, str]:
    """Return word, tone and icon of one key."""
    if key.expires_at <= now:
        if key.is_retired_at(now):
            return "retired", NOT_STARTED, "key_off"
        return "expired", FAILED, "key_off"
    if key.superseded_at is not None:
        return "overlaps", WAITS, "history"
    return "current", DONE, "key"


def _certificate_look(each: DeviceCertificate, now: datetime) -> tuple[str, str, str]:
    """Return word, tone and icon of one certificate."""
    if each.not_after <= now:
        return "expired", FAILED, "gpp_bad"
    if each.not_before > now:
        return "not yet valid", NOT_STARTED, "schedule"
    return "valid", DONE, "verified_user"


# --- Actions of a device ---------------------------------


class DeviceForm(KnowingForm):
    region = forms.ChoiceField(choices=region_choices)
    tags = JsonField(required=False, help_text='Object of texts: {"site": "plant-7"}')
    metadata = JsonField(required=False, help_text="Any object of at most 16 KiB")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors:
            self.check_with(DeviceChangesInput, self.said)
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
        is_ticked = given.pop(TICK, False)
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
                "New deployments leave it out. It may still report, and an update that "
                "is under way goes on."
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

    def notes(self, obj: Device) -> tuple[str, ...]:
        return (
            (
                f"All that is held about {obj} is deleted: name, tags, metadata, keys, "
                "groups, health, history, reports and what was logged about it. This "
                "cannot be undone."
            ),
            (
                "An update under way is cancelled, and the device is shut out at once. "
                "Deployments go on without it. What past ones counted stays counted, "
                "under a pseudonym; the audit trail keeps that pseudonym as well."
            ),
        )

    def execute(self, user: User, obj: Device, given: dict[str, Any]) -> str:
        if given["typed"].strip() != obj.device_id:
            raise ValidationError(f"That is not the id of {obj.device_id}.")
        erasure.erase_device(actor=user, device_id=obj.device_id)
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
                "The alarm disappears from the device and the index; the audit trail "
                "keeps it. If the retired key is used again, it comes back."
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
            agent_config=_agent_config(device, server),
            signing_keys_url=f"{server}/api/v1/signing-keys",
            subtitle=f"Key of {device}",
            heading=f"Key of {device}",
        )


def _agent_config(device: Device, server: str) -> str:
    return "\n".join(
        (
            f'server = "{server}"',
            f'device_id = "{device.device_id}"',
            f'model = "{device.model.name}"',
            'api_key_file = "api-key"',
            'data_dir = "agent-data"',
            'trusted_keys = ["trusted.pem"]',
        )
    )


class RegisterForm(ConsoleForm):
    deviceId = forms.CharField(
        label="Device id",
        max_length=128,
        help_text="Your own name of it: letters, digits and . _ : -",
    )
    model = forms.ChoiceField()
    region = forms.ChoiceField(choices=region_choices)
    tags = JsonField(required=False, help_text='Object of texts: {"site": "plant-7"}')

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


# --- The list of devices ---------------------------------


class DeviceStatusFilter(RadioFilter):
    title = "status"
    parameter_name = "status"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return list(DeviceStatus.choices)

    def queryset(self, request: Any, queryset: QuerySet[Device]) -> QuerySet[Device]:
        value = self.value()
        if value not in DeviceStatus.values:
            return queryset
        return Device.objects.with_status(value, timezone.now()) & queryset


class HealthFilter(RadioFilter):
    title = "health"
    parameter_name = "health"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return list(DeviceHealth.choices)

    def queryset(self, request: Any, queryset: QuerySet[Device]) -> QuerySet[Device]:
        value = self.value()
        if value not in DeviceHealth.values:
            return queryset
        return cast(DeviceQuerySet, queryset).with_health(value, timezone.now())


class RegionFilter(RadioFilter):
    title = "region"
    parameter_name = "region"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return region_choices()

    def queryset(self, request: Any, queryset: QuerySet[Device]) -> QuerySet[Device]:
        return queryset.filter(region=self.value()) if self.value() else queryset


class ModelFilter(RadioFilter):
    title = "model"
    parameter_name = "model"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        names = DeviceModel.objects.values_list("name", flat=True)[:SHOWN_MODELS]
        return [(name, name) for name in names]

    def queryset(self, request: Any, queryset: QuerySet[Device]) -> QuerySet[Device]:
        return queryset.filter(model__name=self.value()) if self.value() else queryset


class EnabledFilter(RadioFilter):
    title = "updates"
    parameter_name = "enabled"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "enabled"), ("no", "disabled")]

    def queryset(self, request: Any, queryset: QuerySet[Device]) -> QuerySet[Device]:
        if self.value() not in ("yes", "no"):
            return queryset
        return queryset.filter(enabled=self.value() == "yes")


class KeyFilter(RadioFilter):
    title = "key"
    parameter_name = "key"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [("expiring", "expires soon or has expired"), ("alarm", "alarm")]

    def queryset(self, request: Any, queryset: QuerySet[Device]) -> QuerySet[Device]:
        devices = cast(DeviceQuerySet, queryset)
        if self.value() == "expiring":
            return devices.with_expiring_key(timezone.now())
        return devices.alarmed() if self.value() == "alarm" else devices


@admin.register(Device)
class DeviceAdmin(ConsoleAdmin):
    empty_words = (
        "No device is registered.",
        "Register one, import many, or let them enrol themselves with a token.",
    )
    console_actions = (
        RegisterDevice,
        EditDevice,
        EnableDevice,
        DisableDevice,
        AcknowledgeAlarm,
        AddCertificate,
        RemoveCertificate,
        RotateKey,
        RevokeDevice,
        EraseDevice,
    )
    page_template = "console/device.html"
    list_display = (
        "device_id",
        "model",
        "region",
        "version",
        "contact",
        "takes_updates",
        "key",
    )
    list_filter = (
        DeviceStatusFilter,
        HealthFilter,
        RegionFilter,
        ModelFilter,
        EnabledFilter,
        KeyFilter,
    )
    search_fields = ("device_id",)
    search_help_text = "Device id"
    ordering = ("device_id",)
    paginator = InfinitePaginator

    def get_queryset(self, request: HttpRequest) -> QuerySet[Device]:
        return Device.objects.select_related("model", "state").with_key_expiry()

    def buttons(self, user: User, obj: Device | None) -> list[Button]:
        found = super().buttons(user, obj)
        if obj is not None and obj.revoked_at is None and obj.enabled:
            chosen = {"target": "devices", "targetDevices": obj.device_id}
            found.insert(0, _launch_button(user, **chosen))
        return found

    @display(description="Firmware", ordering="version_key")
    def version(self, device: Device) -> str:
        return device.firmware_version or "–"

    @display(description="Status")
    def contact(self, device: Any) -> SafeString:
        heard = getattr(device, "state", None)
        return format_html(
            '{} <span class="hs-hint">{}</span>',
            device_badge(device),
            age(heard.last_seen_at) if heard else "",
        )

    @display(description="Updates")
    def takes_updates(self, device: Device) -> SafeString:
        if device.enabled:
            return badge("enabled", DONE, "check")
        return badge("disabled", NOT_STARTED, "pause")

    @display(description="Key")
    def key(self, device: Device) -> SafeString:
        return key_badge(device, timezone.now())

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        query = request.GET.urlencode()
        export = Button(
            label="Export CSV",
            icon="download",
            tone="plain",
            url=self.url("export_list") + (f"?{query}" if query else ""),
            name="export",
            blocked_reason="",
            is_dialog=False,
        )
        buttons = self.buttons(acting_person(request), None)
        return super().changelist_view(
            request, {"console_buttons": [*buttons, export], **(extra_context or {})}
        )

    def export_list_view(self, request: HttpRequest) -> Any:
        """Send the devices of the list, as it is filtered, as a CSV file."""
        if request.method not in READING:
            return HttpResponseNotAllowed(READING)
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            return devices_file(self.get_changelist_instance(request).queryset)
        except IncorrectLookupParameters:
            return HttpResponseRedirect(self.list_url())

    def more_urls(self) -> list[URLPattern]:
        return [
            path(
                "export/",
                self.protected(self.export_list_view),
                name=self.url_name("export_list"),
            ),
            path(
                "<path:object_id>/export/",
                self.protected(self.export_view),
                name=self.url_name("export"),
            ),
        ]

    def export_view(self, request: HttpRequest, object_id: str) -> Any:
        """Send all that is held about a device, as a file."""
        if request.method not in READING:
            return HttpResponseNotAllowed(READING)
        if not acting_person(request).may(Role.ADMIN):
            raise PermissionDenied
        return export_response(self.found(request, object_id).device_id)

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        now = timezone.now()
        state = getattr(obj, "state", None)
        orders = list(
            obj.updates.select_related("firmware__model", "deployment").order_by(
                "-offered_at"
            )[:SHOWN_ORDERS]
        )
        # Of its deployments, and of its own.
        events = sorted(
            itertools.chain(
                obj.event_set.order_by("-id")[:SHOWN_EVENTS],
                obj.health_events.order_by("-id")[:SHOWN_EVENTS],
            ),
            key=lambda event: event.at,
            reverse=True,
        )
        return {
            "status": device_badge(obj),
            "state": state,
            "seen": age(state.last_seen_at, now) if state else "",
            "health": _health(state, now) if state else [],
            "history": import_string(settings.DEVICE_HISTORY_HOOK)(
                obj, request.GET.get("history", ""), request.GET.get("metric", "")
            ),
            "baseline": _baseline(state) if state else [],
            "heard": age(state.last_heartbeat_at, now) if state else "",
            "orders": [
                {
                    "order": order,
                    "badge": badge(
                        order.status, *ORDER_BADGES.get(order.status, (MOVING, "sync"))
                    ),
                    "offered": age(order.offered_at, now),
                }
                for order in orders
            ],
            "deployments": [
                {"target": target, "changed": age(target.updated_at, now)}
                for target in obj.target_set.select_related(
                    "deployment__firmware__model"
                ).order_by("-pk")[:SHOWN_ORDERS]
            ],
            "events": [
                {"event": event, "tone": LEVEL_TONES[event.level]}
                for event in events[:SHOWN_EVENTS]
            ],
            "groups": groups_of(obj)[:SHOWN_MEMBERS],
            "revoked_for": revocation_reason(obj) if obj.revoked_at else "",
            "key": key_badge(obj, now),
            "key_status": obj.key_status_at(now).value,
            "keys": [
                (key, badge(*_key_look(key, now)))
                for key in obj.keys.order_by("-pk")[:SHOWN_KEYS]
            ],
            "certificates": [
                (each, badge(*_certificate_look(each, now)))
                for each in obj.certificates.order_by("-pk")
            ],
            "runs": [
                {
                    "run": run,
                    "badge": badge(run.get_how_display(), *RUN_BADGES[run.how]),
                    "lasted": span_in_words(
                        ((run.until or now) - run.since).total_seconds()
                    ),
                }
                for run in obj.firmware_runs.order_by("-pk")[:SHOWN_RUNS]
            ],
            "export_url": self.url("export", obj.pk),
            "may_export": acting_person(request).may(Role.ADMIN),
            "alarm_since": age(obj.alarm_at, now),
            "refused": age(state.refused_at, now)
            if state and state.refused_count
            else "",
            "duplicate": age(state.duplicate_at, now)
            if state
            and state.duplicate_at
            and now - state.duplicate_at < SHOWN_DUPLICATE
            else "",
            "tags": json.dumps(obj.tags, indent=2) if obj.tags else "",
            "metadata": json.dumps(obj.metadata, indent=2) if obj.metadata else "",
        }


def _duplicate_seen(state: Any, now: datetime) -> str:
    """Say when two boards were last heard under one identity, "" if not lately."""
    if state is None or state.duplicate_at is None:
        return ""
    if now - state.duplicate_at > SHOWN_DUPLICATE:
        return ""
    return age(state.duplicate_at, now)


def _baseline(state: Any) -> list[dict[str, str]]:
    """Return what is usual for a device, and how far its latest values are from it."""
    return [
        _against_usual(name, value, usual, scale, digits)
        for name, value, usual, scale, digits in (
            ("CPU", state.cpu_percent, state.usual_cpu, 1, 1),
            ("Memory", state.memory_percent, state.usual_memory, 1, 1),
            ("Error rate", state.error_ratio, state.usual_errors, 100, 2),
        )
    ]


def _against_usual(
    name: str, value: float | None, usual: Any, scale: int, digits: int
) -> dict[str, str]:
    """Put a value beside what is usual; both times `scale` are percent."""
    row = {"name": name, "latest": NOT_REPORTED, "reports": "0"}
    if value is not None:
        row["latest"] = f"{scale * value:.{digits}f} %"
    if not usual.is_known:
        return {**row, "unknown": "not known: no healthy report yet"}
    distance = "–"
    if value is not None:
        spreads = usual.distance(value)
        distance = (
            f"{scale * (value - usual.mean):+.{digits}f} points; it never varied"
            if spreads is None
            else f"{spreads:+.1f} spreads"
        )
    return {
        **row,
        "reports": f"{usual.samples:,}"
        + ("" if usual.is_certain else f", {usual.confidence} confidence"),
        "mean": f"{scale * usual.mean:.{digits}f} %",
        "spread": f"± {scale * usual.spread:.{digits}f} %",
        "distance": distance,
    }


def _percent(value: float | None, *, scale: int = 1) -> str:
    return NOT_REPORTED if value is None else f"{scale * value:.1f} %"


def _health(state: Any, now: Any) -> list[tuple[str, Any]]:
    """Return what a device last said of its health, line by line."""
    if state.last_heartbeat_at is None:
        return [("Verdict", badge("unknown", *VERDICT_BADGES["unknown"]))]
    verdict, reason = state.verdict, state.verdict_reason
    if state.online_until <= now:
        verdict, reason = "unknown", "it is offline"
    elif state.refused_count:
        verdict, reason = "unknown", "its heartbeats are refused"
    return [
        (
            "Verdict",
            format_html(
                '{} <span class="hs-hint">{} heartbeat {}</span>',
                badge(verdict, *VERDICT_BADGES[verdict]),
                f"{reason};" if reason else "",
                age(state.last_heartbeat_at, now),
            ),
        ),
        ("CPU", _percent(state.cpu_percent)),
        ("Memory", _percent(state.memory_percent)),
        ("Error rate", _percent(state.error_ratio, scale=100)),
        (
            "Up for",
            NOT_REPORTED
            if state.uptime_seconds is None
            else span_in_words(state.uptime_seconds),
        ),
        ("Boot id", state.boot_id or NOT_REPORTED),
        ("Secure boot", state.secure_boot),
    ]


# --- Groups ---------------------------------


def _launch_button(user: User, **chosen: str) -> Button:
    """Lead to a launch whose devices are chosen already."""
    launch = reverse("admin:deployments_deployment_launch")
    url = f"{launch}?{urlencode(chosen)}"
    return link_button(user, "Launch", "rocket_launch", url, Role.OPERATOR)


def _group_badge(group: DeviceGroup) -> SafeString:
    if group.type == GroupType.DYNAMIC:
        return badge("Dynamic", NOT_STARTED, "rule", "its rule says who is in it")
    return badge("Static", NOT_STARTED, "list", "people say who is in it")


@admin.register(DeviceGroup)
class DeviceGroupAdmin(ConsoleAdmin):
    empty_words = (
        "There is no group.",
        "A group lists devices, or has a rule that finds them; a launch may name it.",
    )
    list_name = "Groups"
    console_actions = (
        CreateDynamicGroup,
        CreateGroup,
        EditRule,
        AddMembers,
        RemoveMembers,
        RenameGroup,
        DeleteGroup,
    )
    page_template = "console/group.html"
    list_display = ("name", "kind", "meaning", "size", "since")
    search_fields = ("name", "description")
    ordering = ("name",)

    def buttons(self, user: User, obj: DeviceGroup | None) -> list[Button]:
        found = super().buttons(user, obj)
        if obj is not None:
            chosen = {"target": "groups", "targetGroups": str(obj.pk)}
            found.insert(0, _launch_button(user, **chosen))
        return found

    def complete(self, rows: list[Any]) -> None:
        counts = count_members(rows)
        for group in rows:
            group.device_count = counts[group.pk]

    @display(description="Type")
    def kind(self, group: DeviceGroup) -> SafeString:
        return _group_badge(group)

    @display(description="Whom it means")
    def meaning(self, group: DeviceGroup) -> str:
        rule = rule_of(group)
        return group.description if rule is None else rule.in_words()

    @display(description="Devices")
    def size(self, group: Any) -> str:
        return f"{group.device_count:,}"

    @display(description="Made")
    def since(self, group: DeviceGroup) -> SafeString:
        return age(group.created_at)

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        members = devices_of(obj).select_related("model", "state").order_by("device_id")
        rule = rule_of(obj)
        return {
            "status": _group_badge(obj),
            "rule": rule.in_words() if rule else "",
            "count": count_members([obj])[obj.pk],
            "members": [
                {"device": device, "badge": device_badge(device)}
                for device in members[:SHOWN_MEMBERS]
            ],
            "shown": SHOWN_MEMBERS,
        }
