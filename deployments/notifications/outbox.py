"""Out of the outbox: sending what is due."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from deployments.choices import DeliveryStatus
from deployments.models import (
    Delivery,
    Listener,
    Notification,
    Webhook,
)
from deployments.notifications.gateways import send_message
from deployments.notifications.sending import Outcome, post, send_mail
from deployments.notifications.signing import signed_headers
from deployments.notifications.words import short_of, subject_of, text_of
from hotswap.common import audit
from hotswap.common.keyring import unseal
from hotswap.common.models import Clock

SECRET_PURPOSE = "webhook-secret"  # noqa: S105
# Longer than any attempt, so that only what was lost is sent again.
LEASE = timedelta(seconds=60)
# At most one sender works; another takes over when it has been still for so long.
TURN = "notifications"
TURN_LENGTH = timedelta(seconds=10)
NO_TURN = datetime(1970, 1, 1, tzinfo=UTC)
TURN_SECONDS = 20.0
# One for each listener that can be slow, and for the mail.
# Of one mail: more events than these wait for the next.
EVENTS_A_MAIL = 20
LANES = settings.MAX_WEBHOOKS + settings.MAX_GATEWAYS + 1


@dataclass(frozen=True, slots=True)
class Job:
    """Leased deliveries that are sent as one; several only in a mail.

    Attributes:
        attempts: the number of this attempt, by delivery.
        lane: the webhook or gateway, or None for all mail.
    """

    attempts: dict[UUID, int]
    lane: UUID | None
    send: Callable[[], Outcome]


def send_due(*, clock: Callable[[], datetime] = timezone.now) -> None:
    """Send what is due, until nothing is; leave at once if somebody else does that.

    Each endpoint has a lane with one delivery at a time, so that a dead one holds up
    its own lane only. Nothing new is begun after 20 s: the next call goes on.
    """
    if not _take_turn(clock()):
        return
    ends = time.monotonic() + TURN_SECONDS
    flying: dict[Future[Outcome], Job] = {}
    try:
        with ThreadPoolExecutor(LANES, thread_name_prefix="notify") as pool:
            while True:
                Clock.objects.filter(name=TURN).update(last_run_at=clock())
                if time.monotonic() < ends:
                    busy = {job.lane for job in flying.values()}
                    for job in _claim(now=clock(), busy=busy):
                        flying[pool.submit(job.send)] = job
                if not flying:
                    break
                done, _ = wait(flying, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    _note(flying.pop(future), future.result(), now=clock())
    finally:
        Clock.objects.filter(name=TURN).update(last_run_at=NO_TURN)


def _take_turn(now: datetime) -> bool:
    Clock.objects.get_or_create(
        name=TURN, defaults={"last_run_at": NO_TURN, "restarted_at": now}
    )
    return bool(
        Clock.objects.filter(name=TURN, last_run_at__lt=now - TURN_LENGTH).update(
            last_run_at=now
        )
    )


def _claim(*, now: datetime, busy: set[UUID | None]) -> list[Job]:
    """Lease the oldest due delivery of each lane that is free."""
    named = [pk for pk in busy if pk]
    due = (
        Delivery.objects.due(now).exclude(webhook__in=named).exclude(gateway__in=named)
    )
    if None in busy:
        due = due.filter(recipient__isnull=True)
    lane = ("webhook_id", "gateway_id")
    first = due.order_by(*lane, "created_at", "pk").distinct(*lane)
    with transaction.atomic():
        rows = list(
            Delivery.objects.filter(pk__in=[row.pk for row in first])
            .due(now)
            # With the notification, which may be taking more devices in just now.
            .select_for_update(
                of=("self", "notification"), skip_locked=True, no_key=True
            )
            .select_related("notification", "webhook", "recipient", "gateway")
            .order_by("created_at")[: LANES - len(busy)]
        )
        batches = [[row, *_joined(row, now)] for row in rows]
        # The attempt counts from here: one that is cut off may have arrived.
        leased = [each.pk for batch in batches for each in batch]
        Delivery.objects.filter(pk__in=leased).update(
            next_attempt_at=now + LEASE,
            last_attempt_at=now,
            attempts=F("attempts") + 1,
        )
    return [
        Job(
            {each.pk: each.attempts + 1 for each in batch},
            batch[0].webhook_id or batch[0].gateway_id,
            _attempt(batch, now),
        )
        for batch in batches
    ]


def _joined(row: Delivery, now: datetime) -> list[Delivery]:
    """Lock what else is to be mailed to the same address about the same deployment.

    It need not be due yet; one that is being tried again waits for its time.
    """
    deployment = row.notification.payload["data"].get("deployment")
    if row.recipient_id is None or deployment is None:
        return []
    is_fresh = Q(attempts=F("attempts_before_resend"))
    return list(
        Delivery.objects.filter(
            is_fresh | Q(next_attempt_at__lte=now),
            recipient=row.recipient_id,
            status=DeliveryStatus.PENDING,
            notification__payload__data__deployment__id=deployment["id"],
        )
        .exclude(pk=row.pk)
        .select_for_update(of=("self", "notification"), skip_locked=True, no_key=True)
        .select_related("notification")
        .order_by("created_at", "pk")[: EVENTS_A_MAIL - 1]
    )


def _attempt(batch: Sequence[Delivery], now: datetime) -> Callable[[], Outcome]:
    row = batch[0]
    payload = row.notification.payload
    if row.gateway is not None:
        return partial(
            send_message,
            url=row.gateway.url,
            title=subject_of(payload),
            text=short_of(payload),
            allowed=settings.WEBHOOK_ALLOWED_NETWORKS,
        )
    if row.webhook is None:
        assert row.recipient is not None
        payloads = [each.notification.payload for each in batch]
        return partial(
            send_mail,
            sender=settings.MAIL_FROM,
            address=row.recipient.address,
            subject=subject_of(*payloads),
            text=text_of(*payloads),
            message_id=str(row.pk),
        )
    body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    return partial(
        post,
        url=row.webhook.url,
        headers={
            "content-type": "application/json",
            "user-agent": "HotSwap",
            **signed_headers(
                secrets=_secrets(row.webhook, now),
                message_id=str(row.notification_id),
                timestamp=int(now.timestamp()),
                body=body,
            ),
        },
        body=body,
        allowed=settings.WEBHOOK_ALLOWED_NETWORKS,
    )


def _secrets(webhook: Webhook, now: datetime) -> list[str]:
    sealed = [webhook.sealed_secret]
    until = webhook.previous_secret_until
    if webhook.previous_sealed_secret is not None and until is not None and now < until:
        sealed.append(webhook.previous_sealed_secret)
    return [unseal(bytes(each), purpose=SECRET_PURPOSE).decode() for each in sealed]


def _note(job: Job, outcome: Outcome, *, now: datetime) -> None:
    """Write down what became of an attempt; one that was overtaken changes nothing."""
    for delivery_id, attempt in job.attempts.items():
        _note_one(delivery_id, attempt, outcome, now=now)


def _note_one(
    delivery_id: UUID, attempt: int, outcome: Outcome, *, now: datetime
) -> None:
    with transaction.atomic():
        row = (
            Delivery.objects.select_for_update(no_key=True)
            .filter(pk=delivery_id, status=DeliveryStatus.PENDING, attempts=attempt)
            .first()
        )
        if row is None:
            return
        row.response_status = outcome.response_status
        row.error = outcome.error
        waits = settings.NOTIFICATION_RETRIES
        tried = row.attempts - row.attempts_before_resend
        if outcome.has_arrived:
            row.status = DeliveryStatus.DELIVERED
            row.delivered_at = now
            row.next_attempt_at = None
        elif outcome.is_gone or tried > len(waits):
            row.status = DeliveryStatus.FAILED
            row.next_attempt_at = None
        else:
            row.next_attempt_at = now + waits[tried - 1]
        row.save()
        if outcome.is_gone:
            _disable_gone(row.listener, now)


def _disable_gone(told: Listener, now: datetime) -> None:
    listener = (
        type(told)
        ._default_manager.select_for_update(no_key=True)
        .filter(pk=told.pk, enabled=True)
        .first()
    )
    if listener is None:
        return
    reason = "the endpoint answered 410 Gone"
    disable(listener, reason, now=now)
    audit.record(
        actor=None,
        verb=f"{listener.kind}.disabled",
        object_kind=listener.kind,
        object_id=listener.pk,
        details={"reason": reason},
    )


def disable(listener: Listener, reason: str, *, now: datetime) -> None:
    """Tell a listener nothing more, nor what waits for it; the caller holds its row."""
    listener.enabled = False
    listener.disabled_reason = reason
    listener.updated_at = now
    listener.save(update_fields=["enabled", "disabled_reason", "updated_at"])
    Delivery.objects.of(listener).filter(status=DeliveryStatus.PENDING).update(
        status=DeliveryStatus.FAILED, next_attempt_at=None, error=reason
    )


# --- Forgetting --------------------------------------------------------------------


def tidy(*, now: datetime) -> None:
    """Forget notifications and former secrets after their time."""
    Notification.objects.filter(at__lt=now - settings.NOTIFICATIONS_KEPT).exclude(
        deliveries__status=DeliveryStatus.PENDING
    ).delete()
    Webhook.objects.filter(previous_secret_until__lte=now).update(
        previous_sealed_secret=None, previous_secret_until=None
    )
