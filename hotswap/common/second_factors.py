"""Second factors: who must have one, who has, and the codes that prove it.

Rules:
- An authenticator app and a passkey are second factors; recovery codes stand in for
  one that is lost, and are none by themselves.
- A code of an app works once: the period that it is of is written down, so that the
  next one has to be later.
- Codes are guesses too: what they cost is limited as with passwords.
"""

from allauth.account.authentication import get_authentication_records
from allauth.core.internal.cryptokit import compare_user_code
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import (
    format_hotp_value,
    hotp_value,
    yield_hotp_counters_from_time,
)
from allauth.mfa.utils import decrypt
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest
from rest_framework.request import Request

from hotswap.common.api.throttling import guard_password
from hotswap.common.models import User
from hotswap.common.roles import Role

FACTORS = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)
# Where an authenticator keeps the period of the last code that was taken.
LAST_PERIOD = "last_period"
# Those for whom `HOTSWAP_REQUIRE_MFA` asks for a second factor.
NOBODY, ADMINS, ALL = "none", "admins", "all"


def is_second_factor_required(user: User) -> bool:
    """Tell whether a person must have a second factor."""
    match settings.REQUIRE_MFA:
        case "all":
            return True
        case "admins":
            return user.role is Role.ADMIN
        case _:
            return False


def has_second_factor(user: User) -> bool:
    """Tell whether a person has set one up."""
    return Authenticator.objects.filter(user=user, type__in=FACTORS).exists()


def signs_on_with_both(user: User) -> bool:
    """Tell whether a person comes from a provider that asks for both factors."""
    return settings.OIDC_SECOND_FACTOR and (
        SocialAccount.objects.filter(user=user).exists()
    )


def session_used_second_factor(request: HttpRequest) -> bool:
    """Tell whether the login of this session was by two factors.

    The provider of a single sign-on counts as both where it is trusted to ask for both.
    """
    user = request.user if isinstance(request.user, User) else None
    methods = {each["method"] for each in get_authentication_records(request, user)}
    if "socialaccount" in methods and settings.OIDC_SECOND_FACTOR:
        return True
    return "mfa" in methods


def guard_code(
    request: HttpRequest | Request,
    user: User,
    code: str,
    *,
    is_within_deed: bool = False,
) -> Authenticator | None:
    """Return the authenticator that a code is of, under the limit of failures.

    Args:
        is_within_deed: as `guard_password` has it.

    Raises:
        Throttled: too many wrong codes for this person in the current minute.
    """
    return guard_password(
        request,
        f"code of {user.pseudonym}",
        lambda: take_code(user, code),
        per_account=settings.LOGIN_FAILURES_PER_MINUTE,
        is_within_deed=is_within_deed,
    )


def take_code(user: User, code: str) -> Authenticator | None:
    """Use up a code of an authenticator app, or a recovery code.

    Returns:
        The authenticator, or None where the code is wrong or was used before.
    """
    with transaction.atomic():
        owned = Authenticator.objects.select_for_update(no_key=True).filter(user=user)
        for authenticator in owned.exclude(type=Authenticator.Type.WEBAUTHN):
            if authenticator.type == Authenticator.Type.TOTP:
                is_right = _take_app_code(authenticator, code)
            else:
                is_right = authenticator.wrap().validate_code(code)
            if is_right:
                return authenticator
    return None


def _take_app_code(authenticator: Authenticator, code: str) -> bool:
    secret = decrypt(authenticator.data["secret"])
    last = authenticator.data.get(LAST_PERIOD, 0)
    for period in yield_hotp_counters_from_time():
        expected = format_hotp_value(hotp_value(secret, period))
        if period > last and compare_user_code(actual=code, expected=expected):
            authenticator.data[LAST_PERIOD] = period
            authenticator.save(update_fields=["data"])
            return True
    return False
