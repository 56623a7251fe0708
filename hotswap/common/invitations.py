"""Invitations: a link by mail, by which a person chooses a password.

The link works once, for three days, and until the person logs in or gets another
password or address: it is signed over these, and kept nowhere.
"""

import logging
from smtplib import SMTPException

from allauth.account.utils import user_pk_to_url_str
from django.conf import settings
from django.contrib.auth.tokens import default_token_generator
from django.core.mail import EmailMessage
from django.urls import reverse

from hotswap.common import audit
from hotswap.common.errors import ConflictError, HotSwapError
from hotswap.common.models import User

logger = logging.getLogger(__name__)
SUBJECT = "Your account at HotSwap"
TEXT = """You have been invited to HotSwap as {role}. Your name there is {username}.

Choose a password here:

{link}

The link works once, for {days} days. If you did not expect this, do nothing.
"""


class NoAddressError(ConflictError):
    code = "no_address"


class DisabledPersonError(ConflictError):
    code = "disabled"


class MailUnavailableError(HotSwapError):
    """The mail server does not take the message (503)."""

    status = 503
    title = "Service unavailable"
    code = "mail_unavailable"


def invite_person(*, actor: User, user: User, server: str) -> None:
    """Mail a person the link to choose a password by.

    Args:
        server: the address by which people reach the console, without a slash.

    Raises:
        NoAddressError: there is no address to send it to.
        DisabledPersonError: the person may not log in.
        MailUnavailableError: the mail server did not take it; nothing has changed.
    """
    if not user.email:
        raise NoAddressError("the person has no email address")
    if not user.is_active or user.role is None:
        raise DisabledPersonError("the person is disabled")
    message = EmailMessage(
        SUBJECT,
        TEXT.format(
            role=user.role.value,
            username=user.username,
            link=f"{server}{invitation_path(user)}",
            days=settings.PASSWORD_RESET_TIMEOUT // 86_400,
        ),
        settings.MAIL_FROM,
        [user.email],
    )
    try:
        message.send()
    except (SMTPException, OSError) as error:
        logger.warning("An invitation could not be sent", exc_info=error)
        raise MailUnavailableError(
            "the mail server does not take the invitation; try again"
        ) from error
    audit.record(
        actor=actor,
        verb="person.invited",
        object_kind="person",
        object_id=user.pseudonym,
    )


def invitation_path(user: User) -> str:
    """Return the path of the page where a person chooses a password, with its key."""
    return reverse(
        "account_reset_password_from_key",
        kwargs={
            "uidb36": user_pk_to_url_str(user),
            "key": default_token_generator.make_token(user),
        },
    )
