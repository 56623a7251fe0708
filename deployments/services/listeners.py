"""Who is told of events: webhooks and mail addresses."""

from collections.abc import Sequence
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from deployments.choices import DeliveryStatus
from deployments.exceptions import (
    DeliveryNotFoundError,
    RecipientKnownError,
    RecipientNotFoundError,
    TooManyListenersError,
    WebhookDisabledError,
    WebhookNotFoundError,
    WebhookRefusedError,
)
from deployments.models import Delivery, MailRecipient, Webhook
from deployments.notifications.addresses import TargetRefusedError, resolve
from deployments.notifications.outbox import SECRET_PURPOSE
from deployments.notifications.signing import new_secret
from deployments.notifications.telling import wake_a_worker
from hotswap.common import audit
from hotswap.common.errors import FieldError
from hotswap.common.keyring import seal
from hotswap.common.models import User


def create_webhook(
    *, actor: User, url: str, events: Sequence[str] = (), description: str = ""
) -> tuple[Webhook, str]:
    """Add an endpoint; return it with its secret, which is not shown again.

    Raises:
        WebhookRefusedError: nothing may be sent to this URL (400).
        TooManyListenersError: there are as many as may be (409).
    """
    try:
        target = resolve(url, allowed=settings.WEBHOOK_ALLOWED_NETWORKS)
    except TargetRefusedError as error:
        said = str(error)
        raise WebhookRefusedError(
            f"url: {said}", errors=[FieldError("/url", "webhook_refused", said)]
        ) from None
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
        audit.record(
            actor=actor,
            verb="webhook.created",
            object_kind="webhook",
            object_id=webhook.pk,
            details={"host": target.host, "events": webhook.events},
        )
    return webhook, secret


def delete_webhook(*, actor: User, webhook_id: UUID) -> None:
    """Remove an endpoint with the log of its deliveries.

    Raises:
        WebhookNotFoundError: there is none (404).
    """
    with transaction.atomic():
        webhook = Webhook.objects.select_for_update().filter(pk=webhook_id).first()
        if webhook is None:
            raise WebhookNotFoundError("there is no such webhook")
        webhook.delete()
        audit.record(
            actor=actor,
            verb="webhook.deleted",
            object_kind="webhook",
            object_id=webhook_id,
        )


def resend(*, actor: User, webhook_id: UUID, delivery_id: UUID) -> Delivery:
    """Send a delivery anew, whatever became of it, with all its attempts.

    Raises:
        WebhookNotFoundError, DeliveryNotFoundError: there is none (404).
        WebhookDisabledError: its endpoint wants nothing more (409).
    """
    now = timezone.now()
    with transaction.atomic():
        webhook = (
            Webhook.objects.select_for_update(no_key=True).filter(pk=webhook_id).first()
        )
        if webhook is None:
            raise WebhookNotFoundError("there is no such webhook")
        delivery = (
            Delivery.objects.select_for_update(of=("self",), no_key=True)
            .select_related("notification")
            .filter(pk=delivery_id, webhook=webhook)
            .first()
        )
        if delivery is None:
            raise DeliveryNotFoundError("there is no such delivery")
        if not webhook.enabled:
            raise WebhookDisabledError(
                f"the webhook is disabled: {webhook.disabled_reason}"
            )
        delivery.status = DeliveryStatus.PENDING
        delivery.attempts_before_resend = delivery.attempts
        delivery.next_attempt_at = now
        delivery.delivered_at = None
        delivery.save()
        audit.record(
            actor=actor,
            verb="webhook.resent",
            object_kind="webhook",
            object_id=webhook.pk,
            details={"delivery": str(delivery.pk)},
        )
        transaction.on_commit(wake_a_worker, robust=True)
    return delivery


def create_mail_recipient(
    *, actor: User, address: str, events: Sequence[str] = ()
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
            address=address, defaults={"events": sorted(set(events))}
        )
        if not is_new:
            raise RecipientKnownError("this address is told already")
        # The trail cannot forget, so it does not learn the address.
        audit.record(
            actor=actor,
            verb="mail-recipient.created",
            object_kind="mail-recipient",
            object_id=recipient.pk,
            details={"events": recipient.events},
        )
    return recipient


def delete_mail_recipient(*, actor: User, recipient_id: UUID) -> None:
    """Remove a mail address with the log of its mails.

    Raises:
        RecipientNotFoundError: there is none (404).
    """
    with transaction.atomic():
        recipient = (
            MailRecipient.objects.select_for_update().filter(pk=recipient_id).first()
        )
        if recipient is None:
            raise RecipientNotFoundError("there is no such mail recipient")
        recipient.delete()
        audit.record(
            actor=actor,
            verb="mail-recipient.deleted",
            object_kind="mail-recipient",
            object_id=recipient_id,
        )
