"""What a collector is sent of a rollout with real agents on a real stack."""

import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.collector import Collector, Received, collecting
from tests.deployments.agents import (
    QUICK_CRITERIA,
    AgentDevice,
    StartAgent,
    new_model,
    program,
    running_agents,
)
from tests.deployments.fleet import FINAL
from tests.deployments.live import LiveAdmin
from tests.deployments.test_spans import NAMES
from tests.live import LiveStack, running_stack
from tests.waiting import wait_until, wait_until_holds

pytestmark = pytest.mark.stack
SIMULATED = 3
SENT_BY_AGENTS = {"firmware.download", "firmware.verify", "firmware.install"} | {
    "device.reboot"
}
TOLERANCE = 1_000_000_000
NOBODY = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def stack(
    collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveStack]:
    """A stack of its own, which exports; its worker dies in the middle."""
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        "HOTSWAP_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    }
    folder = tmp_path_factory.mktemp("traces") / "data"
    with running_stack(folder, environment=environment) as running:
        yield running


@pytest.fixture
def agents() -> Iterator[StartAgent]:
    with running_agents() as start:
        yield start


@dataclass(frozen=True)
class Rollout:
    """A deployment in two stages, of which a collector is sent the trace.

    Attributes:
        launched: the answer of its launch.
        names: its devices.
        real: those of them that are agents; the last sends its own spans.
    """

    collector: Collector
    launched: dict[str, Any]
    names: list[str]
    real: list[str]

    def check(self) -> None:
        """Hold what has come so far to the whole trace of the specification."""
        found = {
            span.span_id: span
            for span in list(self.collector.spans)
            if span.trace_id == self.launched["traceId"]
        }
        by_name: dict[str, list[Received]] = defaultdict(list)
        for span in found.values():
            by_name[span.name].append(span)
        root = self._check_creation(found, by_name)
        assert [span.parent_id for span in by_name["deployment.stage"]] == [root] * 2
        assert by_name["deployment.tick"]
        notified = {span.device: span for span in by_name["device.notify"]}
        assert sorted(notified) == sorted(self.names)
        for notify in notified.values():
            assert notify.parent_id == root
            _check_order(notify, found.values())
        for span in found.values():
            if span.name.startswith(("deployment.", "device.", "firmware.", "health.")):
                assert span.attributes["hotswap.deployment.id"] == self.launched["id"]
                assert span.attributes["hotswap.firmware.version"] == "2.0.0"
                assert not span.is_error
        assert [set(complete.links) for complete in by_name["deployment.complete"]] == [
            {span.span_id for span in notified.values()}
        ]
        # The reports of the agents went on with the trace.
        reports = {span.parent_id for span in by_name["POST report"]}
        assert reports >= {notified[name].span_id for name in self.real}
        self._check_senders(found.values())

    def _check_creation(
        self, found: dict[str, Received], by_name: dict[str, list[Received]]
    ) -> str:
        """Hold the span of the creation to that of its request, and return its id."""
        assert len(by_name["deployment.create"]) == 1
        create = by_name["deployment.create"][0]
        assert create.parent_id in found
        request = found[create.parent_id]
        assert request.service == "hotswap-web"
        assert request.attributes["http.route"] == "api/v1/deployments"
        assert request.start <= create.start + TOLERANCE
        assert create.end <= request.end + TOLERANCE
        return create.span_id

    def _check_senders(self, found: Iterable[Received]) -> None:
        own = self.real[-1]
        for name in NAMES:
            senders = {
                span.service
                for span in list(self.collector.spans)
                if span.name == name and span.device == own
            }
            is_of_the_device = name in SENT_BY_AGENTS
            assert (senders == {"hotswap-agent"}) == is_of_the_device, (name, senders)
        assert {span.service for span in found} >= {"hotswap-web", "hotswap-worker"}


def _check_order(notify: Received, found: Iterable[Received]) -> None:
    """Hold the phases of an order to their order and their bounds."""
    phases = sorted(
        (
            span
            for span in found
            if span.parent_id == notify.span_id and span.name in NAMES
        ),
        key=lambda span: NAMES.index(span.name),
    )
    assert [span.name for span in phases] == NAMES
    assert notify.start <= phases[0].start
    for before, after in pairwise(phases):
        assert before.end <= after.start + TOLERANCE
    assert phases[-1].end == notify.end


def test_a_rollout_is_one_trace_as_in_the_specification(
    stack: LiveStack, collector: Collector, agents: StartAgent, tmp_path: Path
) -> None:
    admin = LiveAdmin(stack)
    model, factory = new_model(admin), program("1.0.0", 20_000)
    old = admin.upload(model, "1.0.0", factory)
    new = admin.upload(model, "2.0.0", program("2.0.0", 100_000))
    real = [
        AgentDevice(tmp_path / "one", admin, model, factory),
        # It sends the spans of its own work by itself.
        AgentDevice(
            tmp_path / "two", admin, model, factory, otlp_endpoint=collector.url
        ),
    ]
    for device in real:
        agents(device)
    fleet = admin.register(model, SIMULATED, old)
    for device in fleet:
        device.beat()
    names = [device.name for device in (*real, *fleet)]
    wait_until(
        lambda: all(admin.get(f"/devices/{name}")["lastSeenAt"] for name in names),
        what="every device has been heard",
    )
    launched = admin.post(
        "/deployments",
        {
            "firmwareId": new["id"],
            "strategy": "Canary",
            "targetDevices": names,
            "initialPercentage": 40,
            "increments": [100],
            "waitDuration": "PT1S",
            **QUICK_CRITERIA,
        },
    )

    def is_over() -> bool:
        for device in fleet:
            device.step_or_leave()
        status = admin.get(f"/deployments/{launched['id']}/status")["status"]
        return status in FINAL

    wait_until(is_over, seconds=300, what="the end of the rollout")
    # What is not sent yet is sent by the next one.
    stack.kill("worker")
    rollout = Rollout(collector, launched, names, [device.name for device in real])
    # Several processes send, each in its own time: nothing says what comes last.
    wait_until_holds(rollout.check)


def test_no_secret_is_in_any_span(stack: LiveStack, collector: Collector) -> None:
    admin = LiveAdmin(stack)
    canary = f"canary{secrets.token_hex(8)}"
    model = new_model(admin)
    device = f"d-{secrets.token_hex(4)}"
    key = admin.post(
        "/devices",
        {"deviceId": device, "model": model, "metadata": {"owner": canary}},
    )["apiKey"]
    admin.client.get(f"/devices?search={canary}", headers={"User-Agent": canary})
    login = {"username": stack.admin_username, "password": canary}
    assert admin.client.post("/auth/token", json=login).status_code == 401
    # Nobody answers there; the address is a secret.
    hook = admin.post("/webhooks", {"url": f"{NOBODY}/{canary}"})
    admin.post(f"/webhooks/{hook['id']}/test", {}, status=202)
    wait_until(
        lambda: any(
            each["attempts"]
            for each in admin.get(f"/webhooks/{hook['id']}/deliveries")["results"]
        ),
        what="it was called",
    )
    last = admin.client.get(f"/devices/{device}").headers["traceresponse"][3:35]

    def have_come() -> bool:
        spans = list(collector.spans)
        systems = {span.attributes.get("db.system") for span in spans}
        return systems >= {"postgresql", "redis"} and any(
            span.trace_id == last for span in spans
        )

    wait_until(have_come, what="the spans of the last request, and of both servers")
    sent = b"".join(collector.bodies)
    token = admin.client.headers["Authorization"].partition(" ")[2]
    for secret in (canary, key, stack.admin_password, token):
        assert secret.encode() not in sent
