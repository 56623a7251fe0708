"""The login of the console. Read while the admin site is made: registers nothing."""

from typing import Any

from django.core.exceptions import ValidationError
from rest_framework.exceptions import Throttled
from unfold.forms import AuthenticationForm

from hotswap.common.api.throttling import guard_password
from hotswap.common.console.forms import throttled_words


class LoginForm(AuthenticationForm):
    """The console's login, under the same limit of failures as the API's."""

    def clean(self) -> dict[str, Any]:
        errors: list[ValidationError] = []

        def attempt() -> dict[str, Any] | None:
            try:
                return dict(super(LoginForm, self).clean() or {})
            except ValidationError as error:
                errors.append(error)
                return None

        name = self.cleaned_data.get("username") or ""
        try:
            cleaned = guard_password(self.request, name, attempt)
        except Throttled as error:
            raise ValidationError(throttled_words(error), code="throttled") from None
        if cleaned is None:
            raise errors[0]
        return cleaned
