"""Health of the server itself, and its metrics."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from rest_framework.request import Request

from deployments.services.tick import TICK_CLOCK
from health.services.watching import SWEEP_CLOCK
from hotswap.common.api.base import ApiView
from hotswap.common.keyring import token_keys
from hotswap.common.roles import Role
from hotswap.common.services import clock_age

# Several times the interval of the slowest of them.
LATE = timedelta(seconds=60)


def liveness(request: HttpRequest) -> JsonResponse:
    """Answer as long as the process can answer at all."""
    return JsonResponse({"status": "ok"})


def readiness(request: HttpRequest) -> JsonResponse:
    """Answer 200 when requests can be served, and how fresh the periodic work is.

    The database is the only truth, so it alone decides: without worker and beat,
    devices are served all the same. Whether those do their part, `periodicWork` says
    (`ok`, or `late` after a minute without a tick or sweep), beside the age of each in
    seconds, null before the first.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        ages = {
            "lastTickSecondsAgo": clock_age(name=TICK_CLOCK),
            "lastSweepSecondsAgo": clock_age(name=SWEEP_CLOCK),
        }
        token_keys()
    except ImproperlyConfigured:
        return JsonResponse({"status": "unavailable", "keys": "unusable"}, status=503)
    except DatabaseError:
        return JsonResponse({"status": "unavailable", "database": "down"}, status=503)
    is_late = any(age is None or age > LATE for age in ages.values())
    return JsonResponse(
        {
            "status": "ready",
            "database": "ok",
            "periodicWork": "late" if is_late else "ok",
            **{
                name: None if age is None else round(age.total_seconds(), 1)
                for name, age in ages.items()
            },
        }
    )


PROBES = {"/health": liveness, "/health/ready": readiness}


class ProbeMiddleware:
    """Answers probes before anything looks at their `Host`.

    A load balancer or an orchestrator calls a server by its address, which is among no
    allowed hosts. The answers say nothing that depends on the name.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        probe = PROBES.get(request.path_info)
        if probe is None or request.method not in {"GET", "HEAD"}:
            return self.get_response(request)
        return probe(request)


class MetricsView(ApiView):
    """Metrics in the text format of Prometheus."""

    roles = {"GET": Role.VIEWER}

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any) -> HttpResponse:
        return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)
