"""What pages and actions read of a request, and how they send it elsewhere."""

from typing import cast

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

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
