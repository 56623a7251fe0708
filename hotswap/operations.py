"""Health of the server itself, and its metrics."""

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from drf_spectacular.utils import extend_schema
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from rest_framework.request import Request

from deployments.services.advance import TICK_CLOCK
from health.services.watching import SWEEP_CLOCK
from hotswap.common.api.base import ApiView
from hotswap.common.keyring import token_keys
from hotswap.common.roles import Role
from hotswap.common.services import clock_age


def liveness(request: HttpRequest) -> JsonResponse:
    """Answer as long as the process can answer at all."""
    return JsonResponse({"status": "ok"})


def readiness(request: HttpRequest) -> JsonResponse:
    """Answer 200 when requests can be served, and how fresh the periodic work is.

    The database is the only truth, so it alone decides; the age of the last tick and
    sweep, in seconds, tells whether worker and beat do their part.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        ages = {
            name: None if age is None else round(age.total_seconds(), 1)
            for name, age in (
                ("lastTickSecondsAgo", clock_age(name=TICK_CLOCK)),
                ("lastSweepSecondsAgo", clock_age(name=SWEEP_CLOCK)),
            )
        }
        token_keys()
    except ImproperlyConfigured:
        return JsonResponse({"status": "unavailable", "keys": "unusable"}, status=503)
    except DatabaseError:
        return JsonResponse({"status": "unavailable", "database": "down"}, status=503)
    return JsonResponse({"status": "ready", "database": "ok", **ages})


class MetricsView(ApiView):
    """Metrics in the text format of Prometheus."""

    roles = {"GET": Role.VIEWER}

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any) -> HttpResponse:
        return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)
