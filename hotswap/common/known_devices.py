"""Browsers that somebody has logged in with before.

Guesses of strangers at a name end for everybody, but for a browser that has logged in
under it: its own failures alone count against it. A signed cookie says so, one for each
name, and opens nothing by itself.

Source: OWASP, "Slow Down Online Guessing Attacks with Device Cookies".
"""

import hashlib
import secrets
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from rest_framework.request import Request

LIFETIME: Final = timedelta(days=90)
SALT: Final = "hotswap.known-device"


def remember_device(response: HttpResponse, name: str) -> None:
    """Let the browser show later that it has logged in under a name."""
    response.set_signed_cookie(
        _cookie_of(name),
        secrets.token_urlsafe(16),
        salt=_salt_of(name),
        max_age=LIFETIME,
        path=settings.SESSION_COOKIE_PATH,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def known_device(request: HttpRequest | Request, name: str) -> str | None:
    """Return what tells a browser that has logged in under a name from others."""
    http = request._request if isinstance(request, Request) else request
    found: str | None = http.get_signed_cookie(
        _cookie_of(name), default=None, salt=_salt_of(name), max_age=LIFETIME
    )
    return found


def _cookie_of(name: str) -> str:
    return f"known-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _salt_of(name: str) -> str:
    return f"{SALT}:{name}"
