"""How a request is made of what the server was sent."""

import json
import logging
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from django.core.exceptions import SuspiciousOperation
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.utils.http import parse_header_parameters

from hotswap.common.api.middleware import PROBLEM_TYPE, problem_document
from hotswap.common.body_timeouts import timed_input

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

logger = logging.getLogger(__name__)


class TimedRequest(WSGIRequest):
    """A request whose body has time-outs.

    Its query and forms are UTF-8, whatever it says of its body. Django would decode
    them with the `charset` of the content type, which may name what is no encoding of
    texts at all.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        if environ.get("CONTENT_LENGTH", "0") != "0":
            environ["wsgi.input"] = timed_input(environ)
        super().__init__(environ)

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        self.content_type, self.content_params = parse_header_parameters(
            meta.get("CONTENT_TYPE", "")
        )


class Handler(WSGIHandler):
    """Django's handler, which refuses what it cannot make a request of (400)."""

    request_class = TimedRequest

    def __call__(  # type: ignore[override]
        self, environ: dict[str, Any], start_response: "StartResponse"
    ) -> Iterable[bytes]:
        try:
            return super().__call__(environ, start_response)
        except (SuspiciousOperation, ValueError):
            # Outside of every middleware: these answer whatever they raise themselves.
            return _refuse(start_response)


def _refuse(start_response: "StartResponse") -> Iterable[bytes]:
    status = HTTPStatus.BAD_REQUEST
    trace_id = uuid4().hex
    logger.warning("Request that cannot be read", extra={"traceId": trace_id})
    body = json.dumps(
        problem_document(
            status,
            "malformed",
            detail="the request cannot be read",
            trace_id=trace_id,
        )
    ).encode()
    start_response(
        f"{status.value} {status.phrase}",
        [("Content-Type", PROBLEM_TYPE), ("Content-Length", str(len(body)))],
    )
    return [body]
