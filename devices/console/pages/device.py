"""The list of devices, and the page of one.

Other apps show their parts on it as panels (`hotswap.common.console.panels`).
"""

import json
from dataclasses import replace
from itertools import groupby
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import urlencode

from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import QuerySet
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timezone import is_aware
from unfold.decorators import display

from devices.choices import DeviceStatus, KeyStatus, RunKnowledge
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
from devices.console.actions.device_selection import AddToGroup, TagDevices
from devices.console.actions.saved_filter import RemoveFilter, SaveFilter
from devices.console.badges import (
    LEVEL_TONES,
    RUN_BADGES,
    certificate_look,
    device_badge,
    issued_key_look,
    key_badge,
)
from devices.console.fields import tags_as_lines
from devices.console.filters import (
    CertificateFilter,
    ComponentFilter,
    DeviceStatusFilter,
    EnabledFilter,
    GroupFilter,
    HealthFilter,
    KeyFilter,
    ModelFilter,
    RegionFilter,
    TagFilter,
    VersionFilter,
)
from devices.console.timeline import AuditedLine
from devices.files import devices_file, export_response
from devices.models import Device, SavedFilter
from devices.querysets import DeviceQuerySet, name_contains
from devices.selectors import groups_of, revocation_reason
from hotswap.common.console.actions.base import Button
from hotswap.common.console.badges import NOT_STARTED, badge
from hotswap.common.console.names import names_of
from hotswap.common.console.narrow_row import NarrowRow
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.panels import newest_lines
from hotswap.common.console.requests import READING, acting_person
from hotswap.common.console.roles import require_role
from hotswap.common.console.text import age, span_in_words
from hotswap.common.models import User
from hotswap.common.roles import Role

SHOWN_GROUPS = 100
SHOWN_EVENTS = 50
SHOWN_KEYS = 6
SHOWN_RUNS = 12
# Of the rows of a page, all.
MAX_SELECTED = 100


class DeviceAdmin(ConsoleAdmin):
    help_page = "console.md#devices"
    api_path = "devices"
    api_field = "device_id"
    api_filters = MappingProxyType(
        {
            "q": "search",
            "status": "status",
            "health": "health",
            "region": "region",
            "model": "model",
            "version": "firmwareVersion",
            "component": "component",
            "tag": "tag",
            "group": "group",
        }
    )
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
        AddToGroup,
        TagDevices,
        SaveFilter,
        RemoveFilter,
    )
    chips_template = "console/saved_filters.html"
    page_template = "console/device.html"
    narrow_row = NarrowRow(first=("contact",), left_out=("last_deployment",))
    list_display = (
        "device_id",
        "model",
        "region",
        "version",
        "contact",
        "attention",
    )
    # By the others a whole fleet would be sorted for one page; they have filters.
    sortable_by = ("device_id",)
    selection_field = "device_id"
    list_filter = (
        DeviceStatusFilter,
        HealthFilter,
        RegionFilter,
        ModelFilter,
        VersionFilter,
        ComponentFilter,
        TagFilter,
        GroupFilter,
        EnabledFilter,
        KeyFilter,
        CertificateFilter,
    )
    search_fields = ("device_id",)
    search_help_text = "Device id"
    ordering = ("device_id",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Device]:
        return Device.objects.select_related("model", "state").with_key_expiry()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find the devices whose name has each of the words."""
        words = sorted(search_term.split(), key=len, reverse=True)
        if not words:
            return queryset, False
        order = [
            str(each).replace("device_id", "name_order")
            for each in queryset.query.order_by
        ]
        found = cast(DeviceQuerySet, queryset).named_like(words[0])
        for word in words[1:]:
            found = found.filter(name_contains(word))
        return found.order_by(*order), False

    @display(description="Firmware")
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

    @display(description="Attention", empty_value="")
    def attention(self, device: Device) -> SafeString | None:
        """Show what is not as usual; of most devices nothing is."""
        now = timezone.now()
        shown = []
        if not device.enabled:
            shown.append(badge("updates disabled", NOT_STARTED, "pause"))
        if device.revoked_at is None and (
            device.alarm_at is not None
            or device.key_status_at(now) in (KeyStatus.EXPIRING, KeyStatus.EXPIRED)
        ):
            shown.append(key_badge(device, now))
        return format_html_join(" ", "{}", ((each,) for each in shown)) or None

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        query = request.GET.urlencode()
        export = self.export_button("export_list", query)
        person = acting_person(request)
        buttons = self.buttons(person, None)
        saved = SavedFilter.objects.filter(user=person).order_by("name")
        return super().changelist_view(
            request,
            {
                "console_buttons": [*buttons, export],
                "saved_filters": [
                    {
                        "name": each.name,
                        "url": f"?{each.query}",
                        "is_shown": each.query == query,
                        "removal": f"{self.url(RemoveFilter.name)}?"
                        + urlencode({"name": each.name}),
                    }
                    for each in saved
                ],
                "save_filter_url": f"{self.url(SaveFilter.name)}?"
                + urlencode({"query": query}),
                **(extra_context or {}),
            },
        )

    def export_list_view(self, request: HttpRequest) -> Any:
        """Send the devices of the list, as it is filtered, as a CSV file."""
        if request.method not in READING:
            return HttpResponseNotAllowed(READING)
        require_role(acting_person(request), self.needed_role)
        person = acting_person(request)
        if selected := request.GET.getlist("deviceIds"):
            devices = Device.objects.filter(device_id__in=selected[:MAX_SELECTED])
            return devices_file(devices, actor=person, asked={"devices": selected})
        try:
            devices = self.get_changelist_instance(request).queryset
        except IncorrectLookupParameters:
            return HttpResponseRedirect(self.list_url())
        return devices_file(devices, actor=person, asked=dict(request.GET.items()))

    def selection_buttons(self, user: User) -> list[Button]:
        export = replace(self.export_button("export_list"), name="export-selected")
        return [*super().selection_buttons(user), export]

    def more_urls(self) -> list[URLPattern]:
        return [
            path(
                "export/",
                self.protected(self.export_list_view),
                name=self.url_name("export_list"),
            ),
            path(
                "<path:object_id>/timeline/",
                self.protected(self.timeline_view),
                name=self.url_name("timeline"),
            ),
            path(
                "<path:object_id>/export/",
                self.protected(self.export_view),
                name=self.url_name("export"),
            ),
        ]

    def timeline(self, request: HttpRequest, obj: Device) -> dict[str, Any]:
        """Return a part of what has ever happened to a device, the newest first.

        The page begins with the present; older parts are asked for by `?until=`.
        """
        try:
            wanted = parse_datetime(request.GET.get("until", ""))
        except ValueError:
            wanted = None
        until = wanted if wanted is not None and is_aware(wanted) else None
        lines, older = newest_lines(obj, SHOWN_EVENTS, until)
        names = (
            names_of(line.actor for line in lines if isinstance(line, AuditedLine))
            if acting_person(request).may(Role.ADMIN)
            else {}
        )
        query = urlencode({"until": older.isoformat()}) if older else ""
        rows: list[dict[str, Any]] = [
            {
                "line": line,
                "tone": LEVEL_TONES[line.level],
                "by": names.get(getattr(line, "actor", None), ""),
            }
            for line in lines
        ]
        return {
            "is_begin": until is None,
            "days": [
                (day, list(group))
                for day, group in groupby(rows, lambda row: row["line"].at.date())
            ],
            "older_url": f"?{query}#hs-timeline" if query else "",
            "older_piece": f"{self.url('timeline', obj.pk)}?{query}" if query else "",
        }

    def timeline_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show an older part of the timeline, to be put below what is shown."""
        if request.method not in READING:
            return HttpResponseNotAllowed(READING)
        require_role(acting_person(request), self.needed_role)
        obj = self.found(request, object_id)
        return TemplateResponse(
            request,
            "console/timeline.html",
            {"timeline": self.timeline(request, obj)},
            headers={"Cache-Control": "no-store"},
        )

    def export_view(self, request: HttpRequest, object_id: str) -> Any:
        """Send all that is held about a device, as a file."""
        if request.method not in READING:
            return HttpResponseNotAllowed(READING)
        require_role(acting_person(request), Role.ADMIN)
        return export_response(self.found(request, object_id).device_id)

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        now = timezone.now()
        state = getattr(obj, "state", None)
        return {
            "status": device_badge(obj),
            "page_url": self.page_url(obj),
            "read_at": now,
            "never_seen": obj.status_at(now) == DeviceStatus.NEVER_SEEN,
            "seen": age(state.last_seen_at, now) if state else "",
            "timeline": self.timeline(request, obj),
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
                    "badge": badge(*RUN_BADGES[RunKnowledge(run.how)]),
                    "lasted": span_in_words(
                        ((run.until or now) - run.since).total_seconds()
                    ),
                }
                for run in obj.firmware_runs.order_by("-pk")[:SHOWN_RUNS]
            ],
            "export_url": self.url("export", obj.pk),
            "may_export": acting_person(request).may(Role.ADMIN),
            "alarm_since": age(obj.alarm_at, now),
            "tags": tags_as_lines(obj.tags),
            "metadata": json.dumps(obj.metadata, indent=2) if obj.metadata else "",
        }
