"""Mail: events of a deployment that come together are one mail."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from django.conf import settings

from deployments.exceptions import (
    RecipientDisabledError,
    RecipientKnownError,
    RecipientNotFoundError,
)
from deployments.models import Delivery, MailRecipient
from deployments.notifications.channels.types import Attempt, Channel, Endpoint
from deployments.notifications.sending import send_mail
from deployments.notifications.texts import subject_of, text_of

# How long a mail about a deployment waits for more of its events.
MAIL_GATHERING = timedelta(seconds=30)


def _attempt(batch: Sequence[Delivery], now: datetime) -> Attempt:
    row = batch[0]
    assert row.recipient is not None
    payloads = [each.notification.payload for each in batch]
    return partial(
        send_mail,
        sender=settings.MAIL_FROM,
        address=row.recipient.address,
        subject=subject_of(*payloads),
        text=text_of(*payloads),
        message_id=str(row.pk),
    )


MAIL = Channel(
    model=MailRecipient,
    route="mail-recipients",
    name="mail recipient",
    icon="mail",
    about="The mail addresses that events are sent to, newest first.",
    about_adding="Add a mail address.",
    empty_words=(
        "Nobody is told by mail.",
        "Add an address, and mails say what becomes of deployments.",
    ),
    maximum=50,
    missing=RecipientNotFoundError,
    disabled=RecipientDisabledError,
    duplicate=RecipientKnownError,
    endpoint=Endpoint(
        "address",
        label="Mail address",
        is_mail_address=True,
        maximum_length=254,
        is_changeable=False,
        column="Address",
    ),
    make_attempt=_attempt,
    has_own_queue=False,
    gathering=MAIL_GATHERING,
)
