"""Traces, sent to a collector where one is named (`OTEL_EXPORTER_OTLP_ENDPOINT`)."""

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

# Asked every few seconds by machines; they would drown the rest.
EXCLUDED_URLS = "/health$,/health/ready$,/metrics$"


def trace_requests() -> None:
    """Open a span for every request; called once in each process, after its start."""
    provider = TracerProvider(resource=Resource.create({"service.name": "hotswap-web"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    DjangoInstrumentor().instrument(excluded_urls=EXCLUDED_URLS)
