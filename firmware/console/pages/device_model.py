"""The list of device models, and the page of one."""

from typing import Any

from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.decorators import display

from firmware.console.actions.device_model import ChangeDeviceModel, CreateDeviceModel
from firmware.models import DeviceModel
from firmware.versions import VersionScheme
from hotswap.common.console.badges import NOT_STARTED, WAITS, badge
from hotswap.common.console.narrow_row import NarrowRow
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.text import age


class DeviceModelAdmin(ConsoleAdmin):
    help_page = "firmware.md"
    api_path = "device-models"
    api_field = "pk"
    audit_kind = "device-model"
    empty_words = (
        "There is no device model.",
        "Add one first: devices and images of firmware are of a model.",
    )
    console_actions = (CreateDeviceModel, ChangeDeviceModel)
    page_template = "console/device_model.html"
    narrow_row = NarrowRow(
        left_out=("version_scheme", "secure_boot", "since"), titled=("versions",)
    )
    list_display = (
        *("name", "description", "versions", "version_scheme", "secure_boot"),
        "since",
    )
    search_fields = ("name", "description")
    ordering = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeviceModel]:
        return DeviceModel.objects.annotate(version_count=Count("firmware"))

    @display(description="Firmware versions")
    def versions(self, model: Any) -> int:
        count: int = model.version_count
        return count

    @display(description="Secure boot")
    def secure_boot(self, model: DeviceModel) -> SafeString:
        if model.requires_secure_boot:
            return badge("required", WAITS, "verified_user")
        return badge("not required", NOT_STARTED, "shield")

    @display(description="Added")
    def since(self, model: DeviceModel) -> SafeString:
        return age(model.created_at)

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {
            "secure_boot": self.secure_boot(obj),
            "expected": VersionScheme(obj.version_scheme).expected,
            "added": age(obj.created_at),
        }
