"""Keep every answer below `/api/` a problem document, whatever refused it.

What the database refuses to read is the sender's fault, in the console too.
"""

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.db import DataError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.views.defaults import bad_request, server_error
from opentelemetry import trace

from hotswap.common.body_timeouts import TooManyBodiesError, body_failure

logger = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"
PLAIN = "text/plain; charset=utf-8"
NO_NUL = "NUL characters are not allowed"
# What an error answer says beside its body.
KEPT_HEADERS = (
    *("Allow", "Content-Range", "Retry-After", "WWW-Authenticate"),
    *("traceresponse", "Access-Control-Expose-Headers"),
)


def trace_id_of(request: HttpRequest) -> str:
    """Return the trace id of the request (32 hex digits), made up if it has none."""
    known: str | None = getattr(request, "hotswap_trace_id", None)
    if known is None:
        context = trace.get_current_span().get_span_context()
        is_traced = context.is_valid
        known = (
            trace.format_trace_id(context.trace_id) if is_traced else uuid.uuid4().hex
        )
        # For the lines of the log that are written of it later.
        request.hotswap_trace_id = known  # type: ignore[attr-defined]
    return known


def is_of_api(request: HttpRequest) -> bool:
    """Tell whether a program asks, also by a doubled slash or with the host in it."""
    return "/api/" in request.path


def _parameters(request: HttpRequest) -> list[tuple[str, list[str]]]:
    try:
        return list(request.GET.lists())
    except SuspiciousOperation:
        # More of them than Django reads.
        return []


def problem_document(
    status: HTTPStatus,
    code: str,
    *,
    detail: str,
    trace_id: str,
    errors: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Return the body of an error answer (RFC 9457)."""
    return {
        "type": f"urn:hotswap:problem:{code}",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": code,
        "traceId": trace_id,
        "errors": list(errors),
    }


def problem_response(
    request: HttpRequest,
    status: HTTPStatus,
    code: str | None = None,
    *,
    detail: str = "",
    errors: Sequence[Mapping[str, str]] = (),
) -> HttpResponse:
    """Build an error answer without a view."""
    code = code or status.phrase.lower().replace(" ", "_")
    return JsonResponse(
        problem_document(
            status,
            code,
            detail=detail or status.description or status.phrase,
            trace_id=trace_id_of(request),
            errors=errors,
        ),
        status=status.value,
        content_type=PROBLEM_TYPE,
    )


def try_again(why: str) -> HttpResponse:
    """Answer a person 503: nothing is wrong with what was asked."""
    return HttpResponse(
        f"{why} Try again.",
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        content_type=PLAIN,
        headers={"Retry-After": "1"},
    )


def answer_unread_form(request: HttpRequest) -> HttpResponse:
    """Answer a person whose form could not be read: 503 if it was not waited for."""
    if isinstance(body_failure(request), TooManyBodiesError):
        return try_again("Too many bodies are being waited for.")
    return HttpResponse(
        "The form came too slowly, or not to its end.",
        status=HTTPStatus.REQUEST_TIMEOUT,
        content_type=PLAIN,
    )


def answer_bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer what a middleware refuses: a page to people, a problem to programs."""
    if is_of_api(request):
        return problem_response(request, HTTPStatus.BAD_REQUEST)
    return bad_request(request, exception)


def answer_server_error(request: HttpRequest) -> HttpResponse:
    """Answer what failed in a middleware."""
    if is_of_api(request):
        return problem_response(request, HTTPStatus.INTERNAL_SERVER_ERROR)
    return server_error(request)


class ProblemMiddleware:
    """Replace Django's HTML error pages below `/api/` by problem documents."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        # PostgreSQL cannot store NUL, so no path or query may carry one.
        if "\x00" in request.path or "%00" in request.META.get("QUERY_STRING", ""):
            return problem_response(
                request,
                HTTPStatus.BAD_REQUEST,
                "invalid",
                detail=NO_NUL,
                errors=[
                    {
                        "pointer": f"/{name}",
                        "code": "invalid_character",
                        "detail": NO_NUL,
                    }
                    for name, values in _parameters(request)
                    if any("\x00" in value for value in values)
                ],
            )
        response = self.get_response(request)
        if (
            response.status_code >= HTTPStatus.BAD_REQUEST
            and is_of_api(request)
            and not response.get("Content-Type", "").startswith(PROBLEM_TYPE)
        ):
            replaced = problem_response(request, HTTPStatus(response.status_code))
            for name in KEPT_HEADERS:
                if name in response:
                    replaced[name] = response[name]
            response.close()
            return replaced
        return response

    def process_exception(
        self, request: HttpRequest, error: Exception
    ) -> HttpResponse | None:
        """Answer 400 to values that the database cannot take, 503 while it is busy.

        A form that could not be read is 408, or 503 where too many were waited for.
        """
        if isinstance(error, DataError):
            logger.warning("The database refused a value", exc_info=error)
            return bad_request(request, error)
        if isinstance(error, OperationalError):
            logger.error("The database refused", exc_info=error)
            return try_again("The database is away or busy; nothing was changed.")
        if isinstance(error, UnreadablePostError):
            return answer_unread_form(request)
        return None
