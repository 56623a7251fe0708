"""The WSGI application.

Rules:
- A statement of the database ends after `HOTSWAP_STATEMENT_SECONDS`: whoever asked may
  have left, and would leave it running. A pooler sets that limit itself.
- Its threads share a few connections to the database.
- Key files that are not those of the database end the start.
- Nothing of the process's environment reaches a request (`hotswap.environ`).
"""

import logging
import multiprocessing
import os
import sys
from typing import TYPE_CHECKING

from hotswap.common.gc_freeze import collection_paused, freeze_loaded_objects
from hotswap.common.logs import formatter
from hotswap.environ import WithoutProcessEnvironment
from hotswap.sockets import WithLittleUnsent

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hotswap.settings.local")


def limit_statements(seconds: int) -> None:
    """Let the server end each statement of this process's connections to come."""
    from django.db import connections

    given = connections.settings["default"]["OPTIONS"]
    options = f"{given.get('options', '')} -c statement_timeout={seconds}s"
    given["options"] = options.strip()


def make_application() -> "WSGIApplication":
    """Load everything and return the application."""
    with collection_paused():
        served = _load()
    freeze_loaded_objects()
    return WithLittleUnsent(WithoutProcessEnvironment(served))


def _load() -> "WSGIApplication":
    import django

    from hotswap.monitoring.processes import share_between_siblings

    # Before anything loads prometheus_client.
    share_between_siblings()
    django.setup(set_prefix=False)
    from django.conf import settings
    from django.urls import get_resolver

    import hotswap.celery  # noqa: F401
    from hotswap.common.handler import Handler
    from hotswap.common.logs import log_everything
    from hotswap.common.postgresql.sharing import share_connections
    from hotswap.production_checks import refuse_weak_settings
    from hotswap.telemetry import set_up_telemetry, trace_requests

    if os.environ.get("HOTSWAP_SUPERVISED"):
        from hotswap.stack.lifeline import end_with_parent

        end_with_parent()
    log_everything()
    refuse_weak_settings()
    # Here, because workers are started afresh and each loads this module.
    set_up_telemetry("hotswap-web")
    trace_requests()
    served = Handler()
    if not settings.DATABASE_IS_POOLED:
        limit_statements(settings.WEB_STATEMENT_SECONDS)
    share_connections(settings.WEB_CONNECTIONS)
    get_resolver().url_patterns  # noqa: B018
    return served


def _join() -> None:
    from hotswap.monitoring.hosts import join

    join("web")


def load_application() -> "WSGIApplication":
    """Return the application, or end with a line of the log that says why not.

    The web server itself would print the bare traceback.
    """
    try:
        application = make_application()
        # A worker of the web server, and nobody who only looks at the application.
        if multiprocessing.parent_process() is not None:
            _join()
        return application
    except Exception:
        handler = logging.StreamHandler()
        handler.setFormatter(formatter())
        logger = logging.getLogger(__name__)
        logger.propagate = False
        logger.addHandler(handler)
        logger.critical("The application cannot be loaded", exc_info=True)
        sys.exit(1)


application = load_application()
