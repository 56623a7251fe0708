"""The spans that an agent sends by itself."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deployments.spans import DOWNLOAD, INSTALL, REBOOT, VERIFY
from devices.agent.config import Config, ConfigError, parse_config
from devices.agent.protocol import Order, parse_order
from devices.agent.spans import SpanExporter, Step, spans_of
from devices.agent.states import AgentState, add_step, came_up, reboot_requested
from devices.agent.store import decode, encode
from hotswap.common.tracing import span_id_of
from tests.collector import Collector, collecting

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
TRACE, NOTIFY = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
UPDATE = "7f3e0f0c-2a0b-4a53-8f3c-111111111111"


def order(flags: str = "01") -> Order:
    return parse_order(
        {
            "updateId": UPDATE,
            "deploymentId": "d-1",
            "action": "install",
            "firmware": {
                "version": "2.0.0",
                "model": "m",
                "size": 1,
                "checksum": "0" * 64,
                "signature": "",
                "signatureAlgorithm": "",
                "keyId": "",
                "downloadUrl": "/x",
            },
            "manifest": "",
            "manifestSignature": "",
            "rebootRequired": True,
            "traceparent": f"00-{TRACE}-{NOTIFY}-{flags}",
        }
    )


def step(name: str, second: float, seconds: float = 1) -> Step:
    return Step(name, START + timedelta(seconds=second), seconds)


STEPS = (
    step("download", 0, 3),
    step("verify", 4),
    step("install", 6, 2),
    step("reboot", 9, 20),
    step("selfTest", 30),
)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


def test_a_collector_is_sent_what_was_done_under_the_ids_of_the_server(
    collector: Collector,
) -> None:
    exporter = SpanExporter(collector.url, "d-001")

    assert exporter.send(order(), STEPS)

    names = (DOWNLOAD, VERIFY, INSTALL, REBOOT)
    assert [span.name for span in collector.spans] == list(names)
    for span, name in zip(collector.spans, names, strict=True):
        assert (span.trace_id, span.parent_id) == (TRACE, NOTIFY)
        assert span.span_id == f"{span_id_of(UPDATE, name):016x}"
        assert span.service == "hotswap-agent"
        assert span.attributes["hotswap.device.id"] == "d-001"
        assert span.attributes["hotswap.deployment.id"] == "d-1"
        assert span.attributes["hotswap.firmware.version"] == "2.0.0"
    reboot = collector.one(REBOOT)
    assert reboot.end - reboot.start == 20 * 10**9


def test_unsampled_orders_are_sent_only_if_they_failed(collector: Collector) -> None:
    exporter = SpanExporter(collector.url, "d-001")

    assert not exporter.send(order("00"), STEPS[:2])
    assert exporter.send(order("00"), STEPS[:2], error="signature_invalid")

    assert [span.is_error for span in collector.spans] == [False, True]


def test_a_collector_that_does_not_take_them_does_no_harm(
    collector: Collector,
) -> None:
    collector.status = 503
    assert not SpanExporter(collector.url, "d-001").send(order(), STEPS)
    assert not SpanExporter("http://127.0.0.1:1", "d-001").send(order(), STEPS)


def test_steps_that_came_again_are_one_span() -> None:
    (span,) = spans_of(order(), "d", [step("verify", 1), step("verify", 9)], "")

    start, end = int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
    assert end - start == 9 * 10**9


def test_steps_outlive_a_restart() -> None:
    state = add_step(AgentState(), STEPS[0])
    state = reboot_requested(state, START)

    read = decode(encode(state))

    assert read == state
    after = came_up(read, START + timedelta(seconds=7))
    assert after.steps[-1] == Step("reboot", START, 7.0)
    assert came_up(after, START) == after
    # As it was written by an agent that knew nothing of it.
    known = json.loads(encode(AgentState()))
    for name in ("steps", "reboot_began_at", "spans_exported"):
        del known[name]
    assert decode(json.dumps(known).encode()) == AgentState()


def config(**changes: Any) -> Config:
    return parse_config(
        {
            "server": "https://hotswap.example.com",
            "device_id": "d-001",
            "model": "m",
            "api_key_file": "key",
            "data_dir": "data",
            "trusted_keys": ["a.pem"],
            **changes,
        },
        folder=Path("/folder"),
    )


@pytest.mark.parametrize(
    "address", ["ftp://x", "http://collector.example.com", "https://", "x", "http://["]
)
def test_a_wrong_endpoint_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="otlp_endpoint"):
        config(otlp_endpoint=address)


def test_endpoints_are_as_the_server() -> None:
    assert config().otlp_endpoint == ""
    assert config(otlp_endpoint="https://c.example.com").otlp_endpoint
    assert config(otlp_endpoint="http://127.0.0.1:4318").otlp_endpoint
