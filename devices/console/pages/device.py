"""The list of devices, and the page of one.

Other apps show their parts on it as panels (`hotswap.common.console.panels`).
"""

import json
from typing import Any, cast

from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RadioFilter
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from devices.choices import DeviceHealth, DeviceStatus
from devices.console.actions.device import (
    AcknowledgeAlarm,
    AddCertificate,
    DisableDevice,
    EditDevice,
    EnableDevice,
    EraseDevice,
    RegisterDevice,
    RemoveCertificate,
    RevokeDevice,
    RotateKey,
)
from devices.console.badges import (
    LEVEL_TONES,
    RUN_BADGES,
    certificate_look,
    device_badge,
    issued_key_look,
    key_badge,
)
from devices.console.fields import region_choices
from devices.files import devices_file, export_response
from devices.models import Device
from devices.querysets import DeviceQuerySet
from devices.selectors import groups_of, revocation_reason
from firmware.models import DeviceModel
from hotswap.common.console.actions.base import Button
from hotswap.common.console.badges import DONE, NOT_STARTED, badge
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.panels import newest_lines
from hotswap.common.console.requests import READING, acting_person
from hotswap.common.console.text import age, span_in_words
from hotswap.common.roles import Role

SHOWN_MODELS = 50


SHOWN_GROUPS = 100
SHOWN_EVENTS = 30


SHOWN_KEYS = 6


SHOWN_RUNS = 12


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


class DeviceAdmin(ConsoleAdmin):
    audit_kind = "device"
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
        return {
            "status": device_badge(obj),
            "never_seen": obj.status_at(now) == DeviceStatus.NEVER_SEEN,
            "seen": age(state.last_seen_at, now) if state else "",
            "events": [
                {"event": event, "tone": LEVEL_TONES[event.level]}
                for event in newest_lines(obj, SHOWN_EVENTS)
            ],
            "groups": groups_of(obj)[:SHOWN_GROUPS],
            "revoked_for": revocation_reason(obj) if obj.revoked_at else "",
            "key": key_badge(obj, now),
            "key_status": obj.key_status_at(now).value,
            "keys": [
                (key, badge(*issued_key_look(key, now)))
                for key in obj.keys.order_by("-pk")[:SHOWN_KEYS]
            ],
            "certificates": [
                (each, badge(*certificate_look(each, now)))
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
            "tags": json.dumps(obj.tags, indent=2) if obj.tags else "",
            "metadata": json.dumps(obj.metadata, indent=2) if obj.metadata else "",
        }
