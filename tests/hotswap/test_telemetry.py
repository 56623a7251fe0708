"""Traces reach a collector, in a process of its own because they change Django."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)

from tests.live import PROJECT_DIR, clean_environment

REQUESTS = """
from wsgiref.util import setup_testing_defaults
from hotswap.wsgi import application
for path in ("/health", "/metrics", "/no/such/page"):
    environ = {"PATH_INFO": path, "HTTP_HOST": "127.0.0.1"}
    setup_testing_defaults(environ)
    b"".join(application(environ, lambda status, headers, error=None: None))
from opentelemetry import trace
trace.get_tracer_provider().force_flush()
"""


@pytest.fixture
def collector():
    """A collector of traces: its address, and the requests that it was sent."""
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    thread.join()
    server.server_close()


def test_requests_are_traced_but_not_those_of_machines(collector, tmp_path):
    endpoint, received = collector

    done = subprocess.run(
        [sys.executable, "-c", REQUESTS],
        cwd=PROJECT_DIR,
        env={
            **clean_environment(),
            "HOTSWAP_DATA_DIR": str(tmp_path),
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    spans = [
        span
        for body in received
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    targets = {
        attribute.value.string_value
        for span in spans
        for attribute in span.attributes
        if attribute.key == "http.url"
    }
    assert targets == {"http://127.0.0.1/no/such/page"}
