"""Keep the environment of the process out of requests.

Some servers (granian) merge it into every request's variables, so that secrets would
show up in error reports and a variable named like a header would pass for one.
"""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

# Written by the server for every request, whatever the process's environment holds.
SERVER_NAMES = frozenset(
    {
        "REQUEST_METHOD",
        "SCRIPT_NAME",
        "PATH_INFO",
        "QUERY_STRING",
        "SERVER_NAME",
        "SERVER_PORT",
        "SERVER_PROTOCOL",
        "REMOTE_ADDR",
    }
)


class WithoutProcessEnvironment:
    """Drops what a request's variables have from the process's environment."""

    def __init__(self, application: "WSGIApplication") -> None:
        self.application = application
        self.inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in SERVER_NAMES
        }

    def __call__(
        self, environ: dict[str, Any], start_response: "StartResponse"
    ) -> Iterable[bytes]:
        # A header that a client really sent differs in value, and is kept.
        inherited = self.inherited
        cleaned = {
            name: value
            for name, value in environ.items()
            if name not in inherited or inherited[name] != value
        }
        return self.application(cleaned, start_response)
