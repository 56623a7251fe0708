"""What an account must do before it may do anything else, in console and API.

- Whoever has a password that somebody else knows, or that is older than passwords may
  become (`HOTSWAP_PASSWORD_DAYS`), changes it first.
- Whoever must have a second factor (`HOTSWAP_REQUIRE_MFA`) sets one up, and then logs
  in with it.
"""

from collections.abc import Callable

from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from rest_framework.request import Request

from hotswap.common.console.requests import go_to
from hotswap.common.errors import ForbiddenError
from hotswap.common.models import PersonalToken, User
from hotswap.common.second_factors import (
    has_second_factor,
    is_second_factor_required,
    session_used_second_factor,
    signs_on_with_both,
)
from hotswap.common.tokens import SECOND_FACTOR, PersonToken

# Where an account that is held up may go, by the names of their addresses; and below
# the last, where second factors are set up.
OPEN_PAGES = ("admin:password_change", "admin:logout", "account_logout")
PAGES_OF_SETTING_UP = ("account_reauthenticate", "mfa_index")


class PasswordChangeRequiredError(ForbiddenError):
    code = "password_change_required"


class SecondFactorSetupRequiredError(ForbiddenError):
    code = "second_factor_setup_required"


class SecondFactorRequiredError(ForbiddenError):
    code = "second_factor_required"


def check_account(
    user: User, used_factor: Callable[[], bool], *, is_program: bool = False
) -> None:
    """Let through whoever may use the API.

    Args:
        used_factor: tells whether the login was by two factors; asked if need be.
        is_program: calls with a personal token, which the age of a password does not
            concern.

    Raises:
        PasswordChangeRequiredError: the password must be changed first.
        SecondFactorSetupRequiredError: the person must have a second factor.
        SecondFactorRequiredError: the person has one, and has to log in with it.
    """
    if user.must_change_password or (
        not is_program and user.has_aged_password(timezone.now())
    ):
        raise PasswordChangeRequiredError(
            "change the password first, with POST /auth/password or in the console"
        )
    if not is_second_factor_required(user) or used_factor():
        return
    if has_second_factor(user):
        raise SecondFactorRequiredError("log in again, with the second factor")
    raise SecondFactorSetupRequiredError("set up a second factor in the console first")


def used_second_factor(request: Request) -> bool:
    """Tell whether the person who calls has logged in with two factors."""
    if isinstance(request.auth, PersonToken):
        return bool(request.auth.get(SECOND_FACTOR))
    if isinstance(request.auth, PersonalToken):
        # It was made in the console, behind the login of its person.
        user = request.auth.user
        return has_second_factor(user) or signs_on_with_both(user)
    return session_used_second_factor(request._request)


class AccountGateMiddleware:
    """Lead people to what they must do first, from every page of the console."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.console = ""

    def __call__(self, request: HttpRequest) -> HttpResponse:
        # Asked for here, as addresses are not known yet when this is made.
        self.console = self.console or reverse("admin:index")
        if request.path.startswith(self.console) and isinstance(request.user, User):
            page = self._page_to_do(request, request.user)
            if page is not None:
                return go_to(request, page)
        return self.get_response(request)

    def _page_to_do(self, request: HttpRequest, user: User) -> str | None:
        if request.path in {reverse(name) for name in OPEN_PAGES}:
            return None
        if user.must_change_password or user.has_aged_password(timezone.now()):
            return reverse("admin:password_change")
        if not is_second_factor_required(user) or session_used_second_factor(request):
            return None
        if has_second_factor(user):
            logout(request)
            return reverse("account_login")
        setting_up = tuple(reverse(name) for name in PAGES_OF_SETTING_UP)
        return None if request.path.startswith(setting_up) else reverse("mfa_index")
