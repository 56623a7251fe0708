"""The list of enrolment tokens, and the page of one."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.decorators import display

from devices.console.actions.enrolment_token import CreateToken, RevokeToken
from devices.console.badges import enrolment_badge, token_badge
from devices.console.fields import tags_as_lines
from devices.models import EnrolmentToken
from hotswap.common.console.narrow_row import NarrowRow
from hotswap.common.console.pages.base import AdminsOnly
from hotswap.common.console.text import age

SHOWN_REQUESTS = 50


class EnrolmentTokenAdmin(AdminsOnly):
    help_page = "devices.md#enrolling"
    api_path = "enrolment-tokens"
    api_field = "pk"
    audit_kind = "enrolment-token"
    list_name = "Enrolment tokens"
    console_actions = (CreateToken, RevokeToken)
    page_template = "console/enrolment_token.html"
    empty_words = (
        "There is no enrolment token.",
        "With one, devices register themselves: at once, or when a person approves.",
    )
    narrow_row = NarrowRow(first=("state",), titled=("place", "asks", "used", "ends"))
    list_display = ("name", "model", "place", "asks", "used", "state", "ends")
    search_fields = ("name",)
    ordering = ("-created_at",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[EnrolmentToken]:
        return EnrolmentToken.objects.select_related("model", "created_by")

    @display(description="Region")
    def place(self, token: EnrolmentToken) -> str:
        return token.region or "any"

    @display(description="Approval")
    def asks(self, token: EnrolmentToken) -> str:
        return "by a person" if token.needs_approval else "none"

    @display(description="Devices")
    def used(self, token: EnrolmentToken) -> str:
        if token.max_uses is None:
            return f"{token.uses:,}"
        return f"{token.uses:,} of {token.max_uses:,}"

    @display(description="Status")
    def state(self, token: EnrolmentToken) -> SafeString:
        return token_badge(token)

    @display(description="Ends", ordering="expires_at")
    def ends(self, token: EnrolmentToken) -> SafeString:
        return age(token.expires_at)

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        requests = obj.enrolmentrequest_set.order_by("-created_at")[:SHOWN_REQUESTS]
        return {
            "status": token_badge(obj),
            "used": self.used(obj),
            "ends": age(obj.expires_at),
            "made": age(obj.created_at),
            "revoked": age(obj.revoked_at),
            "tags": tags_as_lines(obj.tags),
            "requests": [
                {
                    "item": each,
                    "badge": enrolment_badge(each),
                    "asked": age(each.created_at),
                }
                for each in requests
            ],
        }
