"""Traces: their ids, what of them is exported, and spans that are made of rows.

Rules:
- Configured by the standard `OTEL_*` variables alone. Without a collector spans are not
  kept, and have ids all the same, for the log and for problem documents.
- What happens over hours, on devices and in several processes is no span that is held
  open: it is derived from rows once it is over (`Derived`). Its id is a hash of what it
  is about, so that whoever derives it again gets the same one.
- Routine (polls and heartbeats of devices, pieces of downloads, periodic tasks) is
  sampled at its start, one in a hundred by default. A view says itself that it is
  routine (`is_routine`), or one of many pieces (`is_piecewise`).
- No span carries a query, an address of a person, or the values of a row.
"""

import hashlib
import random
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import Token
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.urls import Resolver404, resolve
from opentelemetry import trace
from opentelemetry.context import (
    Context,
    attach,
    detach,
    get_current,
)
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.instrumentation.wsgi import wsgi_getter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import (
    Event,
    ReadableSpan,
    TracerProvider,
)
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import (
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)
from opentelemetry.util.re import parse_env_headers
from opentelemetry.util.types import Attributes

from hotswap.common.logs import without_row_values

with suppress_instrumentation():
    UNTRACED: Final = get_current()
SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
# The second bit says that the trace id is random.
SAMPLED_FLAGS: Final = frozenset({"01", "03"})
SCOPE: Final = InstrumentationScope("hotswap")

# Of requests: by whom, with what and from where.
LEFT_OUT: Final = frozenset(
    {
        *("http.client_ip", "net.peer.ip", "net.peer.name", "net.peer.port"),
        *("client.address", "client.port", "network.peer.address"),
        *("network.peer.port", "url.query", "http.user_agent", "user_agent.original"),
    }
)
ADDRESSES: Final = frozenset({"http.url", "url.full", "http.target"})
PERIODIC_TASK: Final = ("apply_async/", "run/")


@dataclass(frozen=True, slots=True)
class Derived:
    """A span that is made of rows.

    Attributes:
        parent_id: of the same trace; 0 of a root.
        error: its outcome in one word where it failed, "" where it did not.
        links: other spans that it has to do with.
    """

    name: str
    trace_id: int
    span_id: int
    parent_id: int
    start: datetime
    end: datetime
    attributes: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    links: Sequence[tuple[int, int]] = ()

    def readable(self) -> ReadableSpan:
        """Return it in the form that is exported."""
        failed = Status(StatusCode.ERROR, self.error)
        attributes = dict(self.attributes)
        if self.error:
            attributes["error.type"] = self.error
        return ReadableSpan(
            self.name,
            context=_context(self.trace_id, self.span_id),
            parent=_context(self.trace_id, self.parent_id) if self.parent_id else None,
            resource=resource(),
            attributes=attributes,
            links=[Link(_context(*link)) for link in self.links],
            status=failed if self.error else Status(StatusCode.OK),
            start_time=nanoseconds(self.start),
            end_time=nanoseconds(max(self.start, self.end)),
            instrumentation_scope=SCOPE,
        )


def _context(trace_id: int, span_id: int) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=SAMPLED)


def nanoseconds(at: datetime) -> int:
    """Return the time since 1970, exact to the microsecond."""
    return round(at.timestamp() * 1_000_000) * 1000


def span_id_of(subject: object, phase: str) -> int:
    """Return the id of a span that is about one phase of one thing, always the same."""
    digest = hashlib.sha256(f"{subject} {phase}".encode()).digest()
    return int.from_bytes(digest[:8], "big") or 1


def traceparent_of(trace_id: int, span_id: int, *, is_sampled: bool) -> str:
    """Return a W3C trace context."""
    return f"00-{trace_id:032x}-{span_id:016x}-{is_sampled:02x}"


def current_context() -> SpanContext:
    """Return where the present request or task is; a new trace where nothing is."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        return context
    return SpanContext(random.SystemRandom().getrandbits(128) or 1, 0, is_remote=False)


# --- Sampling -----------------------------------------------------------------------


class RoutineSampler(Sampler):
    """Samples routine by a ratio, and all else as another one does."""

    def __init__(self, other: Sampler, ratio: float) -> None:
        self._other = other
        self._ratio = TraceIdRatioBased(ratio)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        *more: Any,
    ) -> SamplingResult:
        view = _view_of(kind, attributes or {})
        parent = trace.get_current_span(parent_context).get_span_context()
        # Of one image there may be thousands, with a parent each.
        is_piece = getattr(view, "is_piecewise", False)
        is_root = not parent.is_valid and is_routine_root(name, kind, view)
        chosen = self._ratio if is_piece or is_root else self._other
        return chosen.should_sample(
            parent_context, trace_id, name, kind, attributes, links, *more
        )

    def get_description(self) -> str:
        return f"RoutineSampler({self._other.get_description()})"


def _view_of(kind: SpanKind | None, attributes: Mapping[str, Any]) -> Any:
    """Return the class of the view that a request is for; None if there is none."""
    path = str(attributes.get("url.path") or attributes.get("http.target") or "")
    if kind is not SpanKind.SERVER or not path:
        return None
    try:
        return getattr(resolve(path.partition("?")[0]).func, "view_class", None)
    except Resolver404:
        return None


def is_routine_root(name: str, kind: SpanKind | None, view: Any) -> bool:
    """Tell whether a trace that begins so is one of many thousands alike."""
    if kind is SpanKind.SERVER:
        return getattr(view, "is_routine", False)
    # What a person causes has a parent. So it is a tick of the beat, or what a program
    # does by itself: a look into the queue.
    return kind is SpanKind.CLIENT or name.startswith(PERIODIC_TASK)


class _Untraced:
    """Lets instrumented libraries open no spans: `suppress_instrumentation`, where no
    context is to be kept, at a fifth of its cost.
    """

    __slots__ = ("_token",)
    _token: Token[Context]

    def __enter__(self) -> None:
        self._token = attach(UNTRACED)

    def __exit__(self, *_: object) -> None:
        detach(self._token)


def routine_request(name: str, meta: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """Open the span of a request on the fast path if it is sampled, else nothing.

    A device that goes on with a trace that is sampled is sampled too.
    """
    if not settings.TRACES_EXPORTED:
        return nullcontext()
    goes_on = meta.get("HTTP_TRACEPARENT", "")[53:] in SAMPLED_FLAGS
    if not goes_on and random.random() * 100 >= settings.TRACE_ROUTINE_PERCENT:
        return _Untraced()
    return trace.get_tracer("hotswap").start_as_current_span(
        name, context=extract(dict(meta), getter=wsgi_getter), kind=SpanKind.SERVER
    )


# --- Export -------------------------------------------------------------------------


class CleanExporter(SpanExporter):
    """Takes out of spans what no span may carry, and hands them on."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([_cleaned(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _cleaned(span: ReadableSpan) -> ReadableSpan:
    is_client = span.kind is SpanKind.CLIENT
    status = span.status
    if status.description:
        status = Status(status.status_code, without_row_values(status.description))
    return ReadableSpan(
        span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes={
            key: _cleaned_value(key, value, is_client)
            for key, value in (span.attributes or {}).items()
            if key not in LEFT_OUT
        },
        events=[
            Event(
                event.name,
                {
                    key: without_row_values(value) if isinstance(value, str) else value
                    for key, value in (event.attributes or {}).items()
                },
                event.timestamp,
            )
            for event in span.events
        ],
        links=span.links,
        kind=span.kind,
        status=status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _cleaned_value(key: str, value: Any, is_client: bool) -> Any:
    if key not in ADDRESSES:
        return value
    parts = urlsplit(str(value))
    # An address that is called may be a secret by itself, as those of chats are.
    path = "" if is_client else parts.path
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{path}" if parts.scheme else path


def make_exporter() -> SpanExporter:
    """Make an exporter for the collector that the environment names.

    Its headers come from the settings, which take a secret from a file as well.
    """
    headers = dict(parse_env_headers(settings.TRACE_HEADERS, liberal=True))
    return CleanExporter(OTLPSpanExporter(headers=headers))


_lock = threading.Lock()
_exporters: list[SpanExporter] = []


def export(spans: Sequence[Derived]) -> bool:
    """Send derived spans to the collector, and wait; tell whether it has taken them."""
    with _lock:
        if not _exporters:
            _exporters.append(make_exporter())
    with suppress_instrumentation():
        result = _exporters[0].export([span.readable() for span in spans])
    return result is SpanExportResult.SUCCESS


def resource() -> Resource:
    """Return what the spans of this process say of it."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        return provider.resource
    return Resource.create({"service.name": "hotswap"})
