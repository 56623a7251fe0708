"""The lists and pages of the receivers of each channel."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from deployments.console.actions.delivery import Resend
from deployments.console.actions.receiver import (
    DeleteReceiver,
    DisableReceiver,
    EnableReceiver,
    RotateSecret,
    SendTest,
    add_action,
    edit_action,
)
from deployments.console.badges import status_badge
from deployments.console.pages.delivery import DeliveryAdmin
from deployments.console.receivers import (
    DELIVERY_BADGES,
    events_in_words,
    next_attempt,
    receiver_badge,
)
from deployments.models import Delivery, Receiver
from deployments.notifications.channels.types import Channel
from hotswap.common.console.narrow_row import NarrowRow
from hotswap.common.console.pages.base import AdminsOnly
from hotswap.common.console.requests import acting_person
from hotswap.common.console.text import age

SHOWN_DELIVERIES = 50


class ReceiverAdmin(AdminsOnly):
    help_page = "notifications.md"
    page_template = "console/receiver.html"
    ordering = ("-created_at",)

    def complete(self, rows: list[Any]) -> None:
        last: dict[Any, Delivery] = {}
        if rows:
            field = rows[0].delivery_field
            last = {
                getattr(each, f"{field}_id"): each
                for each in Delivery.objects.filter(**{f"{field}__in": rows})
                .order_by(field, "-created_at")
                .distinct(field)
            }
        for row in rows:
            row.last_delivery = last.get(row.pk)

    @display(description="Events")
    def subscribed(self, receiver: Receiver) -> str:
        return events_in_words(receiver)

    @display(description="Status")
    def state(self, receiver: Receiver) -> SafeString:
        return receiver_badge(receiver)

    @display(description="Last delivery")
    def last(self, receiver: Any) -> str | SafeString:
        found = receiver.last_delivery
        if found is None:
            return "–"
        looks = status_badge(DELIVERY_BADGES, found.status)
        return format_html("{} {}", looks, age(found.created_at))

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        user = acting_person(request)
        deliveries = admin.site._registry[Delivery]
        assert isinstance(deliveries, DeliveryAdmin)
        rows = (
            Delivery.objects.of(obj)
            .with_receiver()
            .order_by("-created_at")[: SHOWN_DELIVERIES + 1]
        )
        shown = list(rows)
        return {
            "status": receiver_badge(obj),
            "events": events_in_words(obj),
            "made": age(obj.created_at),
            "former_until": age(getattr(obj, "previous_secret_until", None)),
            "has_more": len(shown) > SHOWN_DELIVERIES,
            "deliveries": [
                {
                    "item": each,
                    "url": deliveries.page_url(each),
                    "badge": status_badge(DELIVERY_BADGES, each.status),
                    "age": age(each.created_at),
                    "next": next_attempt(each),
                    "resend": Resend().button(deliveries, user, each),
                }
                for each in shown[:SHOWN_DELIVERIES]
            ],
        }


def receiver_admin(channel: Channel) -> type[ReceiverAdmin]:
    """Return the list and the page of the receivers of a channel."""
    endpoint = channel.endpoint

    @display(
        description=endpoint.column or endpoint.label,
        ordering=None if endpoint.is_secret else endpoint.name,
    )
    def where(self: ReceiverAdmin, receiver: Receiver) -> str:
        return receiver.shown_endpoint

    members = {
        "__module__": __name__,
        "audit_kind": channel.model.kind,
        "list_name": channel.plural.capitalize(),
        "api_path": channel.route,
        "api_field": "pk",
        "console_actions": (
            add_action(channel),
            SendTest,
            edit_action(channel),
            EnableReceiver,
            DisableReceiver,
            *((RotateSecret,) if channel.has_secret else ()),
            DeleteReceiver,
        ),
        "where": where,
        "narrow_row": NarrowRow(first=("state",), titled=("last",)),
        "list_display": ("where", "description", "subscribed", "state", "last"),
        "empty_words": channel.empty_words,
    }
    return type(f"{channel.model.__name__}Admin", (ReceiverAdmin,), members)
