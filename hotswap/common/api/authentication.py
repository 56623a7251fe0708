"""Bearer tokens. A token of the wrong kind is recognised, then refused by role."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework_simplejwt.exceptions import TokenError

from hotswap.common.log_context import bind
from hotswap.common.models import User
from hotswap.common.personal_tokens import PREFIX, token_of
from hotswap.common.tokens import (
    DeviceToken,
    KeyringToken,
    PersonToken,
    password_stamp,
    token_type,
)

PERSON_SCHEME = "personToken"
REALM = 'Bearer realm="hotswap"'


def bearer_text(request: Request) -> str | None:
    """Return the token of a request, or None where it has none.

    Raises:
        AuthenticationFailed: the header is malformed.
    """
    parts = get_authorization_header(request).split()
    if not parts:
        return None
    if len(parts) != 2 or parts[0].lower() != b"bearer":
        raise AuthenticationFailed(
            "the Authorization header must be `Bearer <token>`", code="token_invalid"
        )
    try:
        return parts[1].decode("ascii")
    except UnicodeDecodeError:
        raise AuthenticationFailed(
            "the token is not valid", code="token_invalid"
        ) from None


class DeclaredAuthentication(BaseAuthentication):
    """A way to authenticate that says how the schema describes it.

    Attributes:
        scheme_name: what the schema calls it.
        scheme: its security scheme, as OpenAPI has it.
    """

    scheme_name: ClassVar[str]
    scheme: ClassVar[Mapping[str, str]]

    def authenticate_header(self, request: Request) -> str:
        return REALM


class BearerAuthentication(DeclaredAuthentication):
    """Verify a token of one class; leave other kinds to the next authenticator."""

    scheme = MappingProxyType(
        {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    )
    token_class: type[KeyringToken]

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        text = bearer_text(request)
        if text is None:
            return None
        kind = token_type(text)
        if kind != self.token_class.token_type:
            if kind in (PersonToken.token_type, DeviceToken.token_type):
                return None
            raise AuthenticationFailed("the token is not valid", code="token_invalid")
        try:
            claims = self.token_class(text)  # type: ignore[arg-type]
        except TokenError:
            raise AuthenticationFailed(
                "the token is not valid or has expired", code="token_invalid"
            ) from None
        return self.principal(claims), claims

    def principal(self, claims: KeyringToken) -> Any:
        """Return who the claims speak of, or raise AuthenticationFailed."""
        raise AuthenticationFailed("the token is not valid", code="token_invalid")


class PersonAuthentication(BearerAuthentication):
    """Tokens of people; the account is looked up on every request.

    Those of a login are signed, personal access tokens are kept in the database.
    """

    scheme_name = PERSON_SCHEME
    token_class = PersonToken

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        text = bearer_text(request)
        if text is None or not text.startswith(PREFIX):
            return super().authenticate(request)
        token = token_of(text, timezone.now())
        if token is None:
            raise AuthenticationFailed(
                "the token is not valid, or has ended", code="token_invalid"
            )
        bind(user_id=str(token.user.pseudonym))
        return token.user, token

    def principal(self, claims: KeyringToken) -> User:
        try:
            user = (
                User.objects.prefetch_related("groups")
                .filter(pseudonym=claims["sub"], is_active=True)
                .first()
            )
        except (ValidationError, ValueError):
            user = None
        if user is None or claims.get("stamp") != password_stamp(user):
            raise AuthenticationFailed(
                "the token has been revoked", code="token_revoked"
            )
        bind(user_id=str(user.pseudonym))
        return user
