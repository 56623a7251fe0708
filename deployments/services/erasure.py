"""What this app holds about one device: given out, and taken away.

Rules:
- The rows of its targets and orders stay, under its pseudonym, so that what past
  deployments count stays true. What the device or people said of it goes.
- Locks are taken in the order of the tick: deployments, orders, targets. The caller
  goes on with the state and then the device itself.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Model, Q

from deployments.models import Deployment, Event, Report, Rollback, Target, Update
from deployments.notifications.enqueue import erase_name
from deployments.services import sweeps
from devices.models import Device
from devices.services.erasure import Name, Sections
from firmware.choices import ABSENT
from firmware.models import Manifest

CHUNK = 500
DEPLOYMENT_TEXTS = (
    *("name", "pause_detail", "rollback_reason", "failure_reason", "waiting_for"),
)


def erase_deployment_data(*, device: Device, now: datetime) -> None:
    """Cancel what is open and forget what was said; call it in the erasure."""
    name = Name(device.device_id)
    _leave_deployments(name)
    updates = Update.objects.filter(device=device)
    list(updates.select_for_update(no_key=True).order_by("pk").values("pk"))
    targets = Target.objects.filter(device=device)
    list(targets.select_for_update(no_key=True).order_by("pk").values("pk"))
    # A poll may have written an order before its target was locked here.
    list(updates.select_for_update(no_key=True).order_by("pk").values("pk"))
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('hotswap.erasing', 'on', true)")
    Event.objects.filter(device=device).update(message="")
    own = Deployment.objects.filter(pk__in=targets.values("deployment"))
    for event in Event.objects.filter(
        Q(device__isnull=True) | Q(deployment__in=own),
        message__contains=device.device_id,
    ).iterator(CHUNK):
        message = name.removed_from(event.message)
        Event.objects.filter(pk=event.pk).update(message=message)
    Report.objects.filter(update__device=device).delete()
    updates.update(
        message="", boot_id_before="", baseline={}, durations={}, traceparent=""
    )
    targets.update(message="")
    # A leave to go back to the other slot names the device.
    Manifest.objects.filter(update__device=device, firmware__status=ABSENT).update(
        body=b"", signature=""
    )
    for rows in (updates, targets):
        rows.filter(error_code__contains=device.device_id).update(error_code="failed")
    sweeps.end_targets_of(device.pk, now)


def erase_from_notifications(*, device: Device, now: datetime) -> None:
    """Forget the name in what is told; call it last in the erasure.

    A heartbeat may tell of the device while it holds the state. By now the erasure
    holds that, so whatever was told of the device is there to be found.
    """
    erase_name(Name(device.device_id).removed_from, device.device_id)


def _leave_deployments(name: Name) -> None:
    """Take the name out of the selections and texts of deployments."""
    mentions = Q(selection__device_ids__contains=[name.text])
    for field in DEPLOYMENT_TEXTS:
        mentions |= Q(**{f"{field}__contains": name.text})
    found = Deployment.objects.select_for_update(no_key=True).filter(mentions)
    for deployment in found.order_by("pk"):
        listed = deployment.selection["device_ids"]
        deployment.selection["device_ids"] = [x for x in listed if x != name.text]
        for field in DEPLOYMENT_TEXTS:
            text = getattr(deployment, field)
            setattr(deployment, field, name.removed_from(text))
        deployment.save(update_fields=["selection", *DEPLOYMENT_TEXTS])
    for rollback in Rollback.objects.filter(reason__contains=name.text):
        rollback.reason = name.removed_from(rollback.reason)
        rollback.save(update_fields=["reason"])
    # A device may have reported a code that names it.
    for rollback in Rollback.objects.filter(facts__icontains=name.text):
        facts = rollback.facts
        for row in (*facts.get("reasons", []), *facts.get("failedDevices", [])):
            if name.text in row["errorCode"]:
                row["errorCode"] = "failed"
        rollback.save(update_fields=["facts"])


def export_deployment_data(*, device: Device) -> Sections:
    """Give out targets, orders, reports and log lines of a device, oldest first."""
    yield (
        "deploymentTargets",
        _rows(
            Target.objects.filter(device=device).select_related("deployment"),
            lambda row: {
                "deploymentId": row.deployment_id,
                "deployment": row.deployment.name,
                "status": row.status,
                "stage": row.stage_number,
                "rank": row.rank,
                "attempt": row.attempt,
                "fromVersion": row.from_version,
                "fromChecksum": row.from_checksum,
                "errorCode": row.error_code,
                "message": row.message,
                "exposedAt": row.exposed_at,
                "settledAt": row.settled_at,
                "updatedAt": row.updated_at,
            },
        ),
    )
    yield (
        "updates",
        _rows(
            Update.objects.filter(device=device)
            .select_related("firmware")
            .order_by("offered_at", "pk"),
            lambda row: {
                "updateId": row.pk,
                "number": row.number,
                "deploymentId": row.deployment_id,
                "action": row.kind,
                "version": row.firmware.version,
                "status": row.status,
                "attempt": row.attempt,
                "offeredAt": row.offered_at,
                "installingAt": row.installing_at,
                "rebootingAt": row.rebooting_at,
                "claimedAt": row.claimed_at,
                "closedAt": row.closed_at,
                "bootIdBefore": row.boot_id_before,
                "bootCountBefore": row.boot_count_before,
                "healthBefore": row.baseline,
                "notJudgedBy": row.exempt,
                "errorCode": row.error_code,
                "message": row.message,
                "durations": row.durations,
            },
            is_ordered=True,
        ),
    )
    yield (
        "reports",
        _rows(
            Report.objects.filter(update__device=device),
            lambda row: {
                "updateId": row.update_id,
                "receivedAt": row.received_at,
                "wasApplied": row.was_applied,
                "body": row.body,
            },
        ),
    )
    yield (
        "events",
        _rows(
            Event.objects.filter(device=device),
            lambda row: {
                "deploymentId": row.deployment_id,
                "at": row.at,
                "level": row.level,
                "event": row.event,
                "stage": row.stage_number,
                "message": row.message,
            },
        ),
    )


def _rows(rows: Any, shape: Any, *, is_ordered: bool = False) -> Iterator[Any]:
    found: Iterator[Model] = (rows if is_ordered else rows.order_by("pk")).iterator(
        CHUNK
    )
    return (shape(row) for row in found)
