"""Personal access tokens: what programs log in with in the name of a person.

Rules:
- A token has a name, a role that is not above the person's, and an end.
- It is shown once; the database has its SHA-256 alone.
- It does what its role and the present role of its person both allow, and nothing once
  the person is disabled or erased, or an Admin has reset the person's password.
"""

import hashlib
import secrets
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from hotswap.common import audit
from hotswap.common.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
)
from hotswap.common.models import PersonalToken, User
from hotswap.common.roles import PEOPLE, Role

PREFIX = "hst_"
# What is shown of a token so that its owner knows it again.
HINT_LENGTH = 8
MAX_DAYS = 366
MAX_TOKENS = 50
# How exactly the last use is written down.
USE_STEP = timedelta(minutes=1)


class TooManyTokensError(ConflictError):
    code = "too_many_tokens"


def create_token(
    *, user: User, name: str, role: Role, lifetime: timedelta, now: datetime
) -> tuple[PersonalToken, str]:
    """Make a token for a person; return it with its text, which is kept nowhere.

    Args:
        lifetime: a day at least, 366 days at most.

    Raises:
        ForbiddenError: the role is above the person's.
        InvalidInputError: the lifetime is too short or too long.
        TooManyTokensError: 50 of theirs are usable already.
    """
    if not timedelta(days=1) <= lifetime <= timedelta(days=MAX_DAYS):
        raise InvalidInputError(f"a token lasts 1 to {MAX_DAYS} days")
    text = f"{PREFIX}{secrets.token_urlsafe(32)}"
    with transaction.atomic():
        owner = User.objects.select_for_update(no_key=True).get(pk=user.pk)
        if not owner.may(role):
            raise ForbiddenError(f"you are no {role.value}")
        if usable_tokens(owner, now).count() >= MAX_TOKENS:
            raise TooManyTokensError(f"{MAX_TOKENS} tokens at most: revoke one first")
        token = PersonalToken.objects.create(
            user=owner,
            name=name,
            role=role.value,
            digest=_digest(text),
            hint=text[:HINT_LENGTH],
            created_at=now,
            expires_at=now + lifetime,
        )
        audit.record(
            actor=user,
            verb="person.token-created",
            object_kind="person",
            object_id=user.pseudonym,
            details={
                "token": str(token.pk),
                "role": role.value,
                "expiresAt": token.expires_at,
            },
        )
    return token, text


def usable_tokens(user: User, now: datetime) -> QuerySet[PersonalToken]:
    """Return the tokens of a person that still open something, the newest first."""
    usable = PersonalToken.objects.filter(
        user=user, revoked_at__isnull=True, expires_at__gt=now
    )
    return usable.order_by("-created_at")


def revoke_token(*, actor: User, user: User, token_id: UUID, now: datetime) -> None:
    """End a token of a person at once.

    Raises:
        NotFoundError: the person has no such token, or it has ended.
    """
    with transaction.atomic():
        tokens = usable_tokens(user, now).filter(pk=token_id)
        if not tokens.update(revoked_at=now):
            raise NotFoundError("this token has ended already")
        audit.record(
            actor=actor,
            verb="person.token-revoked",
            object_kind="person",
            object_id=user.pseudonym,
            details={"token": str(token_id)},
        )


def token_of(text: str, now: datetime) -> PersonalToken | None:
    """Return the token that a text is, with its person in the role that it gives.

    None where it is unknown, has ended, or its person may do nothing. That it was used
    is written down once a minute.
    """
    token = (
        PersonalToken.objects.select_related("user")
        .prefetch_related("user__groups")
        .filter(digest=_digest(text), revoked_at__isnull=True, expires_at__gt=now)
        .first()
    )
    if token is None or token.user.role is None:
        return None
    token.user.role = lower_role(token.user.role, Role(token.role))
    if token.last_used_at is None or now - token.last_used_at >= USE_STEP:
        PersonalToken.objects.filter(pk=token.pk).update(last_used_at=now)
    return token


def lower_role(one: Role, other: Role) -> Role:
    """Return the lower one of two roles of people."""
    return max(one, other, key=PEOPLE.index)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
