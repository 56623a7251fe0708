"""The audit trail of logins: who came in, who was refused, who left.

Django's signals tell of every way in, so that none is forgotten. A name that was typed
is never written down: it may be a password. The trail has the pseudonym of the account
that it names, or `unknown`.
"""

from typing import Any

from django.contrib.auth.signals import (
    user_logged_in,
    user_logged_out,
    user_login_failed,
)
from django.http import HttpRequest
from django.utils import timezone

from hotswap.common import audit
from hotswap.common.models import User
from hotswap.common.sessions import begin_session

UNKNOWN = "unknown"
CONSOLE, API = "console", "api"


def connect() -> None:
    """Write down what happens from now on."""
    user_logged_in.connect(_note_login, dispatch_uid="hotswap.login")
    user_logged_out.connect(_note_logout, dispatch_uid="hotswap.logout")
    user_login_failed.connect(_note_failure, dispatch_uid="hotswap.login-failed")


def note_login(user: User, *, via: str, **details: Any) -> None:
    """Write down that a person has logged in."""
    audit.record(
        actor=user,
        verb="person.logged-in",
        object_kind="person",
        object_id=user.pseudonym,
        details={"via": via, **details},
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
    note_login(user, via=CONSOLE)


def _note_logout(user: User | None, **_: Any) -> None:
    if isinstance(user, User):
        note_logout(user, via=CONSOLE)


def _note_failure(credentials: dict[str, Any], **_: Any) -> None:
    name = credentials.get("username") or ""
    person = User.objects.filter(username=name).first()
    audit.record(
        actor=None,
        verb="person.login-failed",
        object_kind="person",
        object_id=UNKNOWN if person is None else person.pseudonym,
    )
