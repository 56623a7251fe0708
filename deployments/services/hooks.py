"""What lower apps ask of this one; named by dotted path in the settings."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Count, Q
from django.utils import timezone

from deployments.choices import (
    CANCELLABLE,
    DeploymentStatus,
    OrderKind,
    UpdateStatus,
)
from deployments.exceptions import WrongStatusError
from deployments.models import Deployment, Event, Target, Update
from deployments.notifications import enqueue
from deployments.notifications.enqueue import (
    enqueue_devices,
    enqueue_duplicate,
    enqueue_fleet,
    enqueue_new_key,
)
from deployments.rules.events import EventName
from deployments.rules.evidence import is_repeated, runs_newer
from deployments.services.offers import find_pending_work
from deployments.services.operate import cancel_deployment
from deployments.services.quarantine import count_failure
from devices.models import Device
from firmware.models import Firmware, SigningKey
from firmware.selectors import (
    CommonImage,
    DeploymentUse,
    FirmwareFigures,
    FirmwareUse,
)
from health.models import DeviceState
from hotswap.common.models import User
from hotswap.common.pluralize import counted
from hotswap.common.rows import prepared_cursor

# Whether a device has an order, and whether it has ever carried one out.
ORDERS = """
    SELECT EXISTS (SELECT FROM deployments_update
                   WHERE device_id = %(device)s AND closed_at IS NULL),
           EXISTS (SELECT FROM deployments_update
                   WHERE device_id = %(device)s AND closed_at IS NOT NULL
                     AND status = 'success')
"""


NEWEST_INSTALL = """
    SELECT u.status <> 'success' FROM deployments_update u
    JOIN firmware_firmware f ON f.id = u.firmware_id
    WHERE u.device_id = %s AND u.kind = 'install' AND f.sha256 = %s
    ORDER BY u.offered_at DESC LIMIT 1
"""


def is_unproved(*, device_id: UUID, checksum: str) -> bool:
    """Tell whether an image was ordered for a device, and not proved by it.

    One that nobody ordered is not: the device came with it, or got it by other means.
    """
    with prepared_cursor() as cursor:
        cursor.execute(NEWEST_INSTALL, [device_id, checksum])
        return bool(cursor.fetchone() == (True,))


def is_update_available(*, device: Device, now: datetime) -> tuple[bool, bool]:
    """Tell whether a poll would bring an order, and whether a deployment is at work.

    The second is what makes a device report every 30 seconds.
    """
    work = find_pending_work(device.pk, now)
    if not work.has_order:
        is_available = work.target_id is not None
        return is_available, is_available or work.is_planned
    order = (
        Update.objects.select_related("firmware")
        .only(
            *("kind", "claimed_at", "firmware__damaged_at"),
            "firmware__signature_revoked_at",
        )
        .filter(device=device, closed_at__isnull=True)
        .first()
    )
    if order is None:
        # Closed in this moment: the next heartbeat will tell.
        return False, True
    return is_repeated(order), True


def note_running_firmware(*, device: Device, now: datetime) -> None:
    """Log and tell that a device left the image of a finished deployment by itself.

    It counts towards the quarantine of that image on the device. While the deployment
    is open, or watches its devices after its end, its tick finds the same fact and acts
    on it. A device that finishes an install which was withdrawn meanwhile has left
    nothing by itself: that install was ordered.
    """
    with prepared_cursor() as cursor:
        cursor.execute(ORDERS, {"device": device.pk})
        if cursor.fetchone() != (False, True):
            return
    last = (
        Update.objects.select_related("deployment", "firmware", "target")
        .filter(device=device, closed_at__isnull=False, status="success")
        .order_by("-closed_at")
        .first()
    )
    if last is None or last.deployment.status != DeploymentStatus.COMPLETED:
        return
    if last.firmware.sha256 == device.firmware_checksum:
        return
    if _is_watched(last) or _was_ordered_since(last, device):
        return
    if Target.objects.filter(runs_newer(last.deployment), pk=last.target_id).exists():
        _log(
            last,
            device,
            EventName.MOVED_ON,
            f"it runs {device.firmware_version}, which is newer and not of any "
            "deployment known here",
            now,
        )
        return
    _log_and_enqueue(
        last,
        device,
        EventName.FELL_BACK,
        f"it runs {device.firmware_version} instead of {last.firmware.version}, and "
        "nobody ordered that",
        {"errorCode": "fell_back", "firmwareVersion": device.firmware_version},
        now,
    )
    if last.kind == OrderKind.INSTALL and _has_just_left(device, last.firmware):
        _count_fall_back(last, device, now)


def _is_watched(order: Update) -> bool:
    """Tell whether the deployment of an order still judges what its device does."""
    return (
        order.deployment.watching_until is not None
        and DeviceState.objects.filter(watch_id=order.pk).exists()
    )


def _was_ordered_since(last: Update, device: Device) -> bool:
    """Tell whether a later order was about the image that the device runs now."""
    later = Update.objects.filter(device=device, offered_at__gt=last.offered_at)
    return later.filter(firmware__sha256=device.firmware_checksum).exists()


def _has_just_left(device: Device, firmware: Firmware) -> bool:
    former = device.firmware_runs.filter(until__isnull=False).order_by("-id").first()
    return former is not None and former.checksum == firmware.sha256


def _count_fall_back(last: Update, device: Device, now: datetime) -> None:
    kept = count_failure(
        device=device, firmware=last.firmware, code="fell_back", now=now
    )
    if kept is not None:
        _log_and_enqueue(
            last,
            device,
            EventName.QUARANTINED,
            f"this firmware has failed on it {kept.failures} times and is not offered "
            "to it again until it is released",
            {"failures": kept.failures, "errorCode": kept.last_code},
            now,
        )


def _log(
    last: Update, device: Device, event: EventName, message: str, now: datetime
) -> None:
    Event.objects.create(
        deployment=last.deployment,
        at=now,
        level=event.level,
        event=event.value,
        device=device,
        stage_number=last.target.stage_number,
        message=message,
    )


def _log_and_enqueue(
    last: Update,
    device: Device,
    event: EventName,
    message: str,
    facts: dict[str, Any],
    now: datetime,
) -> None:
    _log(last, device, event, message, now)
    enqueue_devices(
        last.deployment,
        event,
        devices=[{"id": device.device_id, **facts}],
        total=1,
        now=now,
        merges=True,
    )


def note_refused_heartbeats(*, device: Device, reason: str, now: datetime) -> None:
    """Log in the open deployments of a device that its heartbeats are refused."""
    _log_of_device(
        device,
        EventName.HEARTBEAT_REFUSED,
        f"its heartbeats are refused: {reason}",
        now,
    )


def note_duplicate_identity(*, device: Device, now: datetime) -> None:
    """Log and tell that two boards have the identity of one device."""
    _log_of_device(
        device,
        EventName.DUPLICATE_IDENTITY,
        "two boards send heartbeats under its identity, by turns",
        now,
    )
    latest = (
        Target.objects.select_related("deployment__firmware__model")
        .filter(device=device)
        .order_by("-deployment__created_at")
        .first()
    )
    deployment = None if latest is None else latest.deployment
    enqueue_duplicate(device.device_id, deployment, now=now)


def note_new_key(*, device: Device, actor: User | None, now: datetime) -> None:
    """Tell that a device was given a new key, by a person or itself (None)."""
    enqueue_new_key(device.device_id, actor=actor, now=now)


def enqueue_device_event(
    *, event: str, devices: Sequence[dict[str, Any]], total: int, now: datetime
) -> None:
    """Write down who is to be told of devices that wait, or of what opens them.

    Args:
        event: as in `device.key_expiring`.
        devices: as in `enqueue_fleet`, the most urgent first.
    """
    known = EventName(event)
    message = _sentence(known, devices[0], total)
    enqueue_fleet(known, message, devices=devices, total=total, now=now)


def _sentence(event: EventName, first: dict[str, Any], total: int) -> str:
    name = first["id"]
    match event:
        case EventName.ENROLMENT_WAITING if total == 1:
            return f"{name} ({first['model']}) waits to be enrolled"
        case EventName.ENROLMENT_WAITING:
            return f"{counted(total, 'device')} wait to be enrolled"
        case EventName.RETIRED_KEY_USED:
            return f"a retired API key of {name} was used{_origin(first['address'])}"
    what = "API key" if event == EventName.KEY_EXPIRING else "client certificate"
    if total == 1:
        return f"the {what} of {name} expires at {first['expiresAt']}"
    return (
        f"the {what}s of {counted(total, 'device')} expire soon, "
        f"the first at {first['expiresAt']}"
    )


def _origin(address: str | None) -> str:
    return f" from {address}" if address else ""


def _log_of_device(
    device: Device, event: EventName, message: str, now: datetime
) -> None:
    targets = Target.objects.filter(
        device=device, deployment__in=Deployment.objects.active()
    )
    Event.objects.bulk_create(
        Event(
            deployment_id=target.deployment_id,
            at=now,
            level=event.level,
            event=event.value,
            device=device,
            stage_number=target.stage_number,
            message=message,
        )
        for target in targets
    )


def firmware_use(*, firmware: Firmware) -> FirmwareUse:
    """Count who runs a firmware, and list what is under way with it."""
    ended = Update.objects.filter(firmware=firmware, kind=OrderKind.INSTALL).aggregate(
        proved=Count("pk", filter=Q(status=UpdateStatus.SUCCESS)),
        failed=Count("pk", filter=Q(status=UpdateStatus.FAILED)),
    )
    active = Deployment.objects.active().filter(firmware=firmware)
    of_model = Device.objects.filter(model=firmware.model_id)
    return FirmwareUse(
        device_count=of_model.filter(firmware_checksum=firmware.sha256).count(),
        model_device_count=of_model.count(),
        deployments=tuple(
            DeploymentUse(
                id=each.pk,
                name=each.name,
                status=each.status,
                strategy=each.strategy,
                device_count=each.target_count,
                scheduled_at=each.scheduled_at,
                is_cancellable=_is_cancellable(each),
            )
            for each in active.order_by("created_at", "pk")
        ),
        proved_count=ended["proved"],
        failed_count=ended["failed"],
    )


FIGURES = """
    SELECT f.id,
           (SELECT count(*) FROM devices_device d
            WHERE d.firmware_checksum = f.sha256 AND d.model_id = f.model_id
              AND d.erased_at IS NULL),
           u.proved, u.failed
    FROM firmware_firmware f
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE status = %(proved)s) AS proved,
               count(*) FILTER (WHERE status = %(failed)s) AS failed
        FROM deployments_update
        WHERE firmware_id = f.id AND kind = %(install)s
    ) AS u
    WHERE f.id = ANY(%(firmware)s)
"""
# Counted from `device_image` alone, without the few that are let in no more.
COMMON = """
    WITH counted AS (
        SELECT model_id, firmware_checksum, sum(number) AS number
        FROM (
            SELECT model_id, firmware_checksum, count(*) AS number
            FROM devices_device
            WHERE model_id = ANY(%(models)s) AND erased_at IS NULL
            GROUP BY 1, 2
            UNION ALL
            SELECT model_id, firmware_checksum, -count(*)
            FROM devices_device
            WHERE model_id = ANY(%(models)s) AND erased_at IS NULL
                AND revoked_at IS NOT NULL
            GROUP BY 1, 2
        ) AS parts
        GROUP BY 1, 2
    ), common AS (
        SELECT DISTINCT ON (model_id) *,
               sum(number) OVER (PARTITION BY model_id) AS total
        FROM counted
        WHERE number > 0
        ORDER BY model_id, firmware_checksum = '', number DESC, firmware_checksum
    )
    SELECT model_id, (
        SELECT firmware_version FROM devices_device d
        WHERE d.model_id = common.model_id AND d.erased_at IS NULL
            AND d.firmware_checksum = common.firmware_checksum
        LIMIT 1
    ), firmware_checksum, number, total
    FROM common
    WHERE firmware_checksum <> ''
"""


def firmware_figures(*, firmware_ids: Collection[UUID]) -> dict[UUID, FirmwareFigures]:
    """Count who runs each firmware, and how its install orders have ended."""
    with connection.cursor() as cursor:
        cursor.execute(
            FIGURES,
            {
                "firmware": list(firmware_ids),
                "proved": UpdateStatus.SUCCESS,
                "failed": UpdateStatus.FAILED,
                "install": OrderKind.INSTALL,
            },
        )
        return {pk: FirmwareFigures(*numbers) for pk, *numbers in cursor.fetchall()}


def common_images(*, model_ids: Collection[UUID]) -> dict[UUID, CommonImage]:
    """Return what most devices of each model have reported to run."""
    with connection.cursor() as cursor:
        cursor.execute(COMMON, {"models": list(model_ids)})
        rows = cursor.fetchall()
    images = {
        (each.model_id, each.sha256): each
        for each in Firmware.objects.select_related("model").filter(
            model__in=[row[0] for row in rows], sha256__in=[row[2] for row in rows]
        )
    }
    common = {}
    for model, called, sha256, number, total in rows:
        image = images.get((model, sha256))
        version = called if image is None else image.version
        common[model] = CommonImage(version, image, int(number), int(total))
    return common


def firmware_in_use(*, firmware: Firmware) -> str:
    """Say what still needs a firmware that is to be deleted; "" if nothing does.

    A device that runs the bytes may have to come back to them, and an order is told
    with the firmware that it named. Reads all targets where none names it: deleting
    firmware is rare.
    """
    running = Device.objects.filter(
        model=firmware.model_id, firmware_checksum=firmware.sha256
    ).count()
    if running:
        return f"{counted(running, 'device runs', 'devices run')} it"
    if (
        Update.objects.filter(firmware=firmware).exists()
        or Target.objects.filter(from_firmware=firmware).exists()
    ):
        return "a deployment leads back to it, or has"
    return ""


def enqueue_firmware(*, firmware: Firmware, verb: str, actor: User | None) -> None:
    """Write down who is to be told that firmware was uploaded, decided on or damaged.

    Args:
        verb: what was done, as in `approved`.
    """
    enqueue.enqueue_firmware(
        firmware, EventName(f"firmware.{verb}"), actor=actor, now=timezone.now()
    )


def enqueue_signing_key(*, key: SigningKey, now: datetime) -> None:
    """Write down who is to be told that a signing key ends soon."""
    enqueue.enqueue_signing_key(key, now=now)


def enqueue_audit_anchor(*, anchor: dict[str, Any], now: datetime) -> None:
    """Write down who is to be told that the chain of the audit trail was anchored."""
    enqueue.enqueue_audit_anchor(anchor, now=now)


def cancel_deployments_of(
    *, firmware: Firmware, actor: User, reason: str
) -> list[UUID]:
    """Cancel the deployments of a firmware that is recalled, oldest first.

    Returns:
        Those that were cancelled. What had ended before its lock was taken, goes back
        already or is being cancelled is left alone.
    """
    cancelled = []
    active = Deployment.objects.active().filter(firmware=firmware)
    for deployment in active.order_by("created_at", "pk"):
        if not _is_cancellable(deployment):
            continue
        try:
            cancel_deployment(
                actor=actor,
                deployment_id=deployment.pk,
                reason=f"{firmware} was recalled: {reason}",
            )
        except WrongStatusError:
            # Somebody was first: what is to be stopped has stopped.
            continue
        cancelled.append(deployment.pk)
    return cancelled


def _is_cancellable(deployment: Deployment) -> bool:
    return deployment.status in CANCELLABLE and deployment.cancel_requested_at is None
