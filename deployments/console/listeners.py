"""Listeners and deliveries in words."""

from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from deployments.choices import DeliveryStatus
from deployments.models import Delivery, Listener
from deployments.rules.events import EventName
from hotswap.common.console.badges import DONE, FAILED, MOVING, badge
from hotswap.common.console.text import age

DELIVERY_BADGES = {
    DeliveryStatus.PENDING: (MOVING, "schedule_send", "Pending"),
    DeliveryStatus.DELIVERED: (DONE, "check", "Delivered"),
    DeliveryStatus.FAILED: (FAILED, "error", "Failed"),
}


def listener_badge(listener: Listener) -> SafeString:
    """Say whether it is told; why not stands in the tooltip."""
    if listener.enabled:
        return badge("Enabled", DONE, "check")
    return badge("Disabled", FAILED, "block", listener.disabled_reason)


def events_in_words(listener: Listener) -> str:
    if not listener.events:
        return "all"
    return ", ".join(str(EventName(each).label) for each in listener.events)


def next_attempt(delivery: Delivery) -> SafeString:
    """Say when it is sent again; one whose time has come waits for a worker."""
    at, now = delivery.next_attempt_at, timezone.now()
    is_due = at is not None and at <= now
    return format_html("due {}", age(at, now)) if is_due else age(at, now)


def listener_url(listener: Listener) -> str:
    return reverse(
        f"admin:deployments_{listener._meta.model_name}_change", args=[listener.pk]
    )
