"""Gateways: short messages by SMS and chat, through services that apprise knows."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from django.conf import settings

from deployments.exceptions import (
    AppriseNotInstalledError,
    GatewayDisabledError,
    GatewayNotFoundError,
    GatewayRefusedError,
)
from deployments.models import Delivery, Gateway, scheme_of
from deployments.notifications.addresses import TargetRefusedError
from deployments.notifications.channels.types import Attempt, Channel, Endpoint
from deployments.notifications.gateways import (
    AppriseMissingError,
    check_url,
    send_message,
)
from deployments.notifications.texts import short_of, subject_of
from hotswap.common.errors import FieldError


def _check(url: str) -> dict[str, Any]:
    """Name the scheme of a URL that may be used; the rest of it is mostly secrets.

    Raises:
        GatewayRefusedError: nothing may be sent to this URL (400).
        AppriseNotInstalledError: the optional library is missing (409).
    """
    try:
        check_url(url, allowed=settings.WEBHOOK_ALLOWED_NETWORKS)
    except TargetRefusedError as error:
        reason = str(error)
        raise GatewayRefusedError(
            f"url: {reason}", errors=[FieldError("/url", "gateway_refused", reason)]
        ) from None
    except AppriseMissingError as error:
        raise AppriseNotInstalledError(str(error)) from None
    return {"scheme": scheme_of(url)}


def _attempt(batch: Sequence[Delivery], now: datetime) -> Attempt:
    (row,) = batch
    assert row.gateway is not None
    payload = row.notification.payload
    return partial(
        send_message,
        url=row.gateway.url,
        title=subject_of(payload),
        text=short_of(payload),
        allowed=settings.WEBHOOK_ALLOWED_NETWORKS,
    )


GATEWAY = Channel(
    model=Gateway,
    route="gateways",
    name="gateway",
    icon="sms",
    about="The services that pass on short messages, newest first.",
    about_adding="Add a service by its apprise URL, of which only the scheme is shown.",
    empty_words=(
        "Nobody is told by SMS or chat.",
        "Add the URL of a service, and short messages say what happens.",
    ),
    maximum=10,
    missing=GatewayNotFoundError,
    disabled=GatewayDisabledError,
    endpoint=Endpoint(
        "url",
        label="Apprise URL",
        shown="scheme",
        shown_help="all that is shown of the URL",
        input_help="an apprise URL; it is not shown again",
        hint="It holds secrets: only what stands before :// is shown again.",
        placeholder="twilio://account:token@from/to",
        column="Gateway",
    ),
    check=_check,
    make_attempt=_attempt,
)
