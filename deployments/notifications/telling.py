"""Into the outbox: who is told of what, in the transaction of the event.

Rules:
- Where nobody listens, nothing is written.
- What happens to single devices is gathered: those of one deployment that meet with
  the same within seconds share a notification, which names the first hundred and
  counts all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import current_app
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from deployments.choices import NotifiedEvent
from deployments.models import (
    Delivery,
    Deployment,
    Gateway,
    Listener,
    MailRecipient,
    Notification,
    Stage,
    Webhook,
)
from hotswap.common.words import counted

TASK = "deployments.tasks.send_notifications"
# How long a notification about devices waits for more of them.
GATHERING = timedelta(seconds=5)
NAMED_DEVICES = 100
LISTENERS: tuple[type[Listener], ...] = (Webhook, MailRecipient, Gateway)


def tell(
    deployment: Deployment,
    event: str,
    message: str,
    *,
    now: datetime,
    stage_number: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write down who is to be told of an event of a deployment.

    Args:
        details: what is told beside the message.
    """
    if event not in NotifiedEvent.values:
        return
    listeners = _listeners(event)
    if not listeners:
        return
    data: dict[str, Any] = {"deployment": _described(deployment), "message": message}
    data |= details or {}
    if event == NotifiedEvent.PAUSED:
        data["reason"] = str(deployment.pause_reasons[-1])
    stage = (
        Stage.objects.filter(deployment=deployment, number=stage_number).first()
        if stage_number is not None
        else None
    )
    if stage is not None:
        data["stage"] = {"number": stage.number, "name": stage.name, "size": stage.size}
    _put(event, data, listeners, now=now, due=now)


def tell_devices(
    deployment: Deployment,
    event: NotifiedEvent,
    *,
    devices: Sequence[dict[str, Any]],
    total: int,
    now: datetime,
    joins: bool,
) -> None:
    """Write down that something happened to devices of a deployment.

    Args:
        devices: what is told of each, with its name as `id`; the first
            `NAMED_DEVICES` are enough.
        total: how many devices there are.
        joins: add to a notification that still waits for more devices. Whoever does so
            holds its row to the end of the transaction, and so must not wait for other
            devices afterwards.
    """
    # A tick asks a hundred times, and most often there are none.
    listeners = _listeners(event) if total else []
    if not listeners:
        return
    waiting = _waiting(deployment, event, now) if joins else None
    known = waiting.payload["data"]["devices"] if waiting else []
    total += waiting.payload["data"]["total"] if waiting else 0
    named = [*known, *devices][:NAMED_DEVICES]
    data = {
        "deployment": _described(deployment),
        "message": _words(event, str(deployment.firmware), named, total),
        "devices": named,
        "total": total,
    }
    if waiting is None:
        _put(event, data, listeners, now=now, due=now + GATHERING)
        return
    waiting.payload["data"] = data
    waiting.save(update_fields=["payload"])


def _waiting(
    deployment: Deployment, event: NotifiedEvent, now: datetime
) -> Notification | None:
    """Lock the notification that takes more devices, unless somebody holds it.

    A sender locks it too before it reads it, so what is added is always sent.
    """
    found = (
        Notification.objects.select_for_update(skip_locked=True, no_key=True)
        .filter(
            type=event,
            at__gt=now - GATHERING,
            payload__data__deployment__id=str(deployment.pk),
        )
        .first()
    )
    # Asked once it is locked: until then a sender may have taken it.
    if found is None or found.deliveries.filter(attempts__gt=0).exists():
        return None
    return found


def _words(
    event: NotifiedEvent, image: str, named: Sequence[dict[str, Any]], total: int
) -> str:
    who = named[0]["id"] if total == 1 else counted(total, "device")
    if event == NotifiedEvent.QUARANTINED:
        return (
            f"{image} has failed on {who} too often and is not offered there again "
            "until it is released"
        )
    if event == NotifiedEvent.BREACHED:
        reasons = ", ".join(sorted({each["errorCode"] for each in named}))
        return (
            f"{who} failed under {image} after the deployment had ended ({reasons}); "
            "what can go back is ordered back"
        )
    return f"{who} left {image} after the deployment was completed; nobody ordered that"


def _listeners(event: str) -> list[dict[str, Any]]:
    """Return the receiving ends that want an event, as fields of a delivery."""
    wanted = Q(events=[]) | Q(events__contains=[event])
    return [
        _receiver(each)
        for kind in LISTENERS
        for each in kind._default_manager.filter(wanted, enabled=True).only("pk")
    ]


def _receiver(listener: Listener) -> dict[str, Any]:
    return {f"{listener.delivery_field}_id": listener.pk}


def _described(deployment: Deployment) -> dict[str, Any]:
    firmware = deployment.firmware
    described: dict[str, Any] = {
        "id": str(deployment.pk),
        "name": deployment.name,
        "status": str(deployment.status),
        "strategy": str(deployment.strategy),
        "firmware": {
            "id": str(firmware.pk),
            "model": firmware.model.name,
            "version": firmware.version,
        },
    }
    if deployment.live_fleet:
        described["liveFleet"] = str(deployment.live_fleet)
    return described


def tell_test(listener: Listener, *, now: datetime) -> Delivery:
    """Write down a notification that tells one listener nothing but that it works."""
    data = {"message": f"A test of this {listener.kind}: nothing happened."}
    event = f"{listener.kind}.test"
    (delivery,) = _put(event, data, [_receiver(listener)], now=now, due=now)
    return delivery


def _put(
    event: str,
    data: dict[str, Any],
    listeners: Sequence[dict[str, Any]],
    *,
    now: datetime,
    due: datetime,
) -> list[Delivery]:
    at = now.astimezone(UTC).isoformat().replace("+00:00", "Z")
    notification = Notification.objects.create(
        type=event, at=now, payload={"type": event, "timestamp": at, "data": data}
    )
    deliveries = Delivery.objects.bulk_create(
        Delivery(
            notification=notification,
            # The order of the events; the moment of several may be the same.
            created_at=timezone.now(),
            next_attempt_at=due,
            **listener,
        )
        for listener in listeners
    )
    transaction.on_commit(wake_a_worker, robust=True)
    return deliveries


def wake_a_worker() -> None:
    """Say that there is work. Without Redis the beat finds it."""
    current_app.send_task(TASK, retry=False, ignore_result=True)


def erase_name(removed_from: Callable[[str], str], text: str) -> None:
    """Take the name of an erased device out of what was or will be told.

    Args:
        removed_from: gives a text without the name.
        text: the name itself.
    """
    found = Notification.objects.filter(
        Q(payload__data__message__icontains=text)
        | Q(payload__data__deployment__name__icontains=text)
        | Q(payload__data__devices__contains=[{"id": text}])
    )
    for each in found.select_for_update(no_key=True).order_by("pk"):
        data = each.payload["data"]
        data["message"] = removed_from(data["message"])
        if "deployment" in data:
            data["deployment"]["name"] = removed_from(data["deployment"]["name"])
        for device in data.get("devices", ()):
            device["id"] = removed_from(device["id"])
        each.save(update_fields=["payload"])
