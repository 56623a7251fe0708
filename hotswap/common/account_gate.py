"""What an account must do before it may do anything else, in console and API.

Whoever has a password that somebody else knows changes it first.
"""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from hotswap.common.console.requests import go_to
from hotswap.common.errors import ForbiddenError
from hotswap.common.models import User

# Pages of an account that is held up, by the names of their addresses.
OPEN_PAGES = ("admin:password_change", "admin:logout")


class PasswordChangeRequiredError(ForbiddenError):
    code = "password_change_required"


def check_account(user: User) -> None:
    """Let through whoever may use the API.

    Raises:
        PasswordChangeRequiredError: the password must be changed first.
    """
    if user.must_change_password:
        raise PasswordChangeRequiredError(
            "change the password first, with POST /auth/password or in the console"
        )


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
        if not user.must_change_password:
            return None
        if request.path in {reverse(name) for name in OPEN_PAGES}:
            return None
        return reverse("admin:password_change")
