"""The list of devices that ask to come in, and the page of one."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.decorators import display

from devices.choices import EnrolmentStatus
from devices.console.actions.enrolment_request import ApproveEnrolment, RejectEnrolment
from devices.console.badges import enrolment_badge
from devices.console.fields import tags_as_lines
from devices.models import EnrolmentRequest
from hotswap.common.console.filters import StatusFilter
from hotswap.common.console.narrow_row import NarrowRow
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.text import age


class EnrolmentStatusFilter(StatusFilter):
    choices_of_status = EnrolmentStatus.choices


class EnrolmentAdmin(ConsoleAdmin):
    help_page = "devices.md#enrolling"
    api_path = "enrolments"
    audit_kind = "enrolment"
    list_name = "Enrolments"
    console_actions = (ApproveEnrolment, RejectEnrolment)
    page_template = "console/enrolment.html"
    empty_words = (
        "Nothing waits for you.",
        "Devices that register themselves with an enrolment token appear here.",
    )
    narrow_row = NarrowRow(first=("state",), titled=("token",))
    list_display = ("device_id", "model", "region", "token", "state", "since")
    list_filter = (EnrolmentStatusFilter,)
    search_fields = ("device_id",)
    search_help_text = "Device id"
    ordering = ("-created_at",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[EnrolmentRequest]:
        return EnrolmentRequest.objects.select_related("model", "token", "decided_by")

    @display(description="Status")
    def state(self, request: EnrolmentRequest) -> SafeString:
        return enrolment_badge(request)

    @display(description="Age", ordering="-created_at")
    def since(self, request: EnrolmentRequest) -> SafeString:
        return age(request.created_at)

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {
            "status": enrolment_badge(obj),
            "asked": age(obj.created_at),
            "decided": age(obj.decided_at),
            "completed": age(obj.completed_at),
            "tags": tags_as_lines(obj.tags),
        }
