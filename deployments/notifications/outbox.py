"""Out of the outbox: sending what is due."""

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from deployments.choices import DeliveryStatus
from deployments.models import (
    Delivery,
    Notification,
    Receiver,
    Webhook,
)
from deployments.notifications.channels.registry import CHANNELS, OF_MODEL
from deployments.notifications.channels.types import Channel
from deployments.notifications.sending import Outcome
from hotswap.common import audit
from hotswap.common.leases import end_lease, renew_lease, take_lease
from hotswap.common.retention import delete_some

# Longer than any attempt, so that only what was lost is sent again.
DELIVERY_LEASE = timedelta(seconds=60)
# At most one sender works; another takes over when it has been still for so long.
LEASE_NAME = "notifications"
LEASE_LENGTH = timedelta(seconds=10)
RUN_SECONDS = 20.0
# Of one message: more events than these wait for the next.
EVENTS_A_MESSAGE = 20
# One for each receiver that can be slow, and one for all others.
OWN_QUEUES = tuple(each.key for each in CHANNELS if each.has_own_queue)
QUEUES = 1 + sum(each.maximum for each in CHANNELS if each.has_own_queue)


@dataclass(frozen=True, slots=True)
class Job:
    """Leased deliveries that are sent as one message.

    Attributes:
        attempts: the number of this attempt, by delivery.
        queue: the receiver, or None for all whose channel has one queue in common.
    """

    attempts: dict[UUID, int]
    queue: UUID | None
    send: Callable[[], Outcome]


def send_due(*, clock: Callable[[], datetime] = timezone.now) -> None:
    """Send what is due, until nothing is; leave at once if somebody else does that.

    Each endpoint has a queue with one delivery at a time, so that a dead one holds up
    its own queue only. Nothing new is begun after 20 s: the next call goes on.
    """
    if not take_lease(LEASE_NAME, length=LEASE_LENGTH, now=clock()):
        return
    ends = time.monotonic() + RUN_SECONDS
    flying: dict[Future[Outcome], Job] = {}
    try:
        with ThreadPoolExecutor(QUEUES, thread_name_prefix="notify") as pool:
            while True:
                renew_lease(LEASE_NAME, now=clock())
                if time.monotonic() < ends:
                    busy = {job.queue for job in flying.values()}
                    for job in _claim(now=clock(), busy=busy):
                        # In the trace, and with the log's context, of the task.
                        context = copy_context()
                        flying[pool.submit(context.run, job.send)] = job
                if not flying:
                    break
                done, _ = wait(flying, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    _note(flying.pop(future), future.result(), now=clock())
    finally:
        end_lease(LEASE_NAME)


def _claim(*, now: datetime, busy: set[UUID | None]) -> list[Job]:
    """Lease the oldest due delivery of each queue that is free."""
    named = [pk for pk in busy if pk]
    due = Delivery.objects.due(now)
    for key in OWN_QUEUES:
        due = due.exclude(**{f"{key}__in": named})
    if None in busy:
        due = due.exclude(**{f"{key}__isnull": True for key in OWN_QUEUES})
    first = due.order_by(*OWN_QUEUES, "created_at", "pk").distinct(*OWN_QUEUES)
    with transaction.atomic():
        rows = list(
            Delivery.objects.filter(pk__in=[row.pk for row in first])
            .due(now)
            # With the notification, which may be taking more devices in just now.
            .select_for_update(
                of=("self", "notification"), skip_locked=True, no_key=True
            )
            .with_receiver()
            .order_by("created_at")[: QUEUES - len(busy)]
        )
        batches = [[row, *_joined(row, now)] for row in rows]
        # The attempt counts from here: one that is cut off may have arrived.
        leased = [each.pk for batch in batches for each in batch]
        Delivery.objects.filter(pk__in=leased).update(
            next_attempt_at=now + DELIVERY_LEASE,
            last_attempt_at=now,
            attempts=F("attempts") + 1,
        )
    return [
        Job(
            {each.pk: each.attempts + 1 for each in batch},
            next(filter(None, (getattr(batch[0], key) for key in OWN_QUEUES)), None),
            _channel(batch[0]).make_attempt(batch, now),
        )
        for batch in batches
    ]


def _channel(row: Delivery) -> Channel:
    return OF_MODEL[type(row.receiver)]


def _joined(row: Delivery, now: datetime) -> list[Delivery]:
    """Lock what else is to be sent with it: to the same, about the same deployment.

    It need not be due yet; one that is being tried again waits for its time.
    """
    deployment = row.notification.payload["data"].get("deployment")
    if deployment is None or not _channel(row).gathering:
        return []
    is_fresh = Q(attempts=F("attempts_before_resend"))
    return list(
        Delivery.objects.of(row.receiver)
        .filter(
            is_fresh | Q(next_attempt_at__lte=now),
            status=DeliveryStatus.PENDING,
            notification__payload__data__deployment__id=deployment["id"],
        )
        .exclude(pk=row.pk)
        .select_for_update(of=("self", "notification"), skip_locked=True, no_key=True)
        .select_related("notification")
        .order_by("created_at", "pk")[: EVENTS_A_MESSAGE - 1]
    )


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
            _disable_gone(row.receiver, now)


def _disable_gone(gone: Receiver, now: datetime) -> None:
    receiver = (
        type(gone)
        ._default_manager.select_for_update(no_key=True)
        .filter(pk=gone.pk, enabled=True)
        .first()
    )
    if receiver is None:
        return
    reason = "the endpoint answered 410 Gone"
    disable(receiver, reason, now=now)
    audit.record(
        actor=None,
        verb=f"{receiver.kind}.disabled",
        object_kind=receiver.kind,
        object_id=receiver.pk,
        details={"reason": reason},
        changed=receiver,
    )


def disable(receiver: Receiver, reason: str, *, now: datetime) -> None:
    """Tell a receiver nothing more, nor what waits for it; the caller holds its row."""
    receiver.enabled = False
    receiver.disabled_reason = reason
    receiver.updated_at = now
    receiver.save(update_fields=["enabled", "disabled_reason", "updated_at"])
    Delivery.objects.of(receiver).filter(status=DeliveryStatus.PENDING).update(
        status=DeliveryStatus.FAILED, next_attempt_at=None, error=reason
    )


# --- Forgetting --------------------------------------------------------------------


def forget_notifications(before: datetime, limit: int) -> int:
    """Forget notifications of before a time that nobody waits for; return how many."""
    return delete_some(
        Notification.objects.filter(at__lt=before).exclude(
            deliveries__status=DeliveryStatus.PENDING
        ),
        limit,
    )


def forget_former_secrets(before: datetime, limit: int) -> int:
    """Forget secrets of webhooks whose overlap has ended; return how many."""
    due = Webhook.objects.filter(previous_secret_until__lte=before).values("pk")[:limit]
    return Webhook.objects.filter(pk__in=due).update(
        previous_sealed_secret=None, previous_secret_until=None
    )
