"""Giving orders: what a device gets when it polls (FR-FW-004).

Rules:
- A poll repeats the open order until its claim, then answers nothing.
- An order exists from the moment it is offered; a device that never polls has none.
- Going back comes before going forward; of several deployments the older wins.
- A deployment may give so many orders a minute and no more, may spread the start of
  each stage, and a device may have a window of its own: what comes too early is
  postponed, with the time and the reason.
- What a device runs is looked at again at the offer: it may have changed since the
  plan was frozen.
- A device that does not report secure boot, where its model requires it, gets no
  install; its way back stays open.
- An image that lies damaged in the store is not offered, nor is an order for it
  repeated, until it is repaired.
- Manifest and image are signed by one key: the active one, or a retiring one for a
  device that has pinned that alone. An order under a revoked key gets a manifest anew.
"""

import secrets
from base64 import b64encode
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import Case, Exists, F, Max, OuterRef, Q, When
from opentelemetry import trace

from deployments.choices import (
    DeploymentStatus,
    Level,
    OrderKind,
    TargetStatus,
)
from deployments.models import (
    Deployment,
    Event,
    Quarantine,
    Stage,
    Target,
    Update,
)
from deployments.services.log import log
from deployments.services.sweeps import LOCKED_SAID
from deployments.services.targeting import REASONS
from deployments.spread import share_of
from deployments.windows import DEVICE_ZONE
from devices.models import Device
from firmware import signing
from firmware.choices import FirmwareStatus
from firmware.models import Firmware
from firmware.services.keys import image_signature
from firmware.services.registry import manifest_for
from health.models import DeviceState
from health.services.heartbeats import has_secure_boot, note_contact
from health.services.watching import Watch, fresh_sample, limits_to_json, watch

MAX_SKIPS = 20
MINUTE = timedelta(minutes=1)
PACE_LOCK = 0x50414345


@dataclass(frozen=True, slots=True)
class PollAnswer:
    """The instruction, if there is one, and when to ask again."""

    instruction: dict[str, Any] | None
    interval: timedelta


def poll(
    *,
    device: Device,
    now: datetime,
    base_url: str,
    trusted: frozenset[str] | None = None,
) -> PollAnswer:
    """Answer a device that asks for work.

    Args:
        base_url: scheme and host for the download address.
        trusted: names of the signing keys that the device has pinned; None where it
            does not say.
    """
    note_contact(device=device, now=now)
    update = _open_update(device)
    if update is None:
        update = _offer(device, now, trusted)
    is_deploying = update is not None or planned_targets(device).exists()
    interval = (
        settings.POLL_INTERVAL_DEPLOYING if is_deploying else settings.POLL_INTERVAL
    )
    if update is None or update.claimed_at is not None or is_withheld(update):
        return PollAnswer(None, interval)
    if update.firmware.signature_revoked_at is not None:
        return PollAnswer(None, interval)
    _renew_manifest(update, trusted, now)
    signature = image_signature(update.firmware, update.manifest.key)
    if signature is None:
        return PollAnswer(None, interval)
    return PollAnswer(_instruction(update, signature, base_url), interval)


def is_withheld(update: Update) -> bool:
    """Tell whether an open order is not repeated: its image lies damaged in the store.

    A return is: devices keep the image that they go back to. What lies damaged leaves
    the server in neither case.
    """
    return (
        update.kind == OrderKind.INSTALL
        and update.claimed_at is None
        and update.firmware.damaged_at is not None
    )


def _open_update(device: Device) -> Update | None:
    return (
        Update.objects.select_related(
            "firmware__model", "firmware__key", "manifest__key", "deployment"
        )
        .filter(device=device, closed_at__isnull=True)
        .first()
    )


def _renew_manifest(
    update: Update, trusted: frozenset[str] | None, now: datetime
) -> None:
    """Sign an open order anew if its key is out of use, or unknown to the device."""
    key = update.manifest.key
    if key.may_sign(now) and (trusted is None or key.key_id in trusted):
        return
    manifest = manifest_for(
        update.firmware, above=update.manifest_id - 1, trusted=trusted
    )
    if manifest.pk != update.manifest_id:
        Update.objects.filter(pk=update.pk).update(manifest=manifest)
        update.manifest = manifest


def planned_targets(device: Device) -> Any:
    """Targets of this device that a running deployment still has plans for."""
    return Target.objects.filter(
        device=device,
        status__in=[TargetStatus.PENDING, TargetStatus.ROLLING_BACK],
        deployment__status__in=[
            DeploymentStatus.RUNNING,
            DeploymentStatus.PAUSED,
            DeploymentStatus.ROLLING_BACK,
        ],
    )


def offerable_targets(device: Device, now: datetime) -> Any:
    """Targets that this device may be given an order for now, the first one first."""
    returning = Q(
        status=TargetStatus.ROLLING_BACK,
        from_firmware__isnull=False,
        from_firmware__signature_revoked_at__isnull=True,
    )
    installing = Q(
        status=TargetStatus.PENDING,
        deployment__status=DeploymentStatus.RUNNING,
        deployment__cancel_requested_at__isnull=True,
        rank__lte=F("deployment__open_rank"),
        deployment__firmware__status__in=[
            FirmwareStatus.APPROVED,
            FirmwareStatus.DEPRECATED,
        ],
        deployment__firmware__damaged_at__isnull=True,
        deployment__firmware__signature_revoked_at__isnull=True,
    ) & (Q(next_attempt_at__isnull=True) | Q(next_attempt_at__lte=now))
    return (
        Target.objects.filter(device=device)
        .filter(returning | installing)
        # Returns first, and of those the way back in the order of the way there.
        .order_by(
            "-status",
            Case(When(status=TargetStatus.ROLLING_BACK, then=F("exposed_at"))).desc(),
            "deployment__created_at",
            "pk",
        )
    )


def has_moved_on(deployment: Deployment) -> Exists:
    """Return the condition that a later deployment has updated the target's device.

    What the later one put there is not for this one to undo. A device that shows the
    image of this deployment again has come back to it, unless the later one brought
    the same image.
    """
    later = Target.objects.filter(
        device=OuterRef("device"),
        status=TargetStatus.SUCCESS,
        deployment__created_at__gt=deployment.created_at,
    )
    return Exists(
        later.filter(
            Q(deployment__firmware=deployment.firmware_id)
            | ~Q(device__firmware_checksum=deployment.firmware.sha256)
        )
    )


def _offer(
    device: Device, now: datetime, trusted: frozenset[str] | None
) -> Update | None:
    """Write the next order of a device, if there is one to give."""
    if device.revoked_at is not None:
        return None
    for _ in range(MAX_SKIPS):
        first = offerable_targets(device, now).values_list("pk", flat=True).first()
        if first is None:
            return None
        try:
            with transaction.atomic():
                update = _offer_target(device, first, now, trusted)
        except IntegrityError:
            # Another poll of the same device was first: its order is the answer.
            return _open_update(device)
        if update is not None:
            return update
    return None


def _offer_target(
    device: Device, target_id: int, now: datetime, trusted: frozenset[str] | None
) -> Update | None:
    """Write an order for one target, or find that it needs none."""
    _take_turn(target_id)
    target = (
        Target.objects.select_for_update(of=("self",), no_key=True)
        .select_related(
            "deployment__firmware__model", "deployment__firmware__key", "from_firmware"
        )
        .get(pk=target_id)
    )
    deployment = target.deployment
    if target.status not in (TargetStatus.PENDING, TargetStatus.ROLLING_BACK):
        return None
    if Target.objects.filter(has_moved_on(deployment), pk=target.pk).exists():
        _set_aside(target, "moved_on", "a later deployment has updated the device", now)
        return None
    if target.status == TargetStatus.ROLLING_BACK:
        firmware = target.from_firmware
        if firmware is None:
            return None
        if device.security_version > firmware.security_version:
            _forbid_return(target, now)
            return None
        return _write_order(device, target, firmware, OrderKind.ROLLBACK, now, trusted)
    # Read again under the lock: a pause or a cancel may have come in between.
    if (
        deployment.status != DeploymentStatus.RUNNING
        or deployment.cancel_requested_at is not None
    ):
        return None
    firmware = deployment.firmware
    if not device.enabled:
        _set_aside(target, "disabled", "the device is disabled for updates", now)
        return None
    if device.model_id != firmware.model_id:
        _set_aside(target, "wrong_model", "the device is of another model", now)
        return None
    if device.security_version > firmware.security_version:
        _set_aside(
            target,
            "security_version",
            "the device has proved a higher security version",
            now,
        )
        return None
    kept = Quarantine.objects.active().filter(device=device, firmware=firmware)
    if kept.exists():
        _set_aside(target, "quarantined", REASONS["quarantined"], now)
        return None
    if firmware.model.requires_secure_boot and not has_secure_boot(device.pk):
        _set_aside(
            target,
            "secure_boot_required",
            "its model requires secure boot, and its last report is not that it is on",
            now,
        )
        return None
    postponed = _postponed_until(target, device, now)
    if postponed is not None:
        target.next_attempt_at, target.message = postponed
        target.save(update_fields=["next_attempt_at", "message"])
        return None
    if target.exposed_at is None:
        if device.firmware_checksum == firmware.sha256:
            _set_aside(target, "already_installed", "it ran this image already", now)
            return None
        target.from_version = device.firmware_version
        target.from_checksum = device.firmware_checksum
        target.from_firmware = _running_image(device)
    return _write_order(device, target, firmware, OrderKind.INSTALL, now, trusted)


def _take_turn(target_id: int) -> None:
    """Let one poll at a time count the orders of a deployment that is paced.

    The deployment's row is the tick's to lock, so this is a lock beside it; it is
    taken before that of the target, and ends with the transaction.
    """
    paced = (
        Deployment.objects.filter(
            targets=target_id, max_devices_per_minute__isnull=False
        )
        .values_list("pk", flat=True)
        .first()
    )
    if paced is not None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_advisory_xact_lock(%s, hashtext(%s))",
                [PACE_LOCK, str(paced)],
            )


def _postponed_until(
    target: Target, device: Device, now: datetime
) -> tuple[datetime, str] | None:
    """Return until when an order must wait, and why; None if it may be given."""
    deployment = target.deployment
    window = deployment.window
    if window is not None and window.zone == DEVICE_ZONE:
        opening = window.opening_after(now, window.zone_of(device.tags))
        if opening is not None:
            return opening, "outside of its maintenance window"
    if deployment.start_spread and target.exposed_at is None:
        turn = _turn_of(target)
        if turn > now:
            return turn, "the start of its stage is spread, and its turn comes later"
    limit = deployment.max_devices_per_minute
    if limit is not None:
        given = Update.objects.filter(
            deployment=deployment,
            kind=OrderKind.INSTALL,
            offered_at__gt=now - MINUTE,
        )
        latest = given.order_by("-offered_at").values_list("offered_at", flat=True)
        # The order that must be a minute old before there is a place again.
        place = latest[limit - 1 : limit].first()
        if place is not None:
            return place + MINUTE, f"{limit} devices a minute are the most"
    return None


def _turn_of(target: Target) -> datetime:
    """Return when a device may have its first order, where the start is spread.

    Counted from the opening of its stage, or from when the deployment went on: what
    waits together must not start together.
    """
    deployment = target.deployment
    opened = (
        Stage.objects.filter(deployment=deployment, number=target.stage_number)
        .values_list("opened_at", flat=True)
        .get()
    )
    began = max(at for at in (opened, deployment.resumed_at) if at is not None)
    return began + share_of(
        deployment.start_spread, f"{deployment.pk} {target.device_id}"
    )


def _running_image(device: Device) -> Firmware | None:
    """Return the image that a device runs, if it is on the server.

    Of several versions with the same bytes it is the one that the device names, then
    one that was approved, then the newest.
    """
    found = Firmware.objects.filter(
        model_id=device.model_id, sha256=device.firmware_checksum
    )
    return max(
        found,
        key=lambda firmware: (
            firmware.version == device.firmware_version,
            firmware.status in (FirmwareStatus.APPROVED, FirmwareStatus.DEPRECATED),
            firmware.created_at,
        ),
        default=None,
    )


def _set_aside(target: Target, code: str, message: str, now: datetime) -> None:
    """End a target without another order: skipped, or failed if an attempt failed."""
    has_failed = target.status == TargetStatus.PENDING and target.exposed_at is not None
    target.status = TargetStatus.FAILED if has_failed else TargetStatus.SKIPPED
    target.next_attempt_at = None
    target.error_code = code
    target.message = message
    target.settled_at = now
    target.updated_at = now
    target.save()
    log(
        target.deployment,
        "device.failed" if has_failed else "device.skipped",
        f"{message}; it cannot be tried again" if has_failed else message,
        now=now,
        level=Level.ERROR if has_failed else Level.INFO,
        device=target.device,
        stage_number=target.stage_number,
    )


def _forbid_return(target: Target, now: datetime) -> None:
    """End a return that the device would have to refuse."""
    target.status = TargetStatus.FAILED
    target.error_code = "rollback_forbidden"
    target.message = LOCKED_SAID
    target.settled_at = now
    target.updated_at = now
    target.save()
    log(
        target.deployment,
        "device.return_failed",
        f"rollback_forbidden: {LOCKED_SAID}",
        now=now,
        level=Level.ERROR,
        device=target.device,
        stage_number=target.stage_number,
    )


def _write_order(
    device: Device,
    target: Target,
    firmware: Firmware,
    kind: OrderKind,
    now: datetime,
    trusted: frozenset[str] | None,
) -> Update:
    deployment = target.deployment
    thresholds = deployment.thresholds
    last = Update.objects.filter(device=device).aggregate(last=Max("manifest_id"))[
        "last"
    ]
    latest = (
        Update.objects.filter(device=device).order_by("-offered_at").first()
        if last
        else None
    )
    # The same image again may come under the same manifest; anything else must be
    # newer than all that the device has seen.
    repeats = latest is not None and latest.firmware_id == firmware.pk
    above = 0 if last is None else last - 1 if repeats else last
    is_install = kind is OrderKind.INSTALL
    if is_install:
        target.attempt += 1
    else:
        target.rollback_attempt += 1
    update = Update(
        target=target,
        deployment=deployment,
        device=device,
        kind=kind,
        firmware=firmware,
        manifest=manifest_for(firmware, above=above, trusted=trusted),
        attempt=target.attempt if is_install else target.rollback_attempt,
        offered_at=now,
        deadline=now + deployment.device_timeout,
        reboot_required=firmware.reboot_required,
        traceparent=_traceparent(deployment),
    )
    limits = thresholds.limits
    if not is_install:
        # What it suffers now is the fault of the image that it is to leave: only what
        # was wrong before the update is pardoned on the way back.
        limits = replace(limits, exempt=_exempt_before(target))
    state = watch(
        device_id=device.pk,
        watch=Watch(
            watch_id=update.pk,
            image_checksum=firmware.sha256,
            limits=limits,
            offline_after=thresholds.offline_after,
            interval=deployment.heartbeat_interval,
            until=update.deadline + deployment.watch_after_claim,
            pardons_present=is_install,
        ),
        now=now,
    )
    update.boot_id_before = state.boot_id
    before = fresh_sample(state, now)
    if before is not None:
        update.baseline = {
            "cpuUsage": before.cpu_percent,
            "memoryUsage": before.memory_percent,
            "errorRate": before.error_ratio,
            "at": before.at.isoformat(),
        }
    exempt: list[str] = (state.limits or limits_to_json(thresholds.limits))["exempt"]
    update.exempt = exempt
    if _runs_already(state, firmware):
        # Nothing has to change, so no reboot can be asked for as proof: what it runs
        # after its claim is the proof.
        update.reboot_required = False
    update.save(force_insert=True)
    if is_install:
        target.status = TargetStatus.NOTIFIED
        target.error_code = ""
        target.message = ""
    target.exposed_at = target.exposed_at or now
    target.settled_at = None
    target.next_attempt_at = None
    target.updated_at = now
    target.save()
    word = "offered" if is_install else "ordered back to"
    attempt = f", attempt {update.attempt}" if update.attempt > 1 else ""
    Event.objects.create(
        deployment=deployment,
        at=now,
        level="INFO",
        event="device.notified" if is_install else "device.ordered_back",
        device=device,
        stage_number=target.stage_number,
        message=f"{word} {firmware.version}{attempt}"
        + (f"; not judged by {', '.join(exempt)}" if exempt else "")
        + ("" if before else "; its baseline is unknown: judged by the limits alone"),
    )
    return update


def _exempt_before(target: Target) -> frozenset[str]:
    """Return the triggers that the device exceeded before its first order."""
    first = (
        Update.objects.filter(target=target, kind=OrderKind.INSTALL)
        .order_by("offered_at")
        .first()
    )
    return frozenset(first.exempt if first is not None else ())


def _runs_already(state: DeviceState, firmware: Firmware) -> bool:
    return state.firmware_checksum == firmware.sha256


def _traceparent(deployment: Deployment) -> str:
    """Return the W3C trace context that links the device's spans to the deployment."""
    context = trace.get_current_span().get_span_context()
    span = (
        trace.format_span_id(context.span_id)
        if context.is_valid
        else secrets.token_hex(8)
    )
    return f"00-{deployment.pk.hex}-{span}-01"


def _instruction(update: Update, signature: str, base_url: str) -> dict[str, Any]:
    firmware = update.firmware
    return {
        "updateId": str(update.pk),
        "deploymentId": str(update.deployment_id),
        "action": update.kind,
        "firmware": {
            "id": str(firmware.pk),
            "version": firmware.version,
            "model": firmware.model.name,
            "size": firmware.size,
            "checksum": firmware.sha256,
            "signature": signature,
            "signatureAlgorithm": signing.ALGORITHM,
            "keyId": update.manifest.key.key_id,
            "downloadUrl": f"{base_url}/api/v1/firmware/{firmware.pk}/download",
        },
        "manifest": b64encode(bytes(update.manifest.body)).decode(),
        "manifestSignature": update.manifest.signature,
        "rebootRequired": update.reboot_required,
        "deadline": update.deadline.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "confirmationSeconds": int(
            update.deployment.criteria.confirmation_duration.total_seconds()
        ),
        "traceparent": update.traceparent,
    }


def downloadable_firmware(*, device: Device, firmware_id: UUID) -> Firmware | None:
    """Return a firmware if the device has an open order for it."""
    update = (
        Update.objects.select_related("firmware")
        .filter(
            device=device,
            firmware_id=firmware_id,
            firmware__signature_revoked_at__isnull=True,
            closed_at__isnull=True,
        )
        .first()
    )
    return None if update is None else update.firmware
