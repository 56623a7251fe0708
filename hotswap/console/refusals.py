"""Pages that say that there is nothing to see, within the frame of the console."""

from http import HTTPStatus

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from hotswap.common.api.middleware import is_of_api
from hotswap.common.console.roles import RoleNeeded
from hotswap.common.models import User

PLAIN, FRAMED = "console/refused.html", "console/refused_framed.html"


def answer_forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Say which role is needed, where that is what is missing."""
    needed = exception.role.value if isinstance(exception, RoleNeeded) else ""
    return _refusal(
        request, "403.html", HTTPStatus.FORBIDDEN, "Not allowed", needed=needed
    )


def answer_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _refusal(request, "404.html", HTTPStatus.NOT_FOUND, "Not found")


def _refusal(
    request: HttpRequest, template: str, status: HTTPStatus, title: str, **more: str
) -> HttpResponse:
    """Render the page; only people of the console see its frame."""
    user = getattr(request, "user", None)
    is_framed = (
        not is_of_api(request)
        and request.path.startswith(reverse("admin:index"))
        and isinstance(user, User)
        and user.role is not None
    )
    frame = admin.site.each_context(request) if is_framed else {}
    response = TemplateResponse(
        request,
        template,
        {
            **frame,
            "title": title,
            "heading": title,
            "layout": FRAMED if is_framed else PLAIN,
            **more,
        },
        status=status,
        headers={"Cache-Control": "no-store"},
    )
    return response.render()
