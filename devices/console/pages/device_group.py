"""The list of groups, and the page of one."""

from datetime import datetime, timedelta
from typing import Any, Final

from django.db.models import Exists, OuterRef
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.decorators import display

from devices.console.actions.device_group import (
    AddMembers,
    CreateDynamicGroup,
    CreateGroup,
    DeleteGroup,
    EditRule,
    RemoveMembers,
    RenameGroup,
)
from devices.console.badges import device_badge, group_badge
from devices.models import DeviceGroup, FirmwareRun
from devices.selectors import count_members, devices_of, rule_of
from hotswap.common.console.narrow_row import NarrowRow
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.text import age
from hotswap.common.models import AuditEvent

SHOWN_MEMBERS: Final = 100
SHOWN_CHANGES: Final = 10
DAY: Final = timedelta(hours=24)


class DeviceGroupAdmin(ConsoleAdmin):
    help_page = "devices.md#groups"
    api_path = "device-groups"
    api_field = "pk"
    audit_kind = "device-group"
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
    narrow_row = NarrowRow(first=("kind",), left_out=("since",), titled=("size",))
    list_display = ("name", "kind", "meaning", "size", "since")
    search_fields = ("name", "description")
    ordering = ("name",)

    def complete(self, rows: list[Any]) -> None:
        counts = count_members(rows)
        for group in rows:
            group.device_count = counts[group.pk]

    @display(description="Type")
    def kind(self, group: DeviceGroup) -> SafeString:
        return group_badge(group)

    @display(description="Rule")
    def meaning(self, group: DeviceGroup) -> str:
        rule = rule_of(group)
        if rule is None:
            return group.description or "Devices listed one by one"
        return rule.in_words()

    @display(description="Devices")
    def size(self, group: Any) -> str:
        return f"{group.device_count:,}"

    @display(description="Created")
    def since(self, group: DeviceGroup) -> SafeString:
        return age(group.created_at)

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        members = devices_of(obj).select_related("model", "state").order_by("device_id")
        rule = rule_of(obj)
        return {
            "status": group_badge(obj),
            "rule": rule.in_words() if rule else "",
            "count": count_members([obj])[obj.pk],
            "members": [
                {"device": device, "badge": device_badge(device)}
                for device in members[:SHOWN_MEMBERS]
            ],
            "shown": SHOWN_MEMBERS,
            **_since_yesterday(obj, timezone.now()),
        }


def _since_yesterday(group: DeviceGroup, now: datetime) -> dict[str, Any]:
    """Return what people changed in a group, and what is new about its devices."""
    since = now - DAY
    devices = devices_of(group)
    return {
        "changes": AuditEvent.objects.filter(
            object_kind="device-group", object_id=str(group.pk), at__gt=since
        ).order_by("-id")[:SHOWN_CHANGES],
        "registered": devices.filter(created_at__gt=since).count(),
        "updated": devices.filter(
            Exists(
                FirmwareRun.objects.filter(
                    device=OuterRef("pk"), until__isnull=True, since__gt=since
                )
            )
        ).count(),
    }
