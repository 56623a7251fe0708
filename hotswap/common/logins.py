"""The logins of a person that still hold: sessions of the console, and of the API."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Min

from hotswap.common import audit, login_audit
from hotswap.common.errors import NotFoundError
from hotswap.common.models import ConsoleSession, RefreshToken, User

# Shown of one person, the latest first.
MAX_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Login:
    """A login that still holds.

    Attributes:
        id: of the session, or of the family of refresh tokens.
        via: `console` or `api`.
        began_at: when the person logged in.
        seen_at: of the console the last request (to a minute), of the API the last
            exchange of the refresh token.
        ends_at: when it ends if it is not used again.
        address: from where, if that is known.
        user_agent: the browser, "" if unknown.
    """

    id: UUID
    via: str
    began_at: datetime
    seen_at: datetime
    ends_at: datetime
    address: str | None
    user_agent: str


def current_logins(*, user: User, now: datetime) -> list[Login]:
    """Return the logins of a person, the last used first, 50 of each kind at most."""
    sessions = ConsoleSession.objects.filter(user=user, expire_date__gt=now)
    found = [
        Login(
            id=each.public_id,
            via=login_audit.CONSOLE,
            began_at=each.created_at,
            seen_at=each.last_seen_at,
            ends_at=each.expire_date,
            address=each.address,
            user_agent=each.user_agent,
        )
        for each in sessions.order_by("-last_seen_at")[:MAX_SHOWN]
    ]
    usable = RefreshToken.objects.filter(
        user=user, used_at__isnull=True, revoked_at__isnull=True, expires_at__gt=now
    ).order_by("-created_at")[:MAX_SHOWN]
    families = {each.family: each for each in usable}
    begun = dict(
        RefreshToken.objects.filter(family__in=families)
        .values("family")
        .annotate(began_at=Min("created_at"))
        .values_list("family", "began_at")
    )
    found += [
        Login(
            id=family,
            via=login_audit.API,
            began_at=begun[family],
            seen_at=token.created_at,
            ends_at=token.expires_at,
            address=None,
            user_agent="",
        )
        for family, token in families.items()
    ]
    return sorted(found, key=lambda each: each.seen_at, reverse=True)


def end_login(*, actor: User, user: User, login_id: UUID, now: datetime) -> None:
    """End one login of a person at once.

    An access token that was given out for it lives on for 15 minutes at most.

    Raises:
        NotFoundError: the person has no such login, or it has ended.
    """
    with transaction.atomic():
        ended, _ = ConsoleSession.objects.filter(user=user, public_id=login_id).delete()
        ended += RefreshToken.objects.filter(
            user=user, family=login_id, revoked_at__isnull=True
        ).update(revoked_at=now)
        if not ended:
            raise NotFoundError("this login has ended already")
        audit.record(
            actor=actor,
            verb="person.login-ended",
            object_kind="person",
            object_id=user.pseudonym,
            details={"login": str(login_id)},
        )


def revoke_refresh_token(*, refresh: str, now: datetime) -> None:
    """End the login that a refresh token belongs to; an unknown one changes nothing."""
    digest = hashlib.sha256(refresh.encode()).hexdigest()
    with transaction.atomic():
        token = (
            RefreshToken.objects.select_related("user").filter(digest=digest).first()
        )
        if token is None:
            return
        # As an exchange does: it may be adding a token to the family right now.
        family = RefreshToken.objects.filter(family=token.family).order_by("pk")
        family.select_for_update(no_key=True).first()
        if family.filter(revoked_at__isnull=True).update(revoked_at=now):
            login_audit.note_logout(token.user, via=login_audit.API)
