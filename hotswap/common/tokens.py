"""Access tokens of people and devices, and the refresh tokens of people.

Rules:
- Tokens of people and of devices differ in type and audience; neither is taken for
  the other.
- One ring of keys signs and verifies (ES256, `kid` in the header); no other algorithm
  is accepted.
- A refresh token works once; a second use revokes its whole family.
"""

import hashlib
import secrets
import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import jwt
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from rest_framework_simplejwt.exceptions import TokenBackendError, TokenError
from rest_framework_simplejwt.tokens import Token

from hotswap.common.keyring import token_keys
from hotswap.common.models import RefreshToken, User

ALGORITHM = "ES256"
ISSUER = "hotswap"
# The claim of a person's token that says that the login was by two factors.
SECOND_FACTOR = "mfa"
# PyJWT does not catch all that Python raises for a time that is not a number.
UNREADABLE = (jwt.InvalidTokenError, ValueError, TypeError, OverflowError)
# The beginning of the year 9999.
MAX_EPOCH_SECONDS = 253_370_764_800


class KeyringBackend:
    """Sign with the newest key of the ring, verify with the one that `kid` names."""

    def __init__(self, audience: str) -> None:
        self.audience = audience

    def get_leeway(self) -> timedelta:
        """Tell simplejwt how long after its end a token is still taken: not at all."""
        return timedelta(0)

    def encode(self, payload: dict[str, Any]) -> str:
        key = token_keys()[-1]
        claims = payload | {"aud": self.audience, "iss": ISSUER}
        return jwt.encode(
            claims, key.private, algorithm=ALGORITHM, headers={"kid": key.kid}
        )

    def decode(self, token: str | bytes, verify: bool = True) -> dict[str, Any]:
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = next((key for key in token_keys() if key.kid == kid), None)
            if key is None:
                raise TokenBackendError("unknown key")
            claims: dict[str, Any] = jwt.decode(
                token,
                key.public,
                algorithms=[ALGORITHM],
                audience=self.audience,
                issuer=ISSUER,
                options={"verify_signature": verify, "require": ["exp", "iat", "sub"]},
            )
        except UNREADABLE as error:
            raise TokenBackendError("token is invalid or expired") from error
        if not all(_is_moment(claims[name]) for name in ("exp", "iat")):
            # A text of digits passes for a number there, and for none further on.
            raise TokenBackendError("token has times that are none")
        return claims


def _is_moment(value: Any) -> bool:
    """Tell whether a claim is a time that a calendar has."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value < MAX_EPOCH_SECONDS


class KeyringToken(Token):
    """A token of the ring; subclasses name the type, audience and lifetime."""

    audience: str

    def get_token_backend(self) -> Any:
        return KeyringBackend(self.audience)


class PersonToken(KeyringToken):
    token_type = "person"  # noqa: S105
    audience = "hotswap-people"
    lifetime = settings.PERSON_TOKEN_LIFETIME


class DeviceToken(KeyringToken):
    token_type = "device"  # noqa: S105
    audience = "hotswap-devices"
    lifetime = settings.DEVICE_TOKEN_LIFETIME


# Checking a signature costs more than all else that an idle poll needs. What was
# verified is known by its digest; when it ends is compared at every use.
_verified: dict[bytes, tuple[object, str, float]] = {}
MAX_VERIFIED = 100_000


def verified_subject(text: str, kind: type[KeyringToken]) -> str | None:
    """Return whom a token of a kind speaks of; None where a closer look is needed.

    A token that was given for a certificate is always looked at closely.
    """
    digest = hashlib.sha256(f"{kind.token_type} {text}".encode()).digest()
    ring = token_keys()
    known = _verified.get(digest)
    if known is not None and known[0] is ring:
        return known[1] if known[2] > time.time() else None
    try:
        if token_type(text) != kind.token_type:
            return None
        claims = kind(text)  # type: ignore[arg-type]
        subject = str(uuid.UUID(claims["sub"]))
    except (TokenError, ValueError):
        return None
    if claims.get("certificate"):
        return None
    if len(_verified) >= MAX_VERIFIED:
        _verified.clear()
    _verified[digest] = (ring, subject, float(claims["exp"]))
    return subject


def token_type(token: str) -> str | None:
    """Read what kind of token this says it is; nothing is verified."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return None
    kind = claims.get("token_type")
    return kind if isinstance(kind, str) else None


@dataclass(frozen=True, slots=True)
class TokenPair:
    access: str
    refresh: str
    expires_in_seconds: int
    role: str


def password_stamp(user: User) -> str:
    """Return a value that changes with the password, so that old tokens end."""
    return user.get_session_auth_hash()[:16]


def person_access_token(user: User, *, second_factor: bool = False) -> str:
    """Sign an access token for a person (15 minutes).

    Args:
        second_factor: whether the person has logged in with two factors.
    """
    token = PersonToken()
    token["sub"] = str(user.pseudonym)
    token["stamp"] = password_stamp(user)
    if second_factor:
        token[SECOND_FACTOR] = True
    return str(token)


def issue_token_pair(
    *, user: User, family: uuid.UUID | None = None, second_factor: bool = False
) -> TokenPair:
    """Sign an access token and store a new refresh token of the family.

    Args:
        second_factor: whether the login was by two factors.
    """
    refresh = f"hsr_{secrets.token_urlsafe(32)}"
    now = timezone.now()
    RefreshToken.objects.create(
        digest=hashlib.sha256(refresh.encode()).hexdigest(),
        family=family or uuid.uuid4(),
        user=user,
        stamp=password_stamp(user),
        second_factor=second_factor,
        created_at=now,
        expires_at=now + settings.REFRESH_TOKEN_LIFETIME,
    )
    return TokenPair(
        access=person_access_token(user, second_factor=second_factor),
        refresh=refresh,
        expires_in_seconds=int(settings.PERSON_TOKEN_LIFETIME.total_seconds()),
        role=user.role.value if user.role else "",
    )


def rotate_refresh_token(*, refresh: str, now: datetime) -> TokenPair | None:
    """Exchange a refresh token for a new pair, once.

    Of several exchanges at once exactly one wins. A token that was already used
    revokes its family, which ends the winner's refresh token too.

    Returns:
        The new pair, or None when the token is unknown, used, revoked or expired, or
        its owner may no longer log in or has changed the password since.
    """
    digest = hashlib.sha256(refresh.encode()).hexdigest()
    with transaction.atomic():
        known = RefreshToken.objects.filter(digest=digest).first()
        if known is None:
            return None
        # One at a time within a family: else the revocation of a family could miss
        # the token that another exchange is about to add to it.
        family = RefreshToken.objects.filter(family=known.family).order_by("pk")
        family.select_for_update(no_key=True).first()
        won = RefreshToken.objects.filter(
            digest=digest,
            used_at__isnull=True,
            revoked_at__isnull=True,
            expires_at__gt=now,
        ).update(used_at=now)
        row = RefreshToken.objects.select_related("user").get(digest=digest)
        if not won:
            if row.used_at is not None:
                family.filter(revoked_at__isnull=True).update(revoked_at=now)
            return None
        if row.user.role is None or row.stamp != password_stamp(row.user):
            return None
        return issue_token_pair(
            user=row.user, family=row.family, second_factor=row.second_factor
        )
