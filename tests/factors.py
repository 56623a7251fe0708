"""Second factors of people in tests: an authenticator app, and its codes."""

import time

from allauth.account.authentication import AUTHENTICATION_METHODS_SESSION_KEY
from allauth.account.internal.flows.login import record_authentication
from allauth.mfa.adapter import get_adapter
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import (
    TOTP,
    format_hotp_value,
    generate_totp_secret,
    hotp_value,
)
from django.test import Client, RequestFactory

from hotswap.common.models import User


def add_app(user: User) -> str:
    """Give a person an authenticator app; return its secret."""
    secret = generate_totp_secret()
    TOTP.activate(user, secret)
    return secret


def add_recovery_codes(user: User) -> list[str]:
    """Give a person recovery codes; return them."""
    return RecoveryCodes.activate(user).generate_codes()


def code_of(secret: str, *, later: int = 0) -> str:
    """Return the code that an app shows, now or so many periods later."""
    return format_hotp_value(hotp_value(secret, int(time.time()) // 30 + later))


def stored_secret(user: User) -> str:
    """Return the secret of a person's app as the database has it."""
    found: str = Authenticator.objects.get(user=user, type="totp").data["secret"]
    return found


def opened(stored: str) -> str:
    """Return a stored secret in clear."""
    return str(get_adapter().decrypt(stored))


def log_in_by_password(client: Client, user: User, *, seconds_ago: int = 0) -> None:
    """Log a person in as the form of the login does, some time ago."""
    client.force_login(user)
    request = RequestFactory().get("/")
    session = request.session = client.session
    record_authentication(request, user, "password", username=user.username)
    session[AUTHENTICATION_METHODS_SESSION_KEY][-1]["at"] -= seconds_ago
    session.save()
