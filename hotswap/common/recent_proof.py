"""Whether the person at a session of the console has shown lately that it is them.

Rules:
- A login by password or second factor counts, and so does either that was given again,
  for `ACCOUNT_REAUTHENTICATION_TIMEOUT`; a login by a provider does not, which may have
  asked nobody.
- Who has neither here is not asked: the provider of their single sign-on says who they
  are.
"""

from urllib.parse import urlencode

from allauth.account.adapter import get_adapter
from allauth.account.authentication import get_authentication_records
from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import HttpRequest
from django.utils import timezone

from hotswap.common.models import User

PROOFS = ("password", "mfa")


def has_proved_lately(request: HttpRequest, user: User) -> bool:
    """Tell whether a password or second factor was given in this session lately."""
    since = timezone.now().timestamp() - settings.ACCOUNT_REAUTHENTICATION_TIMEOUT
    return any(
        each["method"] in PROOFS and each["at"] >= since
        for each in get_authentication_records(request, user)
    )


def page_to_prove(request: HttpRequest, user: User, *, back: str) -> str | None:
    """Return where a person has to prove again who they are, None if they need not.

    Args:
        back: the page that they come to then.
    """
    ways = get_adapter().get_reauthentication_methods(user)
    if not ways or has_proved_lately(request, user):
        return None
    return f"{ways[0]['url']}?{urlencode({REDIRECT_FIELD_NAME: back})}"
