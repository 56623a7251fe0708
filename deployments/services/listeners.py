"""Listeners: who is notified of events, by which channel."""

from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from deployments.choices import DeliveryStatus
from deployments.exceptions import DeliveryNotFoundError, TooManyListenersError
from deployments.models import Delivery, Listener, Webhook
from deployments.notifications.channels.registry import OF_MODEL
from deployments.notifications.channels.types import Channel
from deployments.notifications.channels.webhook import SECRET_PURPOSE
from deployments.notifications.enqueue import enqueue_test, wake_a_worker
from deployments.notifications.outbox import disable
from deployments.notifications.signing import new_secret
from hotswap.common import audit
from hotswap.common.errors import NotFoundError
from hotswap.common.etags import check_match
from hotswap.common.keyring import seal
from hotswap.common.models import User

Kind = TypeVar("Kind", bound=Listener)
BY_A_PERSON = "disabled by a person"


def get_listener(kind: type[Kind], listener_id: UUID) -> Kind:
    """Return a listener.

    Raises:
        NotFoundError of the kind: there is none (404).
    """
    found = kind._default_manager.filter(pk=listener_id).first()
    if found is None:
        raise _missing(kind)
    return found


def _locked(kind: type[Kind], listener_id: UUID) -> Kind:
    found = (
        kind._default_manager.select_for_update(no_key=True)
        .filter(pk=listener_id)
        .first()
    )
    if found is None:
        raise _missing(kind)
    return found


def _missing(kind: type[Listener]) -> NotFoundError:
    channel = OF_MODEL[kind]
    return channel.missing(f"there is no such {channel.name}")


def _refuse_disabled(listener: Listener) -> None:
    if not listener.enabled:
        channel = OF_MODEL[type(listener)]
        raise channel.disabled(
            f"the {channel.name} is disabled: {listener.disabled_reason}"
        )


def _record(
    listener: Listener, verb: str, actor: User, details: dict[str, Any] | None = None
) -> None:
    audit.record(
        actor=actor,
        verb=f"{listener.kind}.{verb}",
        object_kind=listener.kind,
        object_id=listener.pk,
        details=details or {},
        changed=listener,
    )


def create_listener(
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
        TooManyListenersError: there are as many as may be (409).
    """
    listener = kind(events=sorted(set(events)), description=description)
    _create(actor, listener, **endpoint)
    return listener


def create_webhook(
    *, actor: User, url: str, events: Sequence[str] = (), description: str = ""
) -> tuple[Webhook, str]:
    """Add a webhook as `create_listener` does; return it with its secret.

    The secret is not shown again.
    """
    secret = new_secret()
    webhook = Webhook(
        events=sorted(set(events)),
        description=description,
        sealed_secret=seal(secret.encode(), purpose=SECRET_PURPOSE),
    )
    _create(actor, webhook, url=url)
    return webhook, secret


def _create(actor: User, listener: Listener, **endpoint: str) -> None:
    kind = type(listener)
    channel = OF_MODEL[kind]
    where = endpoint[channel.endpoint.name]
    recorded = channel.check(where)
    setattr(listener, channel.endpoint.name, where)
    with transaction.atomic():
        most = getattr(settings, channel.maximum)
        if kind._default_manager.count() >= most:
            raise TooManyListenersError(f"there are {most} {channel.plural} already")
        _insert(channel, listener)
        _record(listener, "created", actor, recorded | {"events": listener.events})


def _insert(channel: Channel, listener: Listener) -> None:
    """Write a listener, unless its endpoint is there already and must not be twice."""
    if channel.duplicate is None:
        listener.save(force_insert=True)
        return
    try:
        with transaction.atomic():
            listener.save(force_insert=True)
    except IntegrityError:
        said = f"this {channel.endpoint.name} is told already"
        raise channel.duplicate(said) from None


def change_listener(
    *,
    actor: User,
    kind: type[Kind],
    listener_id: UUID,
    changes: dict[str, Any],
    expected: frozenset[str] | None = None,
) -> Kind:
    """Change the named fields of a listener and write down which.

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
        listener = _locked(kind, listener_id)
        check_match(listener, expected)
        changed = [name for name in fields if getattr(listener, name) != fields[name]]
        if not changed:
            return listener
        for name in changed:
            setattr(listener, name, fields[name])
        listener.updated_at = now
        if "enabled" in changed:
            listener.disabled_reason = ""
        listener.save()
        if "enabled" in changed and not listener.enabled:
            disable(listener, BY_A_PERSON, now=now)
        _record(
            listener,
            "changed",
            actor,
            {
                "fields": sorted(changed),
                **{x: fields[x] for x in ("enabled", "events") if x in changed},
            },
        )
    return listener


def delete_listener(*, actor: User, kind: type[Listener], listener_id: UUID) -> None:
    """Remove a listener with the log of its deliveries.

    Raises:
        NotFoundError of the kind: there is none (404).
    """
    with transaction.atomic():
        listener = _locked(kind, listener_id)
        _record(listener, "deleted", actor)
        listener.delete()


def send_test(*, actor: User, kind: type[Listener], listener_id: UUID) -> Delivery:
    """Send a listener a notification that tells nothing else.

    Raises:
        NotFoundError of the kind: there is none (404).
        ConflictError of the kind: it is disabled and wants nothing (409).
    """
    with transaction.atomic():
        listener = _locked(kind, listener_id)
        _refuse_disabled(listener)
        delivery = enqueue_test(listener, now=timezone.now())
        _record(listener, "tested", actor, {"delivery": str(delivery.pk)})
    return delivery


def resend(
    *, actor: User, kind: type[Listener], listener_id: UUID, delivery_id: UUID
) -> Delivery:
    """Send a delivery anew, whatever became of it, with all its attempts.

    Raises:
        NotFoundError of the kind, DeliveryNotFoundError (404).
        ConflictError of the kind: it is disabled and wants nothing more (409).
    """
    with transaction.atomic():
        listener = _locked(kind, listener_id)
        delivery = (
            Delivery.objects.of(listener)
            .select_for_update(of=("self",), no_key=True)
            .select_related("notification")
            .filter(pk=delivery_id)
            .first()
        )
        if delivery is None:
            raise DeliveryNotFoundError("there is no such delivery")
        _refuse_disabled(listener)
        delivery.status = DeliveryStatus.PENDING
        delivery.attempts_before_resend = delivery.attempts
        delivery.next_attempt_at = timezone.now()
        delivery.delivered_at = None
        delivery.save()
        _record(listener, "resent", actor, {"delivery": str(delivery.pk)})
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
        webhook.sealed_secret = seal(secret.encode(), purpose=SECRET_PURPOSE)
        webhook.updated_at = now
        webhook.save()
        _record(webhook, "secret-rotated", actor)
    return webhook, secret
