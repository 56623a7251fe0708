"""Webhooks: signed requests to an endpoint (Standard Webhooks)."""

import json
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from django.conf import settings

from deployments.exceptions import (
    WebhookDisabledError,
    WebhookNotFoundError,
    WebhookRefusedError,
)
from deployments.models import WEBHOOK_PURPOSE, Delivery, Webhook
from deployments.notifications.addresses import TargetRefusedError, resolve
from deployments.notifications.channels.types import Attempt, Channel, Endpoint
from deployments.notifications.sending import post
from deployments.notifications.signing import signed_headers
from hotswap.common.errors import FieldError
from hotswap.common.keyring import unseal


def _check(url: str) -> dict[str, Any]:
    """Name the host of a URL, once all that it leads to is found permitted.

    The path of a URL is often a secret in itself, and is not recorded.

    Raises:
        WebhookRefusedError: nothing may be sent to this URL (400).
    """
    try:
        return {"host": resolve(url, allowed=settings.WEBHOOK_ALLOWED_NETWORKS).host}
    except TargetRefusedError as error:
        reason = str(error)
        raise WebhookRefusedError(
            f"url: {reason}", errors=[FieldError("/url", "webhook_refused", reason)]
        ) from None


def _attempt(batch: Sequence[Delivery], now: datetime) -> Attempt:
    (row,) = batch
    webhook = row.webhook
    assert webhook is not None
    payload = row.notification.payload
    body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    return partial(
        post,
        url=webhook.url,
        headers={
            "content-type": "application/json",
            "user-agent": "HotSwap",
            **signed_headers(
                secrets=_secrets(webhook, now),
                message_id=str(row.notification_id),
                timestamp=int(now.timestamp()),
                body=body,
            ),
        },
        body=body,
        allowed=settings.WEBHOOK_ALLOWED_NETWORKS,
    )


def _secrets(webhook: Webhook, now: datetime) -> list[str]:
    """Return the secret, and for an overlap the former one."""
    sealed = [webhook.sealed_secret]
    until = webhook.previous_secret_until
    if webhook.previous_sealed_secret is not None and until is not None and now < until:
        sealed.append(webhook.previous_sealed_secret)
    return [unseal(bytes(each), purpose=WEBHOOK_PURPOSE).decode() for each in sealed]


WEBHOOK = Channel(
    model=Webhook,
    route="webhooks",
    name="webhook",
    icon="webhook",
    about="The endpoints that events are sent to, newest first.",
    about_adding="Add an endpoint; the answer alone holds its secret.",
    empty_words=(
        "There is no webhook.",
        "Add one, and its endpoint is told by signed requests of what happens.",
    ),
    maximum=20,
    missing=WebhookNotFoundError,
    disabled=WebhookDisabledError,
    endpoint=Endpoint(
        "url",
        label="URL",
        hint="Public and over https://, unless its network is allowed by name.",
    ),
    check=_check,
    make_attempt=_attempt,
    has_secret=True,
    is_for_people=False,
)
