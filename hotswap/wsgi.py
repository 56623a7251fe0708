"""The WSGI application.

Rules:
- A statement of the database ends after `HOTSWAP_STATEMENT_SECONDS`: whoever asked may
  have left, and would leave it running.
- Nothing of the process's environment reaches a request. Some servers (granian) merge
  it into every request's variables, so that secrets would show up in error reports and
  a variable named like a header would pass for one.
"""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hotswap.common.garbage import spare_what_is_loaded
from hotswap.sockets import WithLittleUnsent

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hotswap.settings.local")

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


def limit_statements(seconds: int) -> None:
    """Let the server end each statement of this process's connections to come."""
    from django.db import connections

    given = connections.settings["default"]["OPTIONS"]
    options = f"{given.get('options', '')} -c statement_timeout={seconds}s"
    given["options"] = options.strip()


def make_application() -> "WSGIApplication":
    """Load everything and return the application."""
    import django

    from hotswap.monitoring.processes import share_between_siblings

    # Before anything loads prometheus_client.
    share_between_siblings()
    django.setup(set_prefix=False)
    from django.conf import settings
    from django.urls import get_resolver

    import hotswap.celery  # noqa: F401
    from hotswap.common.handler import Handler

    if os.environ.get("HOTSWAP_SUPERVISED"):
        from hotswap.stack.lifeline import end_with_parent

        end_with_parent()
    if settings.OTEL_ENDPOINT:
        # Here, because workers are started afresh and each loads this module.
        from hotswap.telemetry import trace_requests

        trace_requests()
    served = Handler()
    limit_statements(settings.WEB_STATEMENT_SECONDS)
    get_resolver().url_patterns  # noqa: B018
    spare_what_is_loaded()
    return WithLittleUnsent(WithoutProcessEnvironment(served))


application = make_application()
