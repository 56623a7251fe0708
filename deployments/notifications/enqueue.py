"""Into the outbox: who is told of what, in the transaction of the event.

Rules:
- Where nobody listens, nothing is written.
- What is told of a deployment waits for more of it where the channel says so, as mail
  does: events that come together are one message (`outbox`).
- What happens to single devices is gathered: those of one deployment that meet with
  the same within seconds share a notification, which names the first hundred and
  counts all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import current_app
from django.db import transaction
from django.db.models import Count, Q
from django.utils import timezone

from deployments.models import (
    Delivery,
    Deployment,
    Notification,
    Receiver,
    Stage,
    Target,
)
from deployments.notifications.channels.registry import CHANNELS, OF_MODEL
from deployments.rules.events import NOTIFIED, EventName
from deployments.services.progress import JUDGED_FAILED
from firmware.models import Firmware, SigningKey
from hotswap.common.models import User
from hotswap.common.pluralize import counted

TASK = "deployments.tasks.send_notifications"
# How long a notification about devices waits for more of them.
GATHERING = timedelta(seconds=5)
NAMED_DEVICES = 100
# Of the devices that failed, and of the reasons why, in an event of their deployment.
NAMED_FAILURES = 10
NOTES_LENGTH = 2000


def enqueue(
    deployment: Deployment,
    event: EventName,
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
    if event not in NOTIFIED:
        return
    receivers = _receivers(event)
    if not receivers:
        return
    data: dict[str, Any] = {"deployment": _described(deployment), "message": message}
    data |= details or {}
    if event == EventName.PAUSED:
        data["reason"] = str(deployment.pause_reasons[-1])
    stage = (
        Stage.objects.filter(deployment=deployment, number=stage_number).first()
        if stage_number is not None
        else None
    )
    if stage is not None:
        data["stage"] = {"number": stage.number, "name": stage.name, "size": stage.size}
    failures = _failures(deployment) if event.names_failures else None
    if failures is not None:
        data["failures"] = failures
    _put(event, data, receivers, now=now, due=now)


def _failures(deployment: Deployment) -> dict[str, Any] | None:
    """Name the devices that failed until now, the last of them first, and why."""
    failed = Target.objects.filter(
        deployment=deployment,
        status__in=JUDGED_FAILED,
        device__erased_at__isnull=True,
    ).exclude(error_code="")
    reasons = list(
        failed.values("error_code")
        .annotate(devices=Count("pk"))
        .order_by("-devices", "error_code")
    )
    if not reasons:
        return None
    named = failed.order_by("-stage_number", "rank").values_list(
        "device__device_id", "error_code"
    )
    return {
        "total": sum(row["devices"] for row in reasons),
        "reasons": [
            {"errorCode": row["error_code"], "devices": row["devices"]}
            for row in reasons[:NAMED_FAILURES]
        ],
        "devices": [
            {"id": device, "errorCode": code} for device, code in named[:NAMED_FAILURES]
        ],
    }


def enqueue_firmware(
    firmware: Firmware, event: EventName, *, actor: User | None, now: datetime
) -> None:
    """Write down who is to be told that firmware waits, was decided on or is damaged.

    Args:
        actor: who uploaded it or decided; None for the server itself.
    """
    receivers = _receivers(event)
    if not receivers:
        return
    by = actor.username if actor is not None else None
    did = event.value.removeprefix("firmware.")
    message = f"{firmware} was {did} by {by or 'the server'}"
    if event == EventName.FIRMWARE_DAMAGED:
        message = f"the stored image of {firmware} is damaged: {firmware.damage}"
    elif event == EventName.FIRMWARE_UPLOADED:
        message += " and waits for approval"
    elif firmware.status_comment:
        message += f": {firmware.status_comment}"
    described = {
        "id": str(firmware.pk),
        "model": firmware.model.name,
        "version": firmware.version,
        "status": str(firmware.status),
        "size": firmware.size,
        "checksum": firmware.sha256,
        "securityVersion": firmware.security_version,
        "uploadedBy": firmware.uploaded_by.username if firmware.uploaded_by else None,
        "requestComment": firmware.request_comment,
        "releaseNotes": firmware.release_notes[:NOTES_LENGTH],
    }
    data = {"message": message, "by": by, "firmware": described}
    _put(event, data, receivers, now=now, due=now)


def enqueue_devices(
    deployment: Deployment,
    event: EventName,
    *,
    devices: Sequence[dict[str, Any]],
    total: int,
    now: datetime,
    merges: bool,
) -> None:
    """Write down that something happened to devices of a deployment.

    Args:
        devices: what is told of each, with its name as `id`; the first
            `NAMED_DEVICES` are enough.
        total: how many devices there are, one at least.
        merges: add to a notification that still waits for more devices. Whoever does so
            holds its row to the end of the transaction, and so must not wait for other
            devices afterwards.
    """
    receivers = _receivers(event)
    if not receivers:
        return
    waiting = _waiting(deployment, event, now) if merges else None
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
        _put(event, data, receivers, now=now, due=now + GATHERING)
        return
    waiting.payload["data"] = data
    waiting.save(update_fields=["payload"])


def enqueue_fleet(
    event: EventName,
    message: str,
    *,
    devices: Sequence[dict[str, Any]],
    total: int,
    now: datetime,
) -> None:
    """Write down that something happened to devices, whatever deployment they are in.

    Args:
        devices, total: as in `enqueue_devices`.
    """
    receivers = _receivers(event)
    if receivers:
        data = {"message": message, "devices": list(devices), "total": total}
        _put(event, data, receivers, now=now, due=now)


def _waiting(
    deployment: Deployment, event: EventName, now: datetime
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
    event: EventName, image: str, named: Sequence[dict[str, Any]], total: int
) -> str:
    who = named[0]["id"] if total == 1 else counted(total, "device")
    if event == EventName.QUARANTINED:
        return (
            f"{image} has failed on {who} too often and is not offered there again "
            "until it is released"
        )
    if event == EventName.BREACHED:
        reasons = ", ".join(sorted({each["errorCode"] for each in named}))
        return (
            f"{who} failed under {image} after the deployment had ended ({reasons}); "
            "what can go back is ordered back"
        )
    return f"{who} left {image} after the deployment was completed; nobody ordered that"


def _receivers(event: str) -> list[Receiver]:
    """Return those who want an event."""
    wanted = Q(events=[]) | Q(events__contains=[event])
    return [
        each
        for channel in CHANNELS
        for each in channel.model._default_manager.filter(wanted, enabled=True).only(
            "pk"
        )
    ]


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


def enqueue_duplicate(
    device_name: str, deployment: Deployment | None, *, now: datetime
) -> None:
    """Write down that two boards have the identity of one device.

    Args:
        deployment: the latest of the device, if it has taken part in any.
    """
    event = EventName.DUPLICATE_IDENTITY
    receivers = _receivers(event)
    if not receivers:
        return
    data: dict[str, Any] = {
        "message": f"{device_name} is two boards: their heartbeats come by turns",
        "devices": [{"id": device_name}],
        "total": 1,
    }
    if deployment is not None:
        data["deployment"] = _described(deployment)
    _put(event, data, receivers, now=now, due=now)


def enqueue_new_key(device_name: str, *, actor: User | None, now: datetime) -> None:
    """Write down that there is a new key of a device.

    Args:
        actor: who asked for it; None for the device itself.
    """
    event = EventName.KEY_ROTATED
    receivers = _receivers(event)
    if not receivers:
        return
    by = "itself" if actor is None else actor.username
    data = {
        "message": f"{device_name} was given a new API key by {by}",
        "devices": [{"id": device_name}],
        "total": 1,
    }
    _put(event, data, receivers, now=now, due=now)


def enqueue_signing_key(key: SigningKey, *, now: datetime) -> None:
    """Write down that a retiring signing key ends soon."""
    event = EventName.SIGNING_KEY_EXPIRING
    receivers = _receivers(event)
    if not receivers or key.not_after is None:
        return
    ends = key.not_after.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    message = (
        f"the signing key {key.key_id} is trusted until {ends}; a device that has "
        "pinned no other takes no update afterwards"
    )
    data = {"message": message, "signingKey": {"id": key.key_id, "expiresAt": ends}}
    _put(event, data, receivers, now=now, due=now)


def enqueue_audit_anchor(anchor: Mapping[str, Any], *, now: datetime) -> None:
    """Write down a signed end of the audit trail's chain, for receivers to keep.

    Args:
        anchor: as its file has it.
    """
    event = EventName.AUDIT_ANCHORED
    receivers = _receivers(event)
    if receivers:
        message = f"the audit trail is anchored at position {anchor['position']}"
        data = {"message": message, "anchor": dict(anchor)}
        _put(event, data, receivers, now=now, due=now)


def enqueue_test(receiver: Receiver, *, now: datetime) -> Delivery:
    """Write down a notification that tells one receiver nothing but that it works."""
    data = {"message": f"A test of this {receiver.kind}: nothing happened."}
    event = f"{receiver.kind}.test"
    (delivery,) = _put(event, data, [receiver], now=now, due=now)
    return delivery


def _put(
    event: str,
    data: dict[str, Any],
    receivers: Sequence[Receiver],
    *,
    now: datetime,
    due: datetime,
) -> list[Delivery]:
    at = now.astimezone(UTC).isoformat().replace("+00:00", "Z")
    notification = Notification.objects.create(
        type=event, at=now, payload={"type": event, "timestamp": at, "data": data}
    )
    rows = []
    for receiver in receivers:
        channel = OF_MODEL[type(receiver)]
        waits_for_more = "deployment" in data and channel.gathering
        row = Delivery(
            notification=notification,
            # The order of the events; the moment of several may be the same.
            created_at=timezone.now(),
            next_attempt_at=max(due, now + channel.gathering)
            if waits_for_more
            else due,
        )
        setattr(row, channel.key, receiver.pk)
        rows.append(row)
    deliveries = Delivery.objects.bulk_create(rows)
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
        | Q(payload__data__failures__devices__contains=[{"id": text}])
    )
    for each in found.select_for_update(no_key=True).order_by("pk"):
        data = each.payload["data"]
        data["message"] = removed_from(data["message"])
        if "deployment" in data:
            data["deployment"]["name"] = removed_from(data["deployment"]["name"])
        failed = data.get("failures", {}).get("devices", ())
        for device in (*data.get("devices", ()), *failed):
            device["id"] = removed_from(device["id"])
        each.save(update_fields=["payload"])
