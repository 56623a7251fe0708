"""Receivers and deliveries in words."""

from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from deployments.choices import DeliveryStatus
from deployments.models import Delivery, Receiver
from deployments.rules.events import EventName
from hotswap.common.console.badges import DONE, FAILED, MOVING, badge
from hotswap.common.console.text import age

DELIVERY_BADGES = {
    DeliveryStatus.PENDING: (MOVING, "schedule_send", "Pending"),
    DeliveryStatus.DELIVERED: (DONE, "check", "Delivered"),
    DeliveryStatus.FAILED: (FAILED, "error", "Failed"),
}


def receiver_badge(receiver: Receiver) -> SafeString:
    """Say whether it is told; why not stands in the tooltip."""
    if receiver.enabled:
        return badge("Enabled", DONE, "check")
    return badge("Disabled", FAILED, "block", receiver.disabled_reason)


def events_in_words(receiver: Receiver) -> str:
    if not receiver.events:
        return "all"
    return ", ".join(str(EventName(each).label) for each in receiver.events)


def next_attempt(delivery: Delivery) -> SafeString:
    """Say when it is sent again; one whose time has come waits for a worker."""
    at, now = delivery.next_attempt_at, timezone.now()
    is_due = at is not None and at <= now
    return format_html("due {}", age(at, now)) if is_due else age(at, now)


def receiver_url(receiver: Receiver) -> str:
    return reverse(
        f"admin:deployments_{receiver._meta.model_name}_change", args=[receiver.pk]
    )
