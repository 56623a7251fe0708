"""Whether whoever signs is the person that is logged in.

Rules:
- A signature asks for the password or a code again, whatever the login was by. Wrong
  ones count as failed logins do, and are audited.
- The token of a program is no person, and signs nothing.
- Who has no password, because a provider of single sign-on logs them in, signs with
  the code of an authenticator app that they have set up here.
"""

from allauth.mfa.models import Authenticator
from django.conf import settings
from django.http import HttpRequest
from rest_framework.request import Request

from hotswap.common import audit
from hotswap.common.api.throttling import guard_password
from hotswap.common.errors import ForbiddenError, InvalidInputError
from hotswap.common.models import User
from hotswap.common.second_factors import guard_code
from hotswap.common.signatures import FIELD, Meaning, Signature, name_sha256

PASSWORD = "password"  # noqa: S105
CODES = (Authenticator.Type.TOTP, Authenticator.Type.RECOVERY_CODES)


class SignatureByTokenError(ForbiddenError):
    code = "signature_by_token"


class SignatureWrongError(InvalidInputError):
    code = "signature_wrong"
    pointer = f"/{FIELD}"
    # That it was tried stays written down.
    keeps_findings = True


def signing_blocked_reason(user: User) -> str:
    """Return why a person cannot sign what has to be signed, "" if they can."""
    if not settings.REQUIRE_SIGNATURES or user.has_usable_password():
        return ""
    if Authenticator.objects.filter(user=user, type__in=CODES).exists():
        return ""
    return "it is signed by a code: set up an authenticator app in My account first"


def sign(
    request: HttpRequest | Request,
    user: User,
    meaning: Meaning,
    *,
    password: str | None = None,
    code: str | None = None,
) -> Signature:
    """Return the signature of the person who calls, for one deed.

    Args:
        password, code: one of them: the person's password, or the code of an
            authenticator app, or a recovery code.

    Raises:
        SignatureWrongError: it is neither.
        Throttled: too many failures in the current minute.
    """
    factor = (
        _factor_of_code(request, user, code)
        if code is not None
        else _factor_of_password(request, user, password or "")
    )
    if factor is None:
        audit.record(
            actor=user,
            verb="person.signature-failed",
            object_kind="person",
            object_id=user.pseudonym,
            details={"meaning": meaning.value},
        )
        raise SignatureWrongError(
            "the code is wrong, or was used before"
            if code is not None
            else "the password is wrong"
        )
    return Signature(user.pseudonym, meaning, factor, name_sha256(user))


def _factor_of_password(
    request: HttpRequest | Request, user: User, password: str
) -> str | None:
    def attempt() -> str | None:
        return PASSWORD if user.check_password(password) else None

    return guard_password(request, user.username, attempt, is_within_deed=True)


def _factor_of_code(
    request: HttpRequest | Request, user: User, code: str
) -> str | None:
    used = guard_code(request, user, code, is_within_deed=True)
    return None if used is None else str(used.type)
