"""OpenTelemetry in a process of the server.

Rules:
- Each process (web, worker, beat) sets up its own provider after its start: none is
  inherited over a fork.
- A provider is always there, so that ids are. It keeps and sends spans, and libraries
  are instrumented, where a collector is configured.
- The probes of machines are not traced, nor is what the fast path answers: that samples
  for itself (`hotswap.common.tracing.routine_request`).
"""

import atexit
import os
from multiprocessing.util import Finalize

from django.conf import settings
from opentelemetry import trace
from opentelemetry.instrumentation.botocore import BotocoreInstrumentor
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.propagators import (
    TraceResponsePropagator,
    set_global_response_propagator,
)
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from hotswap.common.tracing import RoutineSampler, make_exporter

# Asked every few seconds by machines; they would drown the rest.
EXCLUDED_URLS = r"^https?://[^/]+/health(/[a-z]+)?$,^https?://[^/]+/metrics$"
# Inside of it every line of the log has its trace.
FIRST_TRACED = "hotswap.common.api.log_middleware.RequestLogMiddleware"


def set_up_telemetry(service: str) -> None:
    """Set up the traces of this process; call it once, after its start.

    Args:
        service: `hotswap-web`, `-worker` or `-beat`, unless `OTEL_SERVICE_NAME` is set.
    """
    named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": service}
    provider = TracerProvider(
        resource=Resource.create({**named, "service.instance.id": str(os.getpid())}),
        sampler=None if settings.TRACES_EXPORTED else ALWAYS_OFF,
        # Below, for a process that is started by multiprocessing too.
        shutdown_on_exit=False,
    )
    if settings.TRACES_EXPORTED:
        provider.sampler = RoutineSampler(
            provider.sampler, settings.TRACE_ROUTINE_PERCENT / 100
        )
        provider.add_span_processor(BatchSpanProcessor(make_exporter()))
        Finalize(None, provider.shutdown, exitpriority=10)
        atexit.register(provider.shutdown)
    trace.set_tracer_provider(provider)
    set_global_response_propagator(TraceResponsePropagator())
    CeleryInstrumentor().instrument()
    if settings.TRACES_EXPORTED:
        for library in (
            BotocoreInstrumentor,
            HTTPXClientInstrumentor,
            PsycopgInstrumentor,
            RedisInstrumentor,
        ):
            library().instrument()


def trace_requests() -> None:
    """Open a span for every request of this process that is not answered fast."""
    place = settings.MIDDLEWARE.index(FIRST_TRACED)
    DjangoInstrumentor().instrument(
        excluded_urls=EXCLUDED_URLS, middleware_position=place
    )
