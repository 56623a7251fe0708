"""Counts the requests of this process by route and status.

Rules:
- The route is the pattern that matched, never the path: labels have few values.
- Probes and scrapes are not counted: they would drown the rest.
"""

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from prometheus_client import Counter, Histogram

REQUESTS: Final = Counter(
    "hotswap_http_requests",
    "Requests that were answered",
    ["method", "route", "status"],
)
REQUEST_DURATION: Final = Histogram(
    "hotswap_http_request_duration_seconds",
    "From the request to the head of its answer",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
UNMATCHED: Final = "unmatched"
STATIC: Final = "static"
OTHER: Final = "OTHER"


class RequestMetricsMiddleware:
    """Counts what all other middlewares and the view make of a request."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        started = time.perf_counter()
        response = self.get_response(request)
        route = route_of(request)
        if route is not None:
            method = request.method if request.method in METHODS else OTHER
            number, duration = _figures(method, route, response.status_code)
            number.inc()
            duration.observe(time.perf_counter() - started)
        return response


@lru_cache(maxsize=4096)
def _figures(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """Return what counts requests of a kind; to find it takes as long as to count."""
    return (
        REQUESTS.labels(method, route, status),
        REQUEST_DURATION.labels(method, route),
    )


def route_of(request: HttpRequest) -> str | None:
    """Return the pattern that matched; None for what is not counted."""
    known: str | None = getattr(request, "fast_route", None)
    if known is not None:
        return known
    match = request.resolver_match
    if match is not None:
        return match.route or "/"
    if getattr(request, "is_probe", False):
        return None
    return STATIC if request.path.startswith(settings.STATIC_URL) else UNMATCHED
