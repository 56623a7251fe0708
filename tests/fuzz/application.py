"""The application, as a web server calls it."""

from typing import Any
from urllib.parse import unquote_to_bytes

from tests.fuzz.requests import Request
from tests.wsgi import Answer, call


def send(request: Request) -> Answer:
    """Have the application answer a request."""
    path, _, query = request.target.partition("?")
    variables: dict[str, Any] = {
        f"HTTP_{name.upper().replace('-', '_')}": value
        for name, value in request.headers.items()
    }
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if f"HTTP_{name}" in variables:
            variables[name] = variables.pop(f"HTTP_{name}")
    variables.setdefault("CONTENT_LENGTH", str(len(request.body)))
    variables.setdefault("HTTP_HOST", "testserver")
    return call(
        unquote_to_bytes(path).decode("latin-1"),
        method=request.method,
        query=query,
        body=request.body,
        **variables,
    )
