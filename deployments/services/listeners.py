"""Who is told of events: webhooks, mail addresses and gateways."""

from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from deployments.choices import DeliveryStatus
from deployments.exceptions import (
    AppriseNotInstalledError,
    DeliveryNotFoundError,
    GatewayDisabledError,
    GatewayNotFoundError,
    GatewayRefusedError,
    RecipientDisabledError,
    RecipientKnownError,
    RecipientNotFoundError,
    TooManyListenersError,
    WebhookDisabledError,
    WebhookNotFoundError,
    WebhookRefusedError,
)
from deployments.models import Delivery, Gateway, Listener, MailRecipient, Webhook
from deployments.notifications.addresses import TargetRefusedError, resolve
from deployments.notifications.gateways import AppriseMissingError, check_url
from deployments.notifications.outbox import SECRET_PURPOSE, disable
from deployments.notifications.signing import new_secret
from deployments.notifications.telling import tell_test, wake_a_worker
from hotswap.common import audit
from hotswap.common.errors import ConflictError, FieldError, NotFoundError
from hotswap.common.etags import check_match
from hotswap.common.keyring import seal
from hotswap.common.models import User

MISSING: dict[type[Listener], type[NotFoundError]] = {
    Webhook: WebhookNotFoundError,
    MailRecipient: RecipientNotFoundError,
    Gateway: GatewayNotFoundError,
}
DISABLED: dict[type[Listener], type[ConflictError]] = {
    Webhook: WebhookDisabledError,
    MailRecipient: RecipientDisabledError,
    Gateway: GatewayDisabledError,
}
Kind = TypeVar("Kind", bound=Listener)
BY_A_PERSON = "disabled by a person"


# --- Any of them -------------------------------------------------------------------


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
    return MISSING[kind](f"there is no such {kind._meta.verbose_name}")


def _refuse_disabled(listener: Listener) -> None:
    if not listener.enabled:
        raise DISABLED[type(listener)](
            f"the {listener._meta.verbose_name} is disabled: {listener.disabled_reason}"
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
    )


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
        changes: any of `events`, `description`, `enabled`, and `url` of a webhook or
            gateway.

    Raises:
        NotFoundError of the kind, PreconditionFailedError.
        WebhookRefusedError, GatewayRefusedError: nothing may be sent to the new URL
            (400).
        AppriseNotInstalledError: there is nothing to check the URL with (409).
    """
    fields = dict(changes)
    if "url" in fields:
        check = _check_gateway if kind is Gateway else _check_url
        check(fields["url"])
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
        delivery = tell_test(listener, now=timezone.now())
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


# --- Webhooks ----------------------------------------------------------------------


def _check_url(url: str) -> str:
    """Return the host that a URL names, once all it leads to is found permitted."""
    try:
        return resolve(url, allowed=settings.WEBHOOK_ALLOWED_NETWORKS).host
    except TargetRefusedError as error:
        said = str(error)
        raise WebhookRefusedError(
            f"url: {said}", errors=[FieldError("/url", "webhook_refused", said)]
        ) from None


def create_webhook(
    *, actor: User, url: str, events: Sequence[str] = (), description: str = ""
) -> tuple[Webhook, str]:
    """Add an endpoint; return it with its secret, which is not shown again.

    Raises:
        WebhookRefusedError: nothing may be sent to this URL (400).
        TooManyListenersError: there are as many as may be (409).
    """
    host = _check_url(url)
    secret = new_secret()
    with transaction.atomic():
        if Webhook.objects.count() >= settings.MAX_WEBHOOKS:
            raise TooManyListenersError(
                f"there are {settings.MAX_WEBHOOKS} webhooks already"
            )
        webhook = Webhook.objects.create(
            url=url,
            events=sorted(set(events)),
            description=description,
            sealed_secret=seal(secret.encode(), purpose=SECRET_PURPOSE),
        )
        # The path of a URL is often a secret in itself.
        _record(webhook, "created", actor, {"host": host, "events": webhook.events})
    return webhook, secret


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


# --- Mail --------------------------------------------------------------------------


def create_mail_recipient(
    *, actor: User, address: str, events: Sequence[str] = (), description: str = ""
) -> MailRecipient:
    """Add a mail address.

    Raises:
        RecipientKnownError: it is there already (409).
        TooManyListenersError: there are as many as may be (409).
    """
    with transaction.atomic():
        if MailRecipient.objects.count() >= settings.MAX_MAIL_RECIPIENTS:
            raise TooManyListenersError(
                f"there are {settings.MAX_MAIL_RECIPIENTS} mail recipients already"
            )
        recipient, is_new = MailRecipient.objects.get_or_create(
            address=address,
            defaults={"events": sorted(set(events)), "description": description},
        )
        if not is_new:
            raise RecipientKnownError("this address is told already")
        # The trail cannot forget, so it does not learn the address.
        _record(recipient, "created", actor, {"events": recipient.events})
    return recipient


# --- Gateways ----------------------------------------------------------------------


def _check_gateway(url: str) -> None:
    try:
        check_url(url, allowed=settings.WEBHOOK_ALLOWED_NETWORKS)
    except TargetRefusedError as error:
        said = str(error)
        raise GatewayRefusedError(
            f"url: {said}", errors=[FieldError("/url", "gateway_refused", said)]
        ) from None
    except AppriseMissingError as error:
        raise AppriseNotInstalledError(str(error)) from None


def create_gateway(
    *, actor: User, url: str, events: Sequence[str] = (), description: str = ""
) -> Gateway:
    """Add a service that passes on short messages.

    Args:
        url: an apprise URL; nothing but its scheme is ever shown again.

    Raises:
        GatewayRefusedError: nothing may be sent to this URL (400).
        AppriseNotInstalledError: the optional library is missing (409).
        TooManyListenersError: there are as many as may be (409).
    """
    _check_gateway(url)
    with transaction.atomic():
        if Gateway.objects.count() >= settings.MAX_GATEWAYS:
            raise TooManyListenersError(
                f"there are {settings.MAX_GATEWAYS} gateways already"
            )
        gateway = Gateway(events=sorted(set(events)), description=description)
        gateway.url = url
        gateway.save()
        _record(
            gateway,
            "created",
            actor,
            {"scheme": gateway.scheme, "events": gateway.events},
        )
    return gateway
