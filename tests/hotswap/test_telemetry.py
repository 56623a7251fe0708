"""What a web process traces, in a process of its own because it changes Django."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.urls import get_resolver
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision
from opentelemetry.trace import SpanKind

from hotswap.common.tracing import RoutineSampler, routine_request
from tests.collector import Collector, collecting
from tests.common.test_roles import routes
from tests.live import PROJECT_DIR, clean_environment

ID = "7d0f6a4e-9a3b-4c55-8f43-2f6c8f0c2b11"
PREPARATION = """
import io, json
from wsgiref.util import setup_testing_defaults
from hotswap.wsgi import application
from opentelemetry import trace

def call(path, query="", method="GET", **headers):
    environ = {"PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": method,
               "HTTP_HOST": "127.0.0.1", **headers}
    setup_testing_defaults(environ)
    got = {}
    def start(status, headers, error=None):
        got.update(headers, status=status)
    return got, b"".join(application(environ, start))

"""
FLUSH = "\ntrace.get_tracer_provider().force_flush()\n"


def run(script: str, folder: Path, **environment: str) -> str:
    """Run a script after `PREPARATION`, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", PREPARATION + script + FLUSH],
        cwd=PROJECT_DIR,
        env={
            **clean_environment(),
            "HOTSWAP_DATA_DIR": str(folder),
            "HOTSWAP_DATABASE_URL": "postgresql://127.0.0.1:1/none",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


def test_requests_are_traced_but_not_those_of_machines(
    collector: Collector, tmp_path: Path
) -> None:
    run(
        """
for path in ("/health", "/metrics", "/no/such/page", "/api/v1/devices/d/health"):
    call(path)
""",
        tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        HOTSWAP_TRACE_ROUTINE_PERCENT="100",
    )

    requests = [span for span in collector.spans if "http.url" in span.attributes]
    assert {span.attributes["http.url"] for span in requests} == {
        "http://127.0.0.1/no/such/page",
        "http://127.0.0.1/api/v1/devices/d/health",
    }
    assert {span.service for span in requests} == {"hotswap-web"}


def test_a_trace_goes_from_the_caller_to_the_answer_and_the_log(
    collector: Collector, tmp_path: Path
) -> None:
    trace_id, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    said = run(
        f"""
got, body = call("/api/v1/nothing", query="password=canary",
                 HTTP_TRACEPARENT="00-{trace_id}-{parent}-01",
                 HTTP_USER_AGENT="canary")
print(json.dumps([got["traceresponse"], json.loads(body)["traceId"]]))
""",
        tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
    )

    lines = [json.loads(line) for line in said.splitlines()]
    (response, in_problem) = lines[0]
    span = collector.one("GET")
    assert (span.trace_id, span.parent_id) == (trace_id, parent)
    assert response[:53] == f"00-{trace_id}-{span.span_id}-"
    assert in_problem == trace_id
    assert trace_id in {line.get("traceId") for line in lines[1:]}
    assert not any(b"canary" in body for body in collector.bodies)
    assert "canary" not in said


def test_without_a_collector_requests_have_trace_ids_all_the_same(
    tmp_path: Path,
) -> None:
    said = run(
        """
got, body = call("/api/v1/nothing")
print(json.dumps([got["traceresponse"], json.loads(body)["traceId"]]))
""",
        tmp_path,
    )

    lines = [json.loads(line) for line in said.splitlines()]
    (response, in_problem) = lines[0]
    assert response[3:35] == in_problem
    # Random, and not sampled.
    assert response[53:] == "02"
    assert in_problem in {line.get("traceId") for line in lines[1:]}


def sampled(sampler: RoutineSampler, name: str, kind: SpanKind, path: str = "") -> int:
    """Count how many of a thousand traces that begin so are sampled."""
    attributes: dict[str, Any] = {"http.target": path} if path else {}
    step = 2**64 // 1000
    decisions = [
        sampler.should_sample(None, number * step, name, kind, attributes).decision
        for number in range(1000)
    ]
    return decisions.count(Decision.RECORD_AND_SAMPLE)


@pytest.mark.parametrize(
    ("name", "kind", "path", "count"),
    [
        ("POST", SpanKind.SERVER, "/api/v1/deployments", 1000),
        ("GET", SpanKind.SERVER, "/api/v1/devices/d-1", 1000),
        ("POST", SpanKind.SERVER, "/api/v1/devices/d-1/health", 10),
        ("GET", SpanKind.SERVER, "/api/v1/devices/d-1/update?x=1", 10),
        ("POST", SpanKind.SERVER, f"/api/v1/devices/d-1/updates/{ID}/reports", 10),
        ("GET", SpanKind.SERVER, f"/api/v1/firmware/{ID}/download", 10),
        ("GET", SpanKind.SERVER, f"/api/v1/firmware/{ID}", 1000),
        ("GET", SpanKind.SERVER, "/api/v1/nowhere", 1000),
        ("apply_async/deployments.tasks.tick", SpanKind.PRODUCER, "", 10),
        ("BRPOP", SpanKind.CLIENT, "", 10),
    ],
)
def test_routine_is_sampled_at_its_start(
    name: str, kind: SpanKind, path: str, count: int
) -> None:
    sampler = RoutineSampler(ALWAYS_ON, 0.01)

    assert sampled(sampler, name, kind, path) == pytest.approx(count, abs=1)


def test_what_devices_call_all_day_says_that_it_is_routine() -> None:
    views = [
        view
        for _, view in routes(get_resolver().url_patterns)
        if view and view.__module__.startswith("deployments.protocols.")
    ]

    assert len(views) >= 3
    assert [each for each in views if not (each.is_routine or each.is_piecewise)] == []


def test_a_request_on_the_fast_path_opens_a_span_only_if_it_is_sampled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings, "TRACES_EXPORTED", True)
    monkeypatch.setattr(settings, "TRACE_ROUTINE_PERCENT", 0.0)

    goes_on = {"HTTP_TRACEPARENT": f"00-{'1' * 32}-{'2' * 16}-01"}
    does_not = {"HTTP_TRACEPARENT": f"00-{'1' * 32}-{'2' * 16}-00"}

    with routine_request("GET poll", goes_on) as span:
        assert span.get_span_context().trace_id == int("1" * 32, 16)
    for meta in ({}, does_not):
        with routine_request("GET poll", meta) as span:
            assert span is None
