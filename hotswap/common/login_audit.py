"""The audit trail of logins: who came in, who was refused, who left, with what.

The signals of Django and allauth tell of every way in, so that none is forgotten. A
second factor that is set up ends every login that had none. A name that was typed
is never written down: it may be a password. The trail has the pseudonym of the account
that it names, or `unknown`.
"""

from typing import Any

from allauth.account.authentication import get_authentication_records
from allauth.account.internal.flows.login import record_authentication
from allauth.mfa import signals as mfa_signals
from allauth.mfa.models import Authenticator
from django.contrib.auth.models import update_last_login
from django.contrib.auth.signals import (
    user_logged_in,
    user_logged_out,
    user_login_failed,
)
from django.http import HttpRequest
from django.utils import timezone

from hotswap.common import audit
from hotswap.common.models import User
from hotswap.common.people import end_logins
from hotswap.common.second_factors import take_code
from hotswap.common.sessions import begin_session

UNKNOWN = "unknown"
CONSOLE, API, SSO = "console", "api", "sso"


def connect() -> None:
    """Write down what happens from now on."""
    user_logged_in.connect(_note_login, dispatch_uid="hotswap.login")
    user_logged_out.connect(_note_logout, dispatch_uid="hotswap.logout")
    user_login_failed.connect(_note_failure, dispatch_uid="hotswap.login-failed")
    mfa_signals.authentication_failed.connect(
        _note_wrong_code, dispatch_uid="hotswap.wrong-code"
    )
    mfa_signals.authenticator_added.connect(
        _note_added_factor, dispatch_uid="hotswap.factor-added"
    )
    mfa_signals.authenticator_removed.connect(
        _note_removed_factor, dispatch_uid="hotswap.factor-removed"
    )
    mfa_signals.authenticator_reset.connect(
        _note_new_codes, dispatch_uid="hotswap.recovery-codes"
    )


def note_login(user: User, *, via: str, second_factor: bool) -> None:
    """Write down that a person has logged in.

    Django does the first for sessions alone.
    """
    update_last_login(sender=User, user=user)
    audit.record(
        actor=user,
        verb="person.logged-in",
        object_kind="person",
        object_id=user.pseudonym,
        details={"via": via, "secondFactor": second_factor},
    )


def note_failure(user: User | None) -> None:
    """Write down that a login was refused, by the account that it named."""
    audit.record(
        actor=None,
        verb="person.login-failed",
        object_kind="person",
        object_id=UNKNOWN if user is None else user.pseudonym,
    )


def note_logout(user: User, *, via: str) -> None:
    """Write down that a person has logged out."""
    audit.record(
        actor=user,
        verb="person.logged-out",
        object_kind="person",
        object_id=user.pseudonym,
        details={"via": via},
    )


def _note_login(request: HttpRequest, user: User, **_: Any) -> None:
    begin_session(request, timezone.now())
    records = get_authentication_records(request, user)
    methods = {each["method"] for each in records}
    note_login(
        user,
        via=SSO if "socialaccount" in methods else CONSOLE,
        second_factor="mfa" in methods,
    )


def _note_logout(user: User | None, **_: Any) -> None:
    if isinstance(user, User):
        note_logout(user, via=CONSOLE)


def _note_failure(credentials: dict[str, Any], **_: Any) -> None:
    name = credentials.get("username") or ""
    note_failure(User.objects.filter(username=name).first())


def _note_wrong_code(user: User, **_: Any) -> None:
    note_failure(user)


def _note_added_factor(
    request: HttpRequest, user: User, authenticator: Authenticator, **_: Any
) -> None:
    _note_factor(user, "added", authenticator)
    if authenticator.type == Authenticator.Type.RECOVERY_CODES:
        return
    if authenticator.type == Authenticator.Type.TOTP:
        # The code that it was set up with opens nothing more.
        take_code(user, request.POST.get("code", ""))
    # Whoever has just shown it has used it in this session.
    record_authentication(request, user, "mfa", type=authenticator.type)
    end_logins(user, but=request.session.session_key)


def _note_removed_factor(user: User, authenticator: Authenticator, **_: Any) -> None:
    _note_factor(user, "removed", authenticator)


def _note_new_codes(user: User, authenticator: Authenticator, **_: Any) -> None:
    _note_factor(user, "renewed", authenticator)


def _note_factor(user: User, deed: str, authenticator: Authenticator) -> None:
    audit.record(
        actor=user,
        verb=f"person.second-factor-{deed}",
        object_kind="person",
        object_id=user.pseudonym,
        details={"type": str(authenticator.type)},
    )
