"""Health of the server itself, and its metrics, over HTTP."""

from collections.abc import Callable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from prometheus_client import CONTENT_TYPE_LATEST
from rest_framework.request import Request

from deployments.services.tick import TICK_JOB
from devices.api.authentication import DeviceAuthentication
from health.services.watching import SWEEP_JOB
from hotswap.common.api.authentication import PersonAuthentication
from hotswap.common.api.base import ApiView
from hotswap.common.keyring import token_keys
from hotswap.common.roles import Role
from hotswap.common.services import run_age
from hotswap.monitoring.authentication import MetricsTokenAuthentication
from hotswap.monitoring.exposition import web_metrics
from hotswap.monitoring.migrations import applied_migrations
from hotswap.monitoring.status import LATE, VERSION, Part, cached_status


def liveness(request: HttpRequest) -> JsonResponse:
    """Answer as long as the process can answer at all."""
    return JsonResponse({"status": "ok"})


def readiness(request: HttpRequest) -> JsonResponse:
    """Answer 200 when requests can be served, and how fresh the periodic work is.

    The database is the only truth, so it alone decides, and whether its tables are
    those of this program: without worker and beat, devices are served all the same.
    Whether those do their part, `periodicWork` says (`ok`, or `late` after 30 s without
    a tick or sweep), beside the age of each in seconds, null before the first.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        ages = {
            "lastTickSecondsAgo": run_age(name=TICK_JOB),
            "lastSweepSecondsAgo": run_age(name=SWEEP_JOB),
        }
        token_keys()
        has_tables = applied_migrations.are_complete()
    except ImproperlyConfigured:
        return JsonResponse({"status": "unavailable", "keys": "unusable"}, status=503)
    except DatabaseError:
        return JsonResponse({"status": "unavailable", "database": "down"}, status=503)
    if not has_tables:
        return JsonResponse(
            {"status": "unavailable", "migrations": "missing"}, status=503
        )
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


class OperatorsView(ApiView):
    """What Viewers read, and whoever shows the metrics token."""

    authentication_classes = [
        MetricsTokenAuthentication,
        PersonAuthentication,
        DeviceAuthentication,
    ]
    roles = {"GET": Role.VIEWER}


class MetricsView(OperatorsView):
    """Metrics in the text format of Prometheus."""

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any) -> HttpResponse:
        return HttpResponse(web_metrics(), content_type=CONTENT_TYPE_LATEST)


class StatusView(OperatorsView):
    """How each part of the server fares; 503 while the fleet is not being served."""

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any) -> JsonResponse:
        found = cached_status()
        return JsonResponse(
            {
                "status": found.word,
                "version": VERSION,
                "checkedAt": found.checked_at.isoformat().replace("+00:00", "Z"),
                "parts": [_part(part) for part in found.parts],
            },
            status=200 if found.is_serving else 503,
        )


def _part(part: Part) -> dict[str, Any]:
    age = part.age
    return {
        "name": part.name,
        "state": part.state.value,
        "detail": part.detail,
        "ageSeconds": None if age is None else round(age.total_seconds(), 1),
        "figure": part.figure,
        "unit": part.unit,
        "isVital": part.is_vital,
    }


PROBES: dict[str, Callable[[HttpRequest], HttpResponseBase]] = {
    "/health": liveness,
    "/health/ready": readiness,
    "/health/status": StatusView.as_view(),
    "/metrics": MetricsView.as_view(),
}


class ProbeMiddleware:
    """Answers probes and scrapes before anything looks at their `Host`.

    A load balancer, an orchestrator or a Prometheus calls a server by its address,
    which is among no allowed hosts. The answers say nothing that depends on the name.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        probe = PROBES.get(request.path_info)
        if probe is None or request.method not in {"GET", "HEAD"}:
            return self.get_response(request)
        # Not counted among the requests, which it would drown.
        request.is_probe = True  # type: ignore[attr-defined]
        response = probe(request)
        # Django writes a line for each answer of 400 and above that has none yet.
        response._has_been_logged = True  # type: ignore[attr-defined]
        render = getattr(response, "render", None)
        return response if render is None else render()
