"""One handler for every error of the API: RFC 9457 problem documents."""

import logging
from collections.abc import Mapping
from typing import Any, cast

from django.core.exceptions import (
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.db import OperationalError
from django.http import Http404, HttpResponse
from django.http.request import RawPostDataException, UnreadablePostError
from drf_standardized_errors.formatter import ExceptionFormatter
from drf_standardized_errors.handler import ExceptionHandler
from drf_standardized_errors.types import Error, ErrorResponse, ExceptionHandlerContext
from rest_framework import exceptions
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.settings import api_settings

from hotswap.common.api.middleware import PROBLEM_TYPE, trace_id_of
from hotswap.common.api.serializers import MAX_ERRORS
from hotswap.common.body_timeouts import TooManyBodiesError, body_failure
from hotswap.common.errors import HotSwapError

logger = logging.getLogger(__name__)

TITLES = {
    400: "Invalid request",
    401: "Not authenticated",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    408: "Request timeout",
    413: "Content too large",
    415: "Unsupported media type",
    429: "Too many requests",
    500: "Server error",
    503: "Unavailable",
}
# Of those in the one line that sums them up.
NAMED_ERRORS = 3


class TryAgain(exceptions.APIException):
    status_code = 503
    default_detail = "the database is away or busy; nothing was changed, try again"
    default_code = "try_again"
    wait = 1


class ContentTooLarge(exceptions.APIException):
    status_code = 413
    default_detail = "the body is too large"
    default_code = "too_large"


def problem(
    request: Request,
    *,
    status: int,
    title: str,
    code: str,
    detail: str,
    errors: list[dict[str, Any]],
) -> dict[str, Any]:
    """Build the document that every error answer carries."""
    return {
        "type": f"urn:hotswap:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "traceId": trace_id_of(request._request),
        "errors": errors,
    }


def _escaped(key: object) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")


def flat_errors(detail: Any, pointer: str = "") -> list[Error]:
    """Walk nested errors; each gets the JSON pointer (RFC 6901) of its place."""
    if isinstance(detail, dict):
        found = []
        for key, value in detail.items():
            is_whole = key == api_settings.NON_FIELD_ERRORS_KEY
            found += flat_errors(
                value, pointer if is_whole else f"{pointer}/{_escaped(key)}"
            )
        return found
    if isinstance(detail, list):
        found = []
        for index, value in enumerate(detail):
            is_text = isinstance(value, exceptions.ErrorDetail)
            found += flat_errors(value, pointer if is_text else f"{pointer}/{index}")
        return found
    return [Error(detail.code, str(detail), pointer)]


def _sentence(error: dict[str, Any]) -> str:
    where = str(error["pointer"]).removeprefix("/")
    return f"{where}: {error['detail']}" if where else str(error["detail"])


def summary_of(errors: list[dict[str, Any]], total: int) -> str:
    """Say in one line what is wrong: the first few errors, and how many there are."""
    if total == 1:
        return _sentence(errors[0])
    named = [_sentence(error) for error in errors[:NAMED_ERRORS]]
    more = total - len(named)
    rest = f"; and {more:,} more" if more else ""
    # Nobody looks further where a list has a hundred.
    least = " at least" if total >= MAX_ERRORS else ""
    return f"{total:,} errors{least}: {'; '.join(named)}{rest}"


class BodyStalled(exceptions.APIException):
    status_code = 408
    default_detail = "the body came too slowly, or not to its end"
    default_code = "body_stalled"


class TooManyBodies(exceptions.APIException):
    status_code = 503
    default_detail = "too many bodies are being waited for; nothing was read, try again"
    default_code = "busy"
    wait = 1


def _unread(request: Request | None) -> exceptions.APIException:
    """Return what is answered where the body could not be read."""
    failure = None if request is None else body_failure(request._request)
    if isinstance(failure, TooManyBodiesError):
        return TooManyBodies()
    return BodyStalled(None if failure is None else str(failure))


class ProblemFormatter(ExceptionFormatter):
    """Turn DRF's nested validation errors into pointers, codes and sentences."""

    def get_errors(self) -> list[Error]:
        return flat_errors(self.exc.detail)

    def format_error_response(self, error_response: ErrorResponse) -> Any:
        status = self.exc.status_code
        errors = []
        if isinstance(self.exc, exceptions.ValidationError):
            errors = [
                {
                    "pointer": error.attr or "",
                    "code": error.code,
                    "detail": str(error.detail),
                }
                for error in error_response.errors[:MAX_ERRORS]
            ]
            code = "invalid"
            detail = summary_of(errors, len(error_response.errors))
        else:
            only = error_response.errors[0]
            code, detail = only.code, str(only.detail)
        request = self.context["request"]
        assert request is not None
        return problem(
            request,
            status=status,
            title=TITLES.get(status, "Error"),
            code=code,
            detail=detail,
            errors=errors,
        )


class ProblemExceptionHandler(ExceptionHandler):
    """DRF's handling with the formatter above; unknown errors stay a plain 500."""

    def format_exception(self, exc: exceptions.APIException) -> Any:
        return ProblemFormatter(exc, self.context, self.exc).run()

    def convert_known_exceptions(self, exc: Exception) -> Exception:
        if isinstance(exc, Http404):
            return exceptions.NotFound()
        if isinstance(exc, PermissionDenied):
            return exceptions.PermissionDenied()
        if isinstance(exc, RequestDataTooBig):
            return ContentTooLarge()
        if isinstance(exc, UnreadablePostError | RawPostDataException):
            return _unread(self.context["request"])
        if isinstance(exc, OperationalError):
            # Away, restarting, or a deadlock that this request lost: its transaction
            # was rolled back whole.
            logger.error("The database refused", exc_info=exc)
            return TryAgain()
        if isinstance(exc, SuspiciousOperation):
            return exceptions.ParseError(str(exc), code="malformed")
        return super().convert_known_exceptions(exc)


def problem_handler(exc: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """Answer any error with a problem document, whatever form the view answers in."""
    headers: Mapping[str, str] = {}
    if isinstance(exc, HotSwapError):
        status = exc.status
        document = problem(
            context["request"],
            status=exc.status,
            title=exc.title,
            code=exc.code,
            detail=exc.detail,
            errors=[
                {"pointer": e.pointer, "code": e.code, "detail": e.detail}
                for e in exc.errors[:MAX_ERRORS]
            ],
        )
    else:
        handled = ProblemExceptionHandler(
            exc, cast(ExceptionHandlerContext, context)
        ).run()
        if handled is None:
            return None
        status, document, headers = handled.status_code, handled.data, handled.headers
    return HttpResponse(
        JSONRenderer().render(document),
        status=status,
        content_type=PROBLEM_TYPE,
        headers={k: v for k, v in headers.items() if k != "Content-Type"},
    )
