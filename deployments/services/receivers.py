"""Receivers: who is notified of events, by which channel."""

from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from deployments.choices import DeliveryStatus
from deployments.exceptions import DeliveryNotFoundError, TooManyReceiversError
from deployments.models import WEBHOOK_PURPOSE, Delivery, Receiver, Webhook
from deployments.notifications.channels.registry import OF_MODEL
from deployments.notifications.channels.types import Channel
from deployments.notifications.enqueue import enqueue_test, wake_a_worker
from deployments.notifications.outbox import disable
from deployments.notifications.signing import new_secret
from hotswap.common import audit
from hotswap.common.errors import NotFoundError
from hotswap.common.etags import check_match
from hotswap.common.keyring import seal
from hotswap.common.models import User

Kind = TypeVar("Kind", bound=Receiver)
BY_A_PERSON = "disabled by a person"


def get_receiver(kind: type[Kind], receiver_id: UUID) -> Kind:
    """Return a receiver.

    Raises:
        NotFoundError of the kind: there is none (404).
    """
    found = kind._default_manager.filter(pk=receiver_id).first()
    if found is None:
        raise _missing(kind)
    return found


def _locked(kind: type[Kind], receiver_id: UUID) -> Kind:
    found = (
        kind._default_manager.select_for_update(no_key=True)
        .filter(pk=receiver_id)
        .first()
    )
    if found is None:
        raise _missing(kind)
    return found


def _missing(kind: type[Receiver]) -> NotFoundError:
    channel = OF_MODEL[kind]
    return channel.missing(f"there is no such {channel.name}")


def _refuse_disabled(receiver: Receiver) -> None:
    if not receiver.enabled:
        channel = OF_MODEL[type(receiver)]
        raise channel.disabled(
            f"the {channel.name} is disabled: {receiver.disabled_reason}"
        )


def _record(
    receiver: Receiver, verb: str, actor: User, details: dict[str, Any] | None = None
) -> None:
    audit.record(
        actor=actor,
        verb=f"{receiver.kind}.{verb}",
        object_kind=receiver.kind,
        object_id=receiver.pk,
        details=details or {},
        changed=receiver,
    )


def create_receiver(
    *,
    actor: User,
    kind: type[Kind],
    events: Sequence[str] = (),
    description: str = "",
    **endpoint: str,
) -> Kind:
    """Add somebody who is notified from now on.

    Args:
        endpoint: the field of the channel that says where, as `url` or `address`.

    Raises:
        HotSwapError of the channel's check: the endpoint may not be used.
        ConflictError of the kind: it is there already (409).
        TooManyReceiversError: there are as many as may be (409).
    """
    receiver = kind(events=sorted(set(events)), description=description)
    _create(actor, receiver, **endpoint)
    return receiver


def create_webhook(
    *, actor: User, url: str, events: Sequence[str] = (), description: str = ""
) -> tuple[Webhook, str]:
    """Add a webhook as `create_receiver` does; return it with its secret.

    The secret is not shown again.
    """
    secret = new_secret()
    webhook = Webhook(
        events=sorted(set(events)),
        description=description,
        sealed_secret=seal(secret.encode(), purpose=WEBHOOK_PURPOSE),
    )
    _create(actor, webhook, url=url)
    return webhook, secret


def _create(actor: User, receiver: Receiver, **endpoint: str) -> None:
    kind = type(receiver)
    channel = OF_MODEL[kind]
    where = endpoint[channel.endpoint.name]
    recorded = channel.check(where)
    setattr(receiver, channel.endpoint.name, where)
    with transaction.atomic():
        if kind._default_manager.count() >= channel.maximum:
            raise TooManyReceiversError(
                f"there are {channel.maximum} {channel.plural} already"
            )
        _insert(channel, receiver)
        _record(receiver, "created", actor, recorded | {"events": receiver.events})


def _insert(channel: Channel, receiver: Receiver) -> None:
    """Write a receiver, unless its endpoint is there already and must not be twice."""
    if channel.duplicate is None:
        receiver.save(force_insert=True)
        return
    try:
        with transaction.atomic():
            receiver.save(force_insert=True)
    except IntegrityError:
        message = f"this {channel.endpoint.name} is told already"
        raise channel.duplicate(message) from None


def change_receiver(
    *,
    actor: User,
    kind: type[Kind],
    receiver_id: UUID,
    changes: dict[str, Any],
    expected: frozenset[str] | None = None,
) -> Kind:
    """Change the named fields of a receiver and write down which.

    Whoever is disabled is told nothing more; what waited for it has failed, and can be
    sent again when it is enabled.

    Args:
        changes: any of `events`, `description`, `enabled`, and the endpoint, where the
            channel lets it be changed.

    Raises:
        NotFoundError of the kind, PreconditionFailedError.
        HotSwapError of the channel's check: the new endpoint may not be used.
    """
    fields = dict(changes)
    channel = OF_MODEL[kind]
    if channel.endpoint.name in fields:
        channel.check(fields[channel.endpoint.name])
    if "events" in fields:
        fields["events"] = sorted(set(fields["events"]))
    now = timezone.now()
    with transaction.atomic():
        receiver = _locked(kind, receiver_id)
        check_match(receiver, expected)
        changed = [name for name in fields if getattr(receiver, name) != fields[name]]
        if not changed:
            return receiver
        for name in changed:
            setattr(receiver, name, fields[name])
        receiver.updated_at = now
        if "enabled" in changed:
            receiver.disabled_reason = ""
        receiver.save()
        if "enabled" in changed and not receiver.enabled:
            disable(receiver, BY_A_PERSON, now=now)
        _record(
            receiver,
            "changed",
            actor,
            {
                "fields": sorted(changed),
                **{x: fields[x] for x in ("enabled", "events") if x in changed},
            },
        )
    return receiver


def delete_receiver(*, actor: User, kind: type[Receiver], receiver_id: UUID) -> None:
    """Remove a receiver with the log of its deliveries.

    Raises:
        NotFoundError of the kind: there is none (404).
    """
    with transaction.atomic():
        receiver = _locked(kind, receiver_id)
        _record(receiver, "deleted", actor)
        receiver.delete()


def send_test(*, actor: User, kind: type[Receiver], receiver_id: UUID) -> Delivery:
    """Send a receiver a notification that tells nothing else.

    Raises:
        NotFoundError of the kind: there is none (404).
        ConflictError of the kind: it is disabled and wants nothing (409).
    """
    with transaction.atomic():
        receiver = _locked(kind, receiver_id)
        _refuse_disabled(receiver)
        delivery = enqueue_test(receiver, now=timezone.now())
        _record(receiver, "tested", actor, {"delivery": str(delivery.pk)})
    return delivery


def resend(
    *, actor: User, kind: type[Receiver], receiver_id: UUID, delivery_id: UUID
) -> Delivery:
    """Send a delivery anew, whatever became of it, with all its attempts.

    Raises:
        NotFoundError of the kind, DeliveryNotFoundError (404).
        ConflictError of the kind: it is disabled and wants nothing more (409).
    """
    with transaction.atomic():
        receiver = _locked(kind, receiver_id)
        delivery = (
            Delivery.objects.of(receiver)
            .select_for_update(of=("self",), no_key=True)
            .select_related("notification")
            .filter(pk=delivery_id)
            .first()
        )
        if delivery is None:
            raise DeliveryNotFoundError("there is no such delivery")
        _refuse_disabled(receiver)
        delivery.status = DeliveryStatus.PENDING
        delivery.attempts_before_resend = delivery.attempts
        delivery.next_attempt_at = timezone.now()
        delivery.delivered_at = None
        delivery.save()
        _record(receiver, "resent", actor, {"delivery": str(delivery.pk)})
        transaction.on_commit(wake_a_worker, robust=True)
    return delivery


def rotate_secret(*, actor: User, webhook_id: UUID) -> tuple[Webhook, str]:
    """Give an endpoint a new secret; the former signs too for an overlap.

    Returns:
        The webhook with its secret, which is not shown again.

    Raises:
        WebhookNotFoundError: there is none (404).
    """
    secret = new_secret()
    now = timezone.now()
    with transaction.atomic():
        webhook = _locked(Webhook, webhook_id)
        webhook.previous_sealed_secret = webhook.sealed_secret
        webhook.previous_secret_until = now + settings.WEBHOOK_SECRET_OVERLAP
        webhook.sealed_secret = seal(secret.encode(), purpose=WEBHOOK_PURPOSE)
        webhook.updated_at = now
        webhook.save()
        _record(webhook, "secret-rotated", actor)
    return webhook, secret
