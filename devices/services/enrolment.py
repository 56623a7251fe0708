"""Devices that register themselves with an enrolment token (FR-FW-002).

Rules:
- A token is 256 random bits, told once, kept as a peppered digest. It says which
  devices it lets in, how many, until when, and whether a person approves each.
- A device asks with a secret of its own, which it repeats until it has its key: what
  was lost on the way is given again, and nobody else can collect it.
- A device counts once against its token, however often it asks; one that was counted
  may finish after the token has expired or is used up, but not after its revocation.
- One name has one open request. Another secret for it is refused, not queued.
- Administrators are notified of devices that wait for them: at once when none waited,
  and of those that join them once an hour.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import F, Q
from django.utils import timezone
from django.utils.module_loading import import_string

from devices.choices import MAX_TAGS, OPEN_ENROLMENTS, EnrolmentStatus
from devices.exceptions import (
    AlreadyEnrolledError,
    DeviceExistsError,
    EnrolmentConflictError,
    EnrolmentDecidedError,
    EnrolmentNotFoundError,
    EnrolmentRejectedError,
    EnrolmentTokenNotFoundError,
    NotAllowedByTokenError,
)
from devices.models import Device, EnrolmentRequest, EnrolmentToken
from devices.services.credentials import replace_unused_keys
from devices.services.registry import register_device
from firmware.models import DeviceModel
from firmware.services.device_models import device_model_named
from hotswap.common import audit
from hotswap.common.errors import FieldError
from hotswap.common.keyring import peppered_digest
from hotswap.common.models import User

REMINDER_PAUSE: Final = timedelta(hours=1)
# Devices that a notification names.
NAMED: Final = 100
TELL_WAITING: Final = f"""
    WITH due AS (
        SELECT id FROM {EnrolmentRequest._meta.db_table}
        WHERE status = %(pending)s AND told_at IS NULL AND NOT EXISTS (
            SELECT FROM {EnrolmentRequest._meta.db_table}
            WHERE status = %(pending)s AND told_at > %(lately)s
        )
        FOR NO KEY UPDATE SKIP LOCKED
    ), told AS (
        UPDATE {EnrolmentRequest._meta.db_table} AS own SET told_at = %(now)s
        FROM due WHERE own.id = due.id
        RETURNING own.device_id, own.model_id, own.region, own.created_at
    )
    SELECT told.device_id, m.name, told.region, count(*) OVER ()
    FROM told JOIN {DeviceModel._meta.db_table} m ON m.id = told.model_id
    ORDER BY told.created_at, told.device_id
    LIMIT %(named)s
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Applicant:
    """What a device says of itself when it asks to be registered."""

    device_id: str
    model_name: str
    secret: str
    region: str | None = None
    tags: dict[str, str] | None = None
    firmware_version: str = ""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The device is in; its key can be read in this answer only."""

    device_id: str
    api_key: str
    key_expires_at: datetime


@dataclass(frozen=True, slots=True)
class Waiting:
    """A person has not decided yet."""


# --- Tokens ------------------------------------------------------------------------


def create_enrolment_token(
    *,
    actor: User,
    name: str,
    model_name: str | None = None,
    region: str = "",
    tags: dict[str, str] | None = None,
    needs_approval: bool = True,
    max_uses: int | None = None,
    expires_at: datetime | None = None,
) -> tuple[EnrolmentToken, str]:
    """Make a token.

    Args:
        model_name: the only model that it lets in; None for any.
        region: the only region that it lets in, and what its devices get; "" for any.
        tags: what each of its devices is tagged with, over its own tags.
        max_uses: how many devices may ask with it; None for any number.
        expires_at: in the future; None for 30 days from now.

    Returns:
        The token and its value, which is not kept and cannot be read again.

    Raises:
        UnknownModelError: the model is not in the catalogue (422).
    """
    now = timezone.now()
    model = None if model_name is None else device_model_named(model_name)
    value = f"hse_{secrets.token_urlsafe(32)}"
    with transaction.atomic():
        token = EnrolmentToken.objects.create(
            name=name,
            digest=peppered_digest(value),
            model=model,
            region=region,
            tags=tags or {},
            needs_approval=needs_approval,
            max_uses=max_uses,
            expires_at=expires_at or now + settings.ENROLMENT_TOKEN_LIFETIME,
            created_by=actor,
        )
        _record_token(
            actor,
            token,
            "created",
            {"needsApproval": needs_approval, "maxUses": max_uses},
        )
    return token, value


def get_enrolment_token(token_id: UUID) -> EnrolmentToken:
    """Return a token without its value, which is kept nowhere.

    Raises:
        EnrolmentTokenNotFoundError: there is none of this id.
    """
    token = EnrolmentToken.objects.select_related("model").filter(pk=token_id).first()
    if token is None:
        raise EnrolmentTokenNotFoundError("there is no such enrolment token")
    return token


def revoke_enrolment_token(*, actor: User, token_id: UUID) -> EnrolmentToken:
    """Let nobody in with this token any more, devices that wait included.

    Raises:
        EnrolmentTokenNotFoundError: there is none of this id.
    """
    with transaction.atomic():
        token = (
            EnrolmentToken.objects.select_for_update(of=("self",), no_key=True)
            .select_related("model")
            .filter(pk=token_id)
            .first()
        )
        if token is None:
            raise EnrolmentTokenNotFoundError("there is no such enrolment token")
        if token.revoked_at is None:
            token.revoked_at = token.updated_at = timezone.now()
            token.save(update_fields=["revoked_at", "updated_at"])
            _record_token(actor, token, "revoked", {"uses": token.uses})
    return token


def _record_token(
    actor: User, token: EnrolmentToken, verb: str, details: dict[str, Any]
) -> None:
    audit.record(
        actor=actor,
        verb=f"enrolment-token.{verb}",
        object_kind="enrolment-token",
        object_id=token.pk,
        details=details,
        changed=token,
    )


# --- Devices -----------------------------------------------------------------------


def enrol_device(
    *, enrolment_token: str, applicant: Applicant, now: datetime
) -> Enrolled | Waiting | None:
    """Let a device in, or let it wait for a person.

    Returns:
        None when the token is none, has expired, is used up or was revoked.

    Raises:
        UnknownModelError, NotAllowedByTokenError: 422.
        EnrolmentRejectedError: a person has refused this device (403).
        EnrolmentConflictError: the name is asked for with another secret (409).
        DeviceExistsError: the name is taken (409).
        AlreadyEnrolledError: the device has used its key already (409).
    """
    digest = peppered_digest(enrolment_token)
    secret_digest = peppered_digest(applicant.secret)
    # Most calls are of devices that wait: they take no lock.
    if EnrolmentRequest.objects.filter(
        device_id=applicant.device_id,
        secret_digest=secret_digest,
        status=EnrolmentStatus.PENDING,
        token__digest=digest,
        token__revoked_at__isnull=True,
    ).exists():
        return Waiting()
    try:
        return _enrol(digest, secret_digest, applicant, now)
    except IntegrityError:
        # With another token the same name was first: this time it is seen.
        return _enrol(digest, secret_digest, applicant, now)


@transaction.atomic
def _enrol(
    digest: str, secret_digest: str, applicant: Applicant, now: datetime
) -> Enrolled | Waiting | None:
    token = (
        EnrolmentToken.objects.select_for_update(no_key=True)
        .filter(digest=digest, revoked_at__isnull=True)
        .first()
    )
    if token is None:
        return None
    requests = EnrolmentRequest.objects.select_for_update(no_key=True).filter(
        device_id=applicant.device_id
    )
    request = requests.filter(status__in=OPEN_ENROLMENTS).first()
    if request is not None and request.secret_digest != secret_digest:
        raise EnrolmentConflictError(
            f"{applicant.device_id} waits already, with another secret"
        )
    own = requests.filter(secret_digest=secret_digest).order_by("-created_at")
    if request is None:
        done = own.filter(status=EnrolmentStatus.COMPLETED).first()
        if done is not None:
            is_let_in = done.token_id == token.pk or token.expires_at > now
            return _hand_over_again(done, now) if is_let_in else None
        if own.filter(status=EnrolmentStatus.REJECTED, token=token).exists():
            raise EnrolmentRejectedError("a person has rejected this device")
    if request is None or request.token_id != token.pk:
        if not _count_use(token, now):
            return None
        request = _ask(token, request, applicant, secret_digest, now)
    if request.status == EnrolmentStatus.PENDING:
        return Waiting()
    return _complete(request, now)


def _count_use(token: EnrolmentToken, now: datetime) -> bool:
    """Count one more device; tell whether the token lets it in."""
    return bool(
        EnrolmentToken.objects.filter(
            Q(max_uses__isnull=True) | Q(uses__lt=F("max_uses")),
            pk=token.pk,
            expires_at__gt=now,
        ).update(uses=F("uses") + 1, updated_at=now)
    )


def _ask(
    token: EnrolmentToken,
    request: EnrolmentRequest | None,
    applicant: Applicant,
    secret_digest: str,
    now: datetime,
) -> EnrolmentRequest:
    """Write a request, or take the open one along to another token."""
    if request is not None and request.status == EnrolmentStatus.APPROVED:
        # What a person has approved stays as it was approved.
        request.token = token
        request.save(update_fields=["token"])
        return request
    model, region, tags = _admitted(token, applicant)
    if Device.objects.filter(device_id=applicant.device_id).exists():
        raise DeviceExistsError(f"there is a device {applicant.device_id!r} already")
    if request is None:
        request = EnrolmentRequest(
            device_id=applicant.device_id,
            secret_digest=secret_digest,
            status=EnrolmentStatus.PENDING,
        )
    request.token = token
    request.model = model
    request.region = region
    request.tags = tags
    request.firmware_version = applicant.firmware_version
    request.updated_at = now
    if not token.needs_approval:
        request.status = EnrolmentStatus.APPROVED
    request.save()
    return request


def _admitted(
    token: EnrolmentToken, applicant: Applicant
) -> tuple[DeviceModel, str, dict[str, str]]:
    """Return model, region and tags that the device gets.

    Raises:
        UnknownModelError, NotAllowedByTokenError.
    """
    model = device_model_named(applicant.model_name)
    errors = []
    if token.model_id not in (None, model.pk):
        errors.append(
            FieldError("/model", "wrong_model", "the token is for another model")
        )
    if token.region and applicant.region not in (None, token.region):
        errors.append(
            FieldError("/region", "wrong_region", "the token is for another region")
        )
    tags = {**(applicant.tags or {}), **token.tags}
    if len(tags) > MAX_TAGS:
        errors.append(
            FieldError(
                "/tags",
                "too_many",
                f"with those of the token there are more than {MAX_TAGS} tags",
            )
        )
    if errors:
        raise NotAllowedByTokenError(errors[0].detail, errors=errors)
    region = token.region or applicant.region or settings.DEFAULT_REGION
    return model, region, tags


def _complete(request: EnrolmentRequest, now: datetime) -> Enrolled:
    device, api_key = register_device(
        actor=None,
        device_id=request.device_id,
        model_name=request.model.name,
        region=request.region,
        tags=request.tags,
        firmware_version=request.firmware_version,
        origin={"enrolment": str(request.pk)},
    )
    request.status = EnrolmentStatus.COMPLETED
    request.registered = device
    request.completed_at = request.updated_at = now
    request.save(update_fields=["status", "registered", "completed_at", "updated_at"])
    return _handed_over(device, api_key)


def _hand_over_again(request: EnrolmentRequest, now: datetime) -> Enrolled:
    device = request.registered
    assert device is not None
    api_key = None
    if device.revoked_at is None:
        api_key = replace_unused_keys(device, now=now)
    if api_key is None:
        raise AlreadyEnrolledError(
            f"{device.device_id} has its key; a person can make it a new one"
        )
    audit.record(
        actor=None,
        verb="device.key-replaced",
        object_kind="device",
        object_id=device.pk,
        details={"enrolment": str(request.pk)},
    )
    return _handed_over(device, api_key)


def _handed_over(device: Device, api_key: str) -> Enrolled:
    ends = device.keys.current().values_list("expires_at", flat=True).get()
    return Enrolled(device.device_id, api_key, ends)


# --- Decisions ---------------------------------------------------------------------


def approve_enrolment(
    *, actor: User, enrolment_id: UUID, comment: str = ""
) -> EnrolmentRequest:
    """Let a device in at its next call.

    Raises:
        EnrolmentNotFoundError: there is no such request.
        EnrolmentDecidedError: it does not wait any more.
        DeviceExistsError: the name was taken in the meantime.
    """
    return _decide(actor, enrolment_id, EnrolmentStatus.APPROVED, comment)


def reject_enrolment(
    *, actor: User, enrolment_id: UUID, comment: str = ""
) -> EnrolmentRequest:
    """Refuse a device that waits, or that has not collected its approval yet.

    Raises:
        EnrolmentNotFoundError: there is no such request.
        EnrolmentDecidedError: it was rejected before, or the device is in.
    """
    return _decide(actor, enrolment_id, EnrolmentStatus.REJECTED, comment)


def _decide(
    actor: User, enrolment_id: UUID, status: EnrolmentStatus, comment: str
) -> EnrolmentRequest:
    is_approval = status is EnrolmentStatus.APPROVED
    with transaction.atomic():
        request = (
            EnrolmentRequest.objects.select_for_update(of=("self",), no_key=True)
            .select_related("model", "token", "decided_by")
            .filter(pk=enrolment_id)
            .first()
        )
        if request is None:
            raise EnrolmentNotFoundError("there is no such enrolment")
        decidable = (EnrolmentStatus.PENDING,) if is_approval else OPEN_ENROLMENTS
        if request.status not in decidable:
            raise EnrolmentDecidedError(f"the enrolment is {request.status} already")
        if is_approval and Device.objects.filter(device_id=request.device_id).exists():
            raise DeviceExistsError(
                f"there is a device {request.device_id!r} already", errors=()
            )
        request.status = status
        request.comment = comment
        request.decided_by = actor
        request.decided_at = request.updated_at = timezone.now()
        request.save(
            update_fields=[
                *("status", "comment", "decided_by", "decided_at", "updated_at")
            ]
        )
        audit.record(
            actor=actor,
            verb="enrolment.approved" if is_approval else "enrolment.rejected",
            object_kind="enrolment",
            object_id=request.pk,
            details={"comment": comment, "token": str(request.token_id)},
        )
    return request


# --- Notification ------------------------------------------------------------------


@transaction.atomic
def announce_waiting(*, now: datetime) -> int:
    """Notify administrators of the devices that wait for a decision, each once.

    While one waits that they were told of within the hour, others are told of later,
    together. Safe to run twice and side by side. Returns the number of devices.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            TELL_WAITING,
            {
                "pending": EnrolmentStatus.PENDING.value,
                "lately": now - REMINDER_PAUSE,
                "now": now,
                "named": NAMED,
            },
        )
        rows = cursor.fetchall()
    if not rows:
        return 0
    total: int = rows[0][3]
    import_string(settings.DEVICE_EVENT_HOOK)(
        event="enrolment.waiting",
        devices=[
            {"id": name, "model": model, "region": region}
            for name, model, region, _ in rows
        ],
        total=total,
        now=now,
    )
    return total
