"""How far the audit trail is sealed, above its list, and the check of its chain."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse

from hotswap.common.console.requests import READING, acting_person
from hotswap.common.roles import Role
from hotswap.common.trail.verifier import chain_state, verify

# Positions that the page checks at most; all of a longer chain is for the command line.
PART = 100_000


def chain_context() -> dict[str, Any]:
    return {"chain": chain_state()}


def check_view(request: HttpRequest) -> HttpResponse:
    """Check what was sealed after the last anchor, and show what was found."""
    if request.method not in READING:
        return HttpResponseNotAllowed(READING)
    if not acting_person(request).may(Role.ADMIN):
        raise PermissionDenied
    return TemplateResponse(
        request, "console/audit_chain_check.html", {"found": verify(limit=PART)}
    )
