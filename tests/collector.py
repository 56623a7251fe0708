"""A real OTLP/HTTP receiver, and the spans that it has been sent."""

import base64
import contextlib
import gzip
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.json_format import (  # type: ignore[import-untyped]
    ParseDict,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Status


@dataclass(frozen=True, slots=True)
class Received:
    """One span. Times are nanoseconds since 1970."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    attributes: dict[str, Any]
    links: tuple[str, ...]
    is_error: bool

    @property
    def device(self) -> str:
        return str(self.attributes.get("hotswap.device.id", ""))


@dataclass
class Collector:
    """Takes what is exported to it.

    Attributes:
        status: what it answers; anything but 200 takes nothing.
    """

    status: int = 200
    spans: list[Received] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    refused: int = 0
    url: str = ""

    def named(self, name: str) -> list[Received]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str, device: str = "") -> Received:
        """Return the only span of a name, and of a device if one is named."""
        (found,) = (
            span for span in self.named(name) if not device or span.device == device
        )
        return found

    def take(self, content_type: str, body: bytes) -> int:
        if self.status != 200:
            self.refused += 1
            return self.status
        self.bodies.append(body)
        if content_type == "application/json":
            request = ParseDict(_with_base64_ids(json.loads(body)), _new())
        else:
            request = ExportTraceServiceRequest.FromString(body)
        for sent in request.resource_spans:
            resource = _values(sent.resource.attributes)
            for scope in sent.scope_spans:
                self.spans += [
                    Received(
                        str(resource.get("service.name")),
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                        _values(span.attributes),
                        tuple(link.span_id.hex() for link in span.links),
                        span.status.code == Status.STATUS_CODE_ERROR,
                    )
                    for span in scope.spans
                ]
        return 200


def _new() -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest()


def _with_base64_ids(value: Any) -> Any:
    """Turn the ids of OTLP's JSON (hexadecimal) into those of protobuf's (base64)."""
    if isinstance(value, list):
        return [_with_base64_ids(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: base64.b64encode(bytes.fromhex(each)).decode()
        if name in {"traceId", "spanId", "parentSpanId"}
        else _with_base64_ids(each)
        for name, each in value.items()
    }


def _values(attributes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in attributes:
        kind = each.value.WhichOneof("value")
        value: Any = getattr(each.value, kind) if kind else None
        if kind == "array_value":
            value = [item.string_value for item in value.values]
        found[each.key] = value
    return found


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """Run a receiver on a port of its own."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            collector.authorizations.append(self.headers.get("Authorization", ""))
            self.send_response(collector.take(self.headers["Content-Type"], body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
