"""What pages and actions read of a request, and how they send it elsewhere."""

import math
from http import HTTPStatus
from typing import cast

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from rest_framework.exceptions import Throttled

from hotswap.common.models import User

READING = ("GET", "HEAD")


def acting_person(request: HttpRequest) -> User:
    """Return the person who is logged in."""
    return cast(User, request.user)


def go_to(request: HttpRequest, url: str) -> HttpResponse:
    """Redirect the page, also when a dialog asked."""
    if "HX-Request" in request.headers:
        return HttpResponse(status=204, headers={"HX-Redirect": url})
    return HttpResponseRedirect(url)


def too_many_requests(error: Throttled) -> HttpResponse:
    """Refuse what a person asks for too often, and say when it is taken again."""
    seconds = math.ceil(getattr(error, "wait", None) or 60)
    return HttpResponse(
        f"That was asked for too often: wait {seconds} s and try again.",
        status=HTTPStatus.TOO_MANY_REQUESTS,
        content_type="text/plain; charset=utf-8",
        headers={"Retry-After": str(seconds), "Cache-Control": "no-store"},
    )
