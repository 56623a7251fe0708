"""The forms of the login: name and password, then the code of a second factor.

Both are under the same limits of failures as the logins of the API.
"""

from typing import Any

from allauth.account.forms import LoginForm as AccountLoginForm
from allauth.account.forms import ResetPasswordKeyForm as AccountResetForm
from allauth.core import context
from allauth.mfa import signals
from allauth.mfa.base.forms import AuthenticateForm as MFAAuthenticateForm
from allauth.mfa.base.forms import ReauthenticateForm as MFAReauthenticateForm
from allauth.mfa.models import Authenticator
from django.core.exceptions import ValidationError
from rest_framework.exceptions import Throttled

from hotswap.common.console.forms import throttled_words
from hotswap.common.people import set_own_password
from hotswap.common.second_factors import guard_code


class LoginForm(AccountLoginForm):
    """Name and password."""

    def add_prefix(self, field_name: str) -> str:
        """Name the fields as the API does."""
        return "username" if field_name == "login" else super().add_prefix(field_name)


class CodeFormMixin:
    """Looks at a code as the API does, instead of as allauth does."""

    user: Any
    cleaned_data: dict[str, Any]

    def clean_code(self) -> str:
        code: str = self.cleaned_data["code"]
        try:
            self.authenticator = guard_code(context.request, self.user, code)
        except Throttled as error:
            raise ValidationError(throttled_words(error), code="throttled") from None
        if self.authenticator is None:
            main = Authenticator.objects.filter(user=self.user).order_by("type").last()
            signals.authentication_failed.send(
                sender=Authenticator,
                request=context.request,
                user=self.user,
                authenticator=main,
            )
            raise ValidationError(
                "This code is wrong, or was used before.", code="incorrect_code"
            )
        self.authenticator.user = self.user
        return code


class AuthenticateForm(CodeFormMixin, MFAAuthenticateForm):
    """The code that completes a login."""


class ReauthenticateForm(CodeFormMixin, MFAReauthenticateForm):
    """The code that is asked for again."""


class NewPasswordForm(AccountResetForm):
    """The first password of whoever was invited."""

    def save(self) -> None:
        set_own_password(user=self.user, password=self.cleaned_data["password1"])
