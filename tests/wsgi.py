"""Send a request as a WSGI server does, with nothing of a test client in between."""

import io
from functools import lru_cache
from typing import IO, Any, NamedTuple, cast

from django.core.signals import request_finished, request_started
from django.db import close_old_connections

from hotswap.common.handler import Handler


class Answer(NamedTuple):
    """What the application answered."""

    status: int
    headers: dict[str, str]
    body: bytes


def call(
    path: str,
    *,
    method: str = "",
    query: str = "",
    body: bytes = b"",
    stream: IO[bytes] | None = None,
    **variables: Any,
) -> Answer:
    """Call the application as it is served.

    Args:
        path: as WSGI has it: unquoted, each byte one character.
        method: GET unless there is a body, else POST.
        stream: where the body is read from, if not simply from `body`.
        variables: of the request's environment, headers too (`HTTP_...`).
    """
    # Both would close the connection of the test's own transaction.
    request_started.disconnect(close_old_connections)
    request_finished.disconnect(close_old_connections)
    try:
        return _call(
            {
                "REQUEST_METHOD": method or ("POST" if body else "GET"),
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "SERVER_NAME": "testserver",
                "SERVER_PORT": "80",
                "SERVER_PROTOCOL": "HTTP/1.1",
                "REMOTE_ADDR": "127.0.0.1",
                "CONTENT_LENGTH": str(len(body)),
                "wsgi.url_scheme": "http",
                "wsgi.input": io.BytesIO(body) if stream is None else stream,
                "wsgi.errors": io.StringIO(),
                **variables,
            }
        )
    finally:
        request_started.connect(close_old_connections)
        request_finished.connect(close_old_connections)


@lru_cache
def _handler() -> Handler:
    return Handler()


def _call(environ: dict[str, Any]) -> Answer:
    told: list[Any] = []
    answer = _handler()(
        environ,
        cast(Any, lambda status, headers: told.extend((status, dict(headers)))),
    )
    content = b"".join(answer)
    if hasattr(answer, "close"):
        answer.close()
    return Answer(int(told[0][:3]), told[1], content)
