"""The list of deliveries, and the page of one."""

import json
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.decorators import display

from deployments.choices import DeliveryStatus
from deployments.console.actions.delivery import Resend
from deployments.console.badges import status_badge
from deployments.console.receivers import DELIVERY_BADGES, next_attempt, receiver_url
from deployments.models import Delivery
from hotswap.common.console.filters import StatusFilter
from hotswap.common.console.narrow_row import NarrowRow
from hotswap.common.console.pages.base import AdminsOnly
from hotswap.common.console.text import age, event_in_words


class DeliveryStatusFilter(StatusFilter):
    choices_of_status = DeliveryStatus.choices


class DeliveryAdmin(AdminsOnly):
    help_page = "notifications.md#delivery"
    list_name = "Deliveries"
    console_actions = (Resend,)
    page_template = "console/delivery.html"
    narrow_row = NarrowRow(first=("state",), titled=("attempts", "answer"))
    list_display = ("what", "whom", "state", "attempts", "answer", "error", "since")
    list_filter = (DeliveryStatusFilter,)
    ordering = ("-created_at",)
    empty_words = (
        "Nothing was sent yet.",
        "Notifications by webhook, mail, SMS and chat appear here for 30 days.",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        return Delivery.objects.with_receiver()

    @display(description="Event")
    def what(self, delivery: Delivery) -> str:
        return event_in_words(delivery.notification.type)

    @display(description="To")
    def whom(self, delivery: Delivery) -> str:
        return str(delivery.receiver)

    @display(description="Status")
    def state(self, delivery: Delivery) -> SafeString:
        return status_badge(DELIVERY_BADGES, delivery.status)

    @display(description="Answer")
    def answer(self, delivery: Delivery) -> str:
        return str(delivery.response_status or "–")

    @display(description="Age", ordering="-created_at")
    def since(self, delivery: Delivery) -> SafeString:
        return age(delivery.created_at)

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {
            "heading": event_in_words(obj.notification.type),
            "status": status_badge(DELIVERY_BADGES, obj.status),
            "receiver": obj.receiver,
            "receiver_url": receiver_url(obj.receiver),
            "made": age(obj.created_at),
            "last": age(obj.last_attempt_at),
            "next": next_attempt(obj),
            "arrived": age(obj.delivered_at),
            "payload": json.dumps(
                obj.notification.payload, indent=2, ensure_ascii=False
            ),
        }
