"""Offering orders: what a device gets when it polls (FR-FW-004).

Rules:
- A poll repeats the open order until its claim, then answers nothing.
- An order is written when it is offered; a device that never polls has none.
- Of a blue-green deployment one half has open orders at a time, never both.
- A rollback comes before an install; of several deployments the oldest wins.
- The rate limit of a deployment, the start jitter of its stages and a maintenance
  window in the device's own time postpone an order; time and reason are written down.
  Without a known time zone of the device there is no order.
- Eligibility is checked again at the offer: what the device runs may have changed since
  the plan was written.
- A device that does not report secure boot, where its model requires it, gets no
  install; its rollback stays possible.
- A damaged image is not offered, nor is an order for it repeated, until it is repaired.
- A device may return to an image that the server never had, if it keeps it in its other
  slot and reports so: the order permits it to boot that slot, and names no address.
- Manifest and image are signed by one key: the active one, or a retiring one for a
  device that has pinned that alone. An order under a revoked key gets a new manifest.
"""

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction

from deployments.choices import (
    UNFINISHED,
    DeploymentStatus,
    Level,
    OrderKind,
    TargetStatus,
)
from deployments.models import (
    Deployment,
    Quarantine,
    Stage,
    Target,
    Update,
)
from deployments.rules.codes import (
    CODES,
    NO_PREVIOUS_IMAGE,
    ROLLBACK_FORBIDDEN,
    UNKNOWN_TIMEZONE,
    message_of,
)
from deployments.rules.eligibility import Candidate, refusal
from deployments.rules.events import EventName
from deployments.rules.evidence import (
    IS_OFFERABLE,
    has_moved_on,
    is_repeated,
    must_refuse,
)
from deployments.services.log import INTO_LOG, log
from deployments.services.traces import order_context
from deployments.start_jitter import jitter_of
from deployments.strategies.blue_green import BLUE_STAGE, GREEN_STAGE
from deployments.windows import DEVICE_ZONE
from devices.admission import IS_ADMITTED, is_admitted
from devices.models import Device
from firmware import signing
from firmware.choices import ABSENT
from firmware.models import DeviceModel, Firmware, Manifest, SigningKey
from firmware.services.keys import image_signature
from firmware.services.manifests import absent_firmware, manifest_for, sign_slot_return
from health.evaluation import Sample, exceeded
from health.models import DeviceState
from health.services.heartbeats import note_poll
from health.services.watching import BEGIN_WATCH, Watch, fresh_sample, watch_values
from health.triggers import TRIGGERS
from hotswap.common import locks
from hotswap.common.rows import Columns, prepared_cursor

MAX_SKIPS = 20
# After which a device with a wrong time zone is looked at again: a person may correct
# its tag.
LOOK_AGAIN = timedelta(minutes=1)
MINUTE = timedelta(minutes=1)
FORMER_IMAGE_LOST = "its former image is neither on the server nor in its other slot"


@dataclass(frozen=True, slots=True)
class Image:
    """The image that a device downloads, with its signature."""

    firmware_id: UUID
    size: int
    signature: str
    signature_algorithm: str
    key_id: str


@dataclass(frozen=True, slots=True)
class Order:
    """The instruction of a device to change its image, in no protocol's own words.

    Attributes:
        image: None where there is nothing to fetch: the device boots its other slot.
        checksum: SHA-256 of the image, in lower hexadecimal digits.
        deadline: after it the order has failed.
        confirmation_duration: how long the device must stay healthy afterwards.
        traceparent: W3C trace context that the device goes on with.
    """

    update_id: UUID
    deployment_id: UUID
    kind: OrderKind
    model: str
    version: str
    checksum: str
    image: Image | None
    manifest: bytes
    manifest_signature: str
    reboot_required: bool
    deadline: datetime
    confirmation_duration: timedelta
    traceparent: str


@dataclass(frozen=True, slots=True)
class PollAnswer:
    """The answer of a poll: the open order, if any, and the poll interval."""

    order: Order | None
    interval: timedelta


def poll(
    *,
    device: Device,
    now: datetime,
    trusted: frozenset[str] | None = None,
) -> PollAnswer:
    """Answer the poll of a device, and note the contact.

    Args:
        trusted: names of the signing keys that the device has pinned; None if unknown.

    Source: FR-FW-004, steps 1 to 3.
    """
    work = find_pending_work(device.pk, now)
    note_poll(device_id=device.pk, interval=work.poll_interval, now=now)
    return answer_poll(
        device_id=device.pk,
        work=work,
        now=now,
        trusted=trusted,
    )


def answer_poll(
    *,
    device_id: UUID,
    work: "PendingWork",
    now: datetime,
    trusted: frozenset[str] | None,
) -> PollAnswer:
    """Answer a poll whose contact is noted already, and whose pending work is known.

    See `poll` for the rest.
    """
    update = None
    if work.has_order:
        update = _open_update(device_id)
    else:
        update = _offer(device_id, work, now, trusted)
    interval = work.poll_interval
    if update is None or not is_repeated(update):
        return PollAnswer(None, interval)
    _renew_manifest(update, trusted, now)
    if update.firmware.status == ABSENT:
        return PollAnswer(_order_of(update, None), interval)
    signature = image_signature(update.firmware, update.manifest.key)
    if signature is None:
        return PollAnswer(None, interval)
    image = Image(
        firmware_id=update.firmware_id,
        size=update.firmware.size,
        signature=signature,
        signature_algorithm=signing.ALGORITHM,
        key_id=update.manifest.key.key_id,
    )
    return PollAnswer(_order_of(update, image), interval)


def _open_update(device_id: UUID) -> Update | None:
    with prepared_cursor() as cursor:
        cursor.execute(OPEN_UPDATE, [device_id])
        row = cursor.fetchone()
    if row is None:
        return None
    values = iter(row)
    update = UPDATE.take(values)
    update.deployment = DEPLOYMENT.take(values)
    update.firmware = FIRMWARE.take(values)
    update.firmware.model = MODEL.take(values)
    update.manifest = MANIFEST.take(values)
    update.manifest.key = KEY.take(values)
    return update


def _renew_manifest(
    update: Update, trusted: frozenset[str] | None, now: datetime
) -> None:
    """Sign an open order anew if its key is out of use, or unknown to the device."""
    key = update.manifest.key
    if key.may_sign(now) and (trusted is None or key.key_id in trusted):
        return
    if update.firmware.status == ABSENT:
        manifest = sign_slot_return(
            update.firmware, device_id=update.device.device_id, trusted=trusted
        )
    else:
        manifest = manifest_for(
            update.firmware, above=update.manifest_id - 1, trusted=trusted
        )
    if manifest.pk != update.manifest_id:
        Update.objects.filter(pk=update.pk).update(manifest=manifest)
        update.manifest = manifest


@dataclass(frozen=True, slots=True)
class PendingWork:
    """Pending work of a device: its open order, or the target to order next.

    Attributes:
        has_order: it has an open order.
        is_planned: a running deployment still has plans for it.
        target_id: the target that it may be given an order for, the first one.
        paced_id: the deployment of that target, if it has a rate limit.
        halved_id: the deployment of that target, if it is blue-green and orders one
            half at a time.
    """

    has_order: bool
    is_planned: bool
    target_id: int | None
    paced_id: UUID | None
    halved_id: UUID | None

    @property
    def poll_interval(self) -> timedelta:
        """After what time the device is told to poll again; `POLL_SECONDS` in SQL."""
        is_deploying = self.has_order or self.is_planned or self.target_id is not None
        return (
            settings.POLL_INTERVAL_DEPLOYING if is_deploying else settings.POLL_INTERVAL
        )


PENDING_WORK = f"""
    SELECT EXISTS (
        SELECT FROM deployments_update u
        WHERE u.device_id = %(device)s AND u.closed_at IS NULL
    ) AS has_order, EXISTS (
        SELECT FROM deployments_target t
        JOIN deployments_deployment p ON p.id = t.deployment_id
        WHERE t.device_id = %(device)s AND (t.status = 'rolling_back'
            OR t.status = 'pending' AND p.status IN ('Running', 'Paused'))
    ) AS is_planned, first.id AS target_id, first.paced_id, first.halved_id
    FROM (VALUES (1)) AS always
    LEFT JOIN LATERAL (
        SELECT t.id,
            CASE WHEN p.max_devices_per_minute IS NOT NULL THEN p.id END AS paced_id,
            CASE WHEN p.turn IS NOT NULL THEN p.id END AS halved_id
        FROM deployments_target t
        JOIN deployments_deployment p ON p.id = t.deployment_id
        JOIN firmware_firmware f ON f.id = p.firmware_id
        LEFT JOIN firmware_firmware former ON former.id = t.from_firmware_id
        WHERE t.device_id = %(device)s AND (
            t.status = 'rolling_back' AND former.id IS NOT NULL
                AND former.signature_revoked_at IS NULL
            OR t.status = 'pending'
                AND (t.next_attempt_at IS NULL OR t.next_attempt_at <= %(now)s)
                AND p.status = 'Running' AND p.cancel_requested_at IS NULL
                AND t.rank <= p.open_rank
                AND {IS_OFFERABLE}
        )
        -- Returns first, and of those the way back in the order of the way there.
        ORDER BY t.status = 'pending',
            CASE WHEN t.status = 'rolling_back' THEN t.exposed_at END DESC,
            p.created_at, t.id
        LIMIT 1
    ) AS first ON true
"""  # noqa: S608

# Over `work`.
POLL_SECONDS = """CASE
    WHEN work.has_order OR work.is_planned OR work.target_id IS NOT NULL
    THEN %(deploying_seconds)s ELSE %(idle_seconds)s END"""


def find_pending_work(device_id: UUID, now: datetime) -> PendingWork:
    """Find the pending work of a device, by one statement."""
    with prepared_cursor() as cursor:
        cursor.execute(PENDING_WORK, {"device": device_id, "now": now})
        return PendingWork(*cursor.fetchone())


def _offer(
    device_id: UUID, work: PendingWork, now: datetime, trusted: frozenset[str] | None
) -> Update | None:
    """Write the next order of a device, if there is one to give."""
    for _ in range(MAX_SKIPS):
        if work.target_id is None:
            return None
        try:
            with transaction.atomic():
                if work.paced_id is not None:
                    _lock_pace(work.paced_id)
                if work.halved_id is not None and not take_half(
                    work.halved_id, work.target_id
                ):
                    return None
                update = _offer_target(work.target_id, now, trusted)
        except IntegrityError:
            # Another poll of the same device was first: its order is the answer.
            return _open_update(device_id)
        if update is not None:
            return update
        work = find_pending_work(device_id, now)
    return None


DEVICE = Columns(Device, "d")
TARGET = Columns(Target, "t")
DEPLOYMENT = Columns(Deployment, "p")
FIRMWARE = Columns(Firmware, "f")
MODEL = Columns(DeviceModel, "m")
STATE = Columns(
    DeviceState, "s", without=("application_metrics", "past_boots", "held_back")
)
UPDATE = Columns(Update, "u")
MANIFEST = Columns(Manifest, "n")
KEY = Columns(SigningKey, "k")
OPEN_UPDATE = f"""
    SELECT {UPDATE.sql}, {DEPLOYMENT.sql}, {FIRMWARE.sql}, {MODEL.sql}, {MANIFEST.sql},
        {KEY.sql}
    FROM deployments_update u
    JOIN deployments_deployment p ON p.id = u.deployment_id
    JOIN firmware_firmware f ON f.id = u.firmware_id
    JOIN firmware_devicemodel m ON m.id = f.model_id
    JOIN firmware_manifest n ON n.sequence = u.manifest_id
    JOIN firmware_signingkey k ON k.id = n.key_id
    WHERE u.device_id = %s AND u.closed_at IS NULL
"""  # noqa: S608
# Everything that an offer depends on, with the target and the state of its device
# locked. Two of the columns only say that a closer check is needed, which decides.
OFFER_CONTEXT = f"""
    SELECT {DEVICE.sql}, {TARGET.sql}, {DEPLOYMENT.sql}, {FIRMWARE.sql}, {MODEL.sql},
        {STATE.sql},
        EXISTS (
            SELECT FROM deployments_target later
            WHERE later.device_id = t.device_id AND later.status = 'success'
              AND later.deployment_id <> t.deployment_id
        ) OR t.exposed_at IS NOT NULL AND d.firmware_checksum NOT IN (
            '', t.from_checksum,
            (SELECT sha256 FROM firmware_firmware WHERE id = p.firmware_id)
        ),
        EXISTS (
            SELECT FROM deployments_quarantine q
            WHERE q.device_id = t.device_id AND q.firmware_id = p.firmware_id
        ),
        -- Of several versions with the same bytes it is the one that the device names,
        -- then one that was approved, then the newest.
        (
            SELECT runs.id FROM firmware_firmware runs
            WHERE runs.model_id = d.model_id AND runs.sha256 = d.firmware_checksum
              AND runs.status <> 'Absent'
            ORDER BY runs.version <> d.firmware_version,
                runs.status NOT IN ('Approved', 'Deprecated'), runs.created_at DESC
            LIMIT 1
        ),
        (SELECT max(u.manifest_id) FROM deployments_update u
         WHERE u.device_id = t.device_id),
        -- Not one that it refused: it has seen a newer manifest than that.
        (SELECT CASE WHEN u.error_code <> 'sequence_replaced' THEN u.firmware_id END
         FROM deployments_update u
         WHERE u.device_id = t.device_id ORDER BY u.offered_at DESC LIMIT 1)
    FROM deployments_target t
    JOIN deployments_deployment p ON p.id = t.deployment_id
    JOIN devices_device d ON d.id = t.device_id
    JOIN health_devicestate s ON s.device_id = t.device_id
    JOIN firmware_firmware f ON f.id = CASE WHEN t.status = 'rolling_back'
        THEN t.from_firmware_id ELSE p.firmware_id END
    JOIN firmware_devicemodel m ON m.id = f.model_id
    WHERE t.id = %(target)s
    FOR NO KEY UPDATE OF t, s
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class OfferContext:
    """The rows that an offer depends on, read by one statement.

    Attributes:
        target: locked, with its deployment and its device.
        firmware: what the order would bring, with its model.
        state: of the device, locked.
        running_id: the image that the device runs, if it is on the server.
        last_manifest: the highest that the device may have seen.
        last_firmware_id: what its latest order was about, None if it refused its
            manifest as replaced.
    """

    target: Target
    firmware: Firmware
    state: DeviceState
    may_have_moved_on: bool
    may_be_quarantined: bool
    running_id: UUID | None
    last_manifest: int | None
    last_firmware_id: UUID | None

    @property
    def is_unexposed(self) -> bool:
        """Whether the target has never been given an order."""
        return self.target.exposed_at is None

    @property
    def candidate(self) -> Candidate:
        """The device as the rules of eligibility see it."""
        return Candidate(
            self.target.device,
            self.state,
            self.firmware,
            is_first_order=self.is_unexposed,
            is_quarantined=self._is_quarantined,
        )

    def _is_quarantined(self) -> bool:
        if not self.may_be_quarantined:
            return False
        kept = Quarantine.objects.active()
        return kept.filter(device=self.target.device, firmware=self.firmware).exists()

    def sample_before(self, now: datetime) -> Sample | None:
        """Return what the device measured last under its former image, if recent."""
        if self.state.firmware_checksum == self.firmware.sha256:
            return None
        return fresh_sample(self.state, now)


def _read_context(target_id: int) -> OfferContext | None:
    with prepared_cursor() as cursor:
        cursor.execute(OFFER_CONTEXT, {"target": target_id})
        row = cursor.fetchone()
    if row is None:
        return None
    values = iter(row)
    device = DEVICE.take(values)
    target = TARGET.take(values)
    target.device = device
    target.deployment = DEPLOYMENT.take(values)
    firmware = FIRMWARE.take(values)
    firmware.model = MODEL.take(values)
    if target.status == TargetStatus.PENDING:
        target.deployment.firmware = firmware
    return OfferContext(target, firmware, STATE.take(values), *values)


def _offer_target(
    target_id: int, now: datetime, trusted: frozenset[str] | None
) -> Update | None:
    """Write an order for one target, or find that it needs none."""
    context = _read_context(target_id)
    if context is None:
        return None
    target, firmware = context.target, context.firmware
    deployment, device = target.deployment, target.device
    if not is_admitted(device):
        return None
    if target.status not in (TargetStatus.PENDING, TargetStatus.ROLLING_BACK):
        return None
    if context.may_have_moved_on and _has_moved_on(target):
        _skip_target(target, "moved_on", now)
        return None
    if target.status == TargetStatus.ROLLING_BACK:
        if must_refuse(device, firmware):
            _end_return(target, ROLLBACK_FORBIDDEN, message_of(ROLLBACK_FORBIDDEN), now)
            return None
        if firmware.status == ABSENT and _has_lost_former(context):
            _end_return(target, NO_PREVIOUS_IMAGE, FORMER_IMAGE_LOST, now)
            return None
        return _write_order(device, context, OrderKind.ROLLBACK, now, trusted)
    # Read again under the lock: a pause or a cancel may have come in between.
    if (
        deployment.status != DeploymentStatus.RUNNING
        or deployment.cancel_requested_at is not None
    ):
        return None
    code = refusal(context.candidate)
    if code:
        _skip_target(target, code, now)
        return None
    postponed = _postponed(target, device, now)
    if postponed is not None:
        target.next_attempt_at = postponed.until
        target.error_code = postponed.code
        target.message = postponed.reason
        target.save(update_fields=["next_attempt_at", "error_code", "message"])
        return None
    if context.is_unexposed:
        target.from_version = device.firmware_version
        target.from_checksum = device.firmware_checksum
        target.from_firmware_id = context.running_id or _kept_image(
            device, context.state
        )
    return _write_order(device, context, OrderKind.INSTALL, now, trusted)


def _kept_image(device: Device, state: DeviceState) -> UUID | None:
    """Return the record of an unknown image that the device will keep, if it does."""
    if not state.can_return_to_slot:
        return None
    return absent_firmware(
        model_id=device.model_id,
        sha256=device.firmware_checksum,
        version=device.firmware_version,
    )


def _has_lost_former(context: OfferContext) -> bool:
    """Tell whether the device, on the new image, says that it kept another one.

    Before it shows the new image its last word on its slots may be older than the
    change of them; then it is the device that decides.
    """
    runs_new = (
        context.state.firmware_checksum == context.target.deployment.firmware.sha256
    )
    return runs_new and context.state.other_slot_checksum != context.firmware.sha256


def _has_moved_on(target: Target) -> bool:
    moved_on = has_moved_on(target.deployment)
    return Target.objects.filter(moved_on, pk=target.pk).exists()


def _lock_pace(paced_id: UUID) -> None:
    """Let one poll at a time count the orders of a deployment with a rate limit.

    The deployment's row is the tick's to lock, so this is a lock beside it; it is
    taken before that of the target, and ends with the transaction.
    """
    with prepared_cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(%s, hashtext(%s))",
            [locks.PACE, str(paced_id)],
        )


# The stage of a target, the stage that has the turn in its deployment, and whether the
# target has to wait for the other half: as long as an order there is open. In the half
# that serves it also waits before its first order until the other half has settled, and
# on its way back until the deployment has brought the other half back, or, where both
# go back, until that one serves.
HALVES = """
    SELECT t.stage_number, p.turn, (
        -- While a half has the turn, the other one has no open order.
        t.stage_number <> p.turn AND EXISTS (
            SELECT FROM deployments_update o
            JOIN deployments_target other ON other.id = o.target_id
            WHERE o.deployment_id = p.id AND o.closed_at IS NULL
              AND other.stage_number <> t.stage_number
        )
    ) OR (
        p.live_fleet = 'green' AND t.stage_number = %(green)s
        AND (t.status = 'pending' OR back.id IS NOT NULL)
        AND (COALESCE(back.course @> jsonb_build_array(
                 jsonb_build_array(t.stage_number)), false)
             OR EXISTS (
                 SELECT FROM deployments_target other
                 WHERE other.deployment_id = p.id AND other.stage_number = %(blue)s
                   AND other.status = ANY(%(unfinished)s)
             ))
    )
    FROM deployments_target t
    JOIN deployments_deployment p ON p.id = t.deployment_id
    LEFT JOIN deployments_rollback back ON back.deployment_id = p.id
        AND back.ends_deployment AND back.finished_at IS NULL
    WHERE t.id = %(target)s
"""


def take_half(deployment_id: UUID, target_id: int) -> bool:
    """Let the half that a target is in give orders, if the other one is at rest.

    Orders within the half that has the turn share a lock; who takes the turn has it
    alone, so that no order of the other half can come in between. The lock is taken
    before that of the target, and ends with the transaction.

    Returns:
        Whether the target may be given its order.

    Source: Deployment Patterns 4; never both halves are changed at once.
    """
    stage, turn, must_wait = _halves(target_id)
    if must_wait:
        return False
    word = "_shared" if stage == turn else ""
    with prepared_cursor() as cursor:
        cursor.execute(
            f"SELECT pg_advisory_xact_lock{word}(%s, hashtext(%s))",
            [locks.HALF, str(deployment_id)],
        )
    now_stage, now_turn, must_wait = _halves(target_id)
    if must_wait or now_stage != stage or now_turn != turn:
        # Another was first; the next poll tries again.
        return False
    if stage != turn:
        Deployment.objects.filter(pk=deployment_id).update(turn=stage)
    return True


def _halves(target_id: int) -> tuple[int, int, bool]:
    with prepared_cursor() as cursor:
        cursor.execute(
            HALVES,
            {
                "target": target_id,
                "green": GREEN_STAGE,
                "blue": BLUE_STAGE,
                "unfinished": [str(status) for status in UNFINISHED],
            },
        )
        stage, turn, must_wait = cursor.fetchone()
    return stage, turn, must_wait


@dataclass(frozen=True, slots=True)
class _Postponed:
    """Until when an order must wait, and why; `code` if that is an error."""

    until: datetime
    reason: str
    code: str = ""


def _postponed(target: Target, device: Device, now: datetime) -> _Postponed | None:
    """Return until when an order must wait; None if it may be offered now."""
    deployment = target.deployment
    window = deployment.window
    if window is not None and window.zone == DEVICE_ZONE:
        zone = window.zone_of(device.tags)
        if zone is None:
            return _Postponed(
                now + LOOK_AGAIN, message_of(UNKNOWN_TIMEZONE), UNKNOWN_TIMEZONE
            )
        opening = window.opening_after(now, zone)
        if opening is not None:
            return _Postponed(opening, "outside of its maintenance window")
    if deployment.start_spread and target.exposed_at is None:
        turn = _start_of(target)
        if turn > now:
            return _Postponed(
                turn, "the start of its stage is spread, and its turn comes later"
            )
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
            return _Postponed(place + MINUTE, f"{limit} devices a minute are the most")
    return None


def _start_of(target: Target) -> datetime:
    """Return when a device may have its first order, by the start jitter of its stage.

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
    return began + jitter_of(
        deployment.start_spread, f"{deployment.pk} {target.device_id}"
    )


def _skip_target(target: Target, code: str, now: datetime) -> None:
    """End a target without another order: skipped, or failed if an attempt failed."""
    message = message_of(code)
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
        EventName.DEVICE_FAILED if has_failed else EventName.SKIPPED,
        f"{message}; it cannot be tried again" if has_failed else message,
        now=now,
        level=Level.ERROR if has_failed else Level(CODES[code].level),
        device=target.device,
        stage_number=target.stage_number,
    )


def _end_return(target: Target, code: str, message: str, now: datetime) -> None:
    """End a return that the device would have to refuse."""
    target.status = TargetStatus.FAILED
    target.error_code = code
    target.message = message
    target.settled_at = now
    target.updated_at = now
    target.save()
    log(
        target.deployment,
        EventName.RETURN_FAILED,
        f"{code}: {message}",
        now=now,
        device=target.device,
        stage_number=target.stage_number,
    )


# The order, the watch of its device, and what it changes of its target and the log, by
# one statement.
WRITE_ORDER = f"""
    WITH ordered AS (
        INSERT INTO deployments_update (
            id, target_id, deployment_id, device_id, kind, firmware_id, manifest_id,
            attempt, status, reboot_required, boot_id_before, boot_count_before,
            baseline, exempt, last_sequence, offered_at, deadline, error_code, message,
            durations, traceparent
        ) VALUES (
            %(id)s, %(target_id)s, %(deployment_id)s, %(device_id)s, %(kind)s,
            %(firmware_id)s, %(manifest_id)s, %(attempt)s, %(status)s,
            %(reboot_required)s, %(boot_id_before)s, %(boot_count_before)s,
            %(baseline)s, %(exempt)s, 0,
            %(offered_at)s, %(deadline)s, '', '', '{{}}', %(traceparent)s
        )
    ), watched AS (
        {BEGIN_WATCH}
    ), logged AS (
        {INTO_LOG}
        VALUES (%(deployment_id)s, %(offered_at)s, 'INFO', %(event)s, %(device_id)s,
                %(stage)s, %(message)s)
    )
    UPDATE deployments_target
    SET status = %(target_status)s, attempt = %(target_attempt)s,
        rollback_attempt = %(rollback_attempt)s, from_version = %(from_version)s,
        from_checksum = %(from_checksum)s, from_firmware_id = %(from_firmware)s,
        error_code = %(target_code)s, message = %(target_message)s,
        exposed_at = COALESCE(exposed_at, %(offered_at)s), settled_at = NULL,
        next_attempt_at = NULL, updated_at = %(offered_at)s
    WHERE id = %(target_id)s
"""  # noqa: S608


def _write_order(
    device: Device,
    context: OfferContext,
    kind: OrderKind,
    now: datetime,
    trusted: frozenset[str] | None,
) -> Update:
    target, firmware, last = context.target, context.firmware, context.last_manifest
    deployment = target.deployment
    thresholds = deployment.thresholds
    # The same image again may come under the same manifest; anything else must be
    # newer than all that the device has seen.
    repeats = context.last_firmware_id == firmware.pk
    above = 0 if last is None else last - 1 if repeats else last
    is_install = kind is OrderKind.INSTALL
    if is_install:
        target.attempt += 1
        target.status = TargetStatus.NOTIFIED
        target.error_code = ""
        target.message = ""
    else:
        target.rollback_attempt += 1
    update = Update(
        target=target,
        deployment=deployment,
        device=device,
        kind=kind,
        firmware=firmware,
        manifest=sign_slot_return(firmware, device_id=device.device_id, trusted=trusted)
        if firmware.status == ABSENT
        else manifest_for(firmware, above=above, trusted=trusted),
        attempt=target.attempt if is_install else target.rollback_attempt,
        # Nothing has to change where it runs the image already, so no reboot can be
        # asked for as proof: what it runs after its claim is the proof.
        reboot_required=firmware.reboot_required
        and context.state.firmware_checksum != firmware.sha256,
        boot_id_before=context.state.boot_id,
        boot_count_before=context.state.boot_count or None,
        offered_at=now,
        deadline=now + deployment.device_timeout,
    )
    update.traceparent = order_context(deployment, update.pk, device.pk)
    is_first = is_install and context.is_unexposed
    if is_first:
        before = context.sample_before(now)
        update.baseline = _baseline_json(before)
        # A trigger that the former image exceeded is not held against the new one.
        update.exempt = sorted(exceeded(before, thresholds.limits)) if before else []
    else:
        update.baseline, update.exempt = _first_baseline(target)
    watch = Watch(
        watch_id=update.pk,
        image_checksum=firmware.sha256,
        limits=replace(thresholds.limits, exempt=frozenset(update.exempt)),
        offline_after=thresholds.offline_after,
        interval=deployment.heartbeat_interval,
    )
    word = "offered" if is_install else "ordered back to"
    place = " in its other slot" if firmware.status == ABSENT else ""
    attempt = f", attempt {update.attempt}" if update.attempt > 1 else ""
    exempt = ", ".join(update.exempt)
    with prepared_cursor() as cursor:
        cursor.execute(
            WRITE_ORDER,
            watch_values(device_id=device.pk, watch=watch)
            | {
                "id": update.pk,
                "target_id": target.pk,
                "deployment_id": deployment.pk,
                "device_id": device.pk,
                "kind": kind.value,
                "firmware_id": firmware.pk,
                "manifest_id": update.manifest.pk,
                "attempt": update.attempt,
                "status": update.status,
                "reboot_required": update.reboot_required,
                "boot_id_before": update.boot_id_before,
                "boot_count_before": update.boot_count_before,
                "baseline": json.dumps(update.baseline),
                "exempt": update.exempt,
                "offered_at": now,
                "deadline": update.deadline,
                "traceparent": update.traceparent,
                "event": EventName.ORDERED if is_install else EventName.ORDERED_BACK,
                "stage": target.stage_number,
                "message": f"{word} {firmware.version}{place}{attempt}"
                + (f"; not judged by {exempt}" if exempt else "")
                + (
                    ""
                    if update.baseline
                    else "; its baseline is unknown: judged by the limits alone"
                ),
                "target_status": target.status,
                "target_attempt": target.attempt,
                "rollback_attempt": target.rollback_attempt,
                "from_version": target.from_version,
                "from_checksum": target.from_checksum,
                "from_firmware": target.from_firmware_id,
                "target_code": target.error_code,
                "target_message": target.message,
            },
        )
    return update


def _baseline_json(sample: Sample | None) -> dict[str, Any]:
    """Return what an order keeps of its device's last sample before it."""
    if sample is None:
        return {}
    return {
        **{each.field: sample.values[each.name] for each in TRIGGERS},
        "at": sample.at.isoformat(),
    }


def _first_baseline(target: Target) -> tuple[dict[str, Any], list[str]]:
    """Return baseline and exempt triggers as they were at the target's first order.

    They are taken once, from the former image, and hold for every later attempt and
    for the way back: what a device shows under the new image pardons nothing.
    """
    first = (
        Update.objects.filter(target=target, kind=OrderKind.INSTALL)
        .order_by("offered_at")
        .values_list("baseline", "exempt")
        .first()
    )
    return first if first is not None else ({}, [])


def _order_of(update: Update, image: Image | None) -> Order:
    firmware, manifest = update.firmware, update.manifest
    return Order(
        update_id=update.pk,
        deployment_id=update.deployment_id,
        kind=OrderKind(update.kind),
        model=firmware.model.name,
        version=firmware.version,
        checksum=firmware.sha256,
        image=image,
        manifest=bytes(manifest.body),
        manifest_signature=manifest.signature,
        reboot_required=update.reboot_required,
        deadline=update.deadline,
        confirmation_duration=update.deployment.criteria.confirmation_duration,
        traceparent=update.traceparent,
    )


DOWNLOADABLE = f"""
    SELECT d.region, {FIRMWARE.sql} FROM deployments_update u
    JOIN firmware_firmware f ON f.id = u.firmware_id
    JOIN devices_device d ON d.id = u.device_id
    WHERE u.device_id = %s AND u.closed_at IS NULL AND u.firmware_id = %s
      AND f.signature_revoked_at IS NULL AND f.status <> '{ABSENT}' AND {IS_ADMITTED}
"""  # noqa: S608


def find_download(
    *, device_id: UUID, firmware_id: UUID | str
) -> tuple[str, Firmware] | None:
    """Return the region of a device and the firmware that it may download.

    Returns:
        None unless the device is admitted and has an open order for that firmware.
    """
    with prepared_cursor() as cursor:
        cursor.execute(DOWNLOADABLE, [device_id, firmware_id])
        row = cursor.fetchone()
    if row is None:
        return None
    region, *values = row
    return region, FIRMWARE.take(iter(values))
