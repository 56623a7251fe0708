"""The traces of deployments, as a real collector is sent them (FR-FW-007)."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings

from deployments.choices import DeploymentStatus
from deployments.criteria import RollbackThresholds
from deployments.models import Deployment, Update
from deployments.services.operate import rollback_deployment
from deployments.services.traces import export_due, is_sampled
from hotswap.common import tracing
from tests.collector import Collector, Received, collecting
from tests.deployments.test_spans import NAMES
from tests.deployments.world import World


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that this process exports to."""
    with collecting() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        monkeypatch.setattr(settings, "TRACES_EXPORTED", True)
        monkeypatch.setattr(tracing, "_exporters", [tracing.make_exporter()])
        yield running


def tree(spans: list[Received]) -> dict[str, Any]:
    """Return the names of spans below each other, devices by name."""

    def named(span: Received) -> str:
        is_order = span.name == "device.notify"
        return f"{span.name} ({span.device})" if is_order else span.name

    def below(parent: str) -> dict[str, Any]:
        children = sorted(
            (span for span in spans if span.parent_id == parent),
            key=lambda span: (span.start, span.device),
        )
        return {
            f"{span.name} ({span.device})"
            if span.name == "device.notify"
            else span.name: below(span.span_id)
            for span in children
        }

    return below("")


def updated(world: World, count: int, **changes: Any) -> Deployment:
    """Take a fleet through a deployment to its end."""
    old = world.image("1.0.0")
    new = world.image("2.0.0")
    world.fleet(count, runs=old)
    deployment = world.launch(new, **changes)
    world.update_offered()
    deployment.refresh_from_db()
    return deployment


def test_the_tree_of_a_deployment_is_that_of_the_specification(
    world: World, collector: Collector
) -> None:
    deployment = updated(world, 2)
    assert deployment.status == DeploymentStatus.COMPLETED

    export_due(world.now)

    phases: dict[str, Any] = {name: {} for name in NAMES}
    assert tree(collector.spans) == {
        "deployment.create": {
            "deployment.stage": {},
            "device.notify (d-000)": phases,
            "device.notify (d-001)": phases,
            "deployment.complete": {},
        }
    }
    for span in collector.spans:
        assert span.trace_id == deployment.trace_id
        assert span.attributes["hotswap.deployment.id"] == str(deployment.pk)
        assert span.attributes["hotswap.firmware.version"] == "2.0.0"
        assert span.start <= span.end
        assert not span.is_error
    complete = collector.one("deployment.complete")
    notified = {span.span_id for span in collector.named("device.notify")}
    assert set(complete.links) == notified
    for order in Update.objects.filter(deployment=deployment):
        span = collector.one("device.notify", order.device.device_id)
        assert (span.start, span.end) == (
            tracing.nanoseconds(order.offered_at),
            tracing.nanoseconds(order.closed_at or order.offered_at),
        )
        assert order.traceparent == f"00-{deployment.trace_id}-{span.span_id}-01"


def test_nothing_is_sent_twice_and_what_is_has_the_same_ids(
    world: World, collector: Collector
) -> None:
    updated(world, 2)
    export_due(world.now)
    first = {(span.name, span.device): span.span_id for span in collector.spans}
    count = len(collector.spans)

    export_due(world.now)
    assert len(collector.spans) == count

    # As if the one that sent it had died before it noted that.
    Update.objects.update(traced_at=None)
    Deployment.objects.update(traced_until=None)
    export_due(world.now)

    again = {(span.name, span.device): span.span_id for span in collector.spans[count:]}
    assert again.items() <= first.items()
    assert len(again) == 2 * 6 + 2


def test_what_a_collector_does_not_take_is_sent_later(
    world: World, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    updated(world, 1)
    collector.status = 400
    export_due(world.now)
    assert collector.refused
    assert not collector.spans

    collector.status = 200
    export_due(world.now)

    assert collector.one("deployment.complete").parent_id


def test_all_failures_are_traced_and_of_the_rest_a_sample(
    world: World, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "TRACE_DEVICES", 0)
    old, new = world.image("1.0.0"), world.image("2.0.0")
    bad, good = world.fleet(2, runs=old)
    deployment = world.launch(
        new,
        max_attempts=1,
        rollback_thresholds=RollbackThresholds(success_rate=1, minimum_sample=5),
    )
    for device in (bad, good):
        order = device.poll()
        assert order is not None
        assert order["traceparent"].endswith("-00")
    bad.report("downloading")
    bad.report("verifying")
    bad.report("failed", error_code="signature_invalid", message="canary words")
    good.go_through()
    world.live_on(15)

    export_due(world.now)

    assert {span.device for span in collector.named("device.notify")} == {bad.name}
    notify = collector.one("device.notify")
    assert notify.is_error
    assert notify.attributes["error.type"] == "signature_invalid"
    assert not collector.one("firmware.download").is_error
    assert collector.one("firmware.verify").is_error
    assert not any(b"canary" in body for body in collector.bodies)
    assert Update.objects.get(deployment=deployment, device_id=good.pk).closed_at


def test_a_rollback_is_a_span_with_the_orders_back_below_it(
    world: World, collector: Collector
) -> None:
    deployment = updated(world, 2)
    rollback_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="as said", now=world.now
    )
    world.tick(1)
    world.update_offered()
    deployment.refresh_from_db()
    assert deployment.status == DeploymentStatus.ROLLED_BACK

    export_due(world.now)

    rollback = collector.one("deployment.rollback")
    assert rollback.parent_id == deployment.root_span_id
    back = [
        span
        for span in collector.named("device.notify")
        if span.parent_id == rollback.span_id
    ]
    assert sorted(span.device for span in back) == ["d-000", "d-001"]
    assert {span.attributes["hotswap.firmware.version"] for span in back} == {"1.0.0"}
    assert [
        span.attributes["hotswap.deployment.status"]
        for span in collector.named("deployment.complete")
    ][-1] == "RolledBack"


def test_the_sample_is_the_same_everywhere_and_about_as_large_as_said(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "TRACE_DEVICES", 100)
    deployment = Deployment(target_count=10_000)
    devices = [uuid.UUID(int=number) for number in range(10_000)]

    drawn = [each for each in devices if is_sampled(deployment, each)]

    assert 60 < len(drawn) < 140
    assert drawn == [each for each in devices if is_sampled(deployment, each)]
    deployment.target_count = 100
    assert all(is_sampled(deployment, each) for each in devices)


def test_what_lies_back_for_long_is_left_alone(
    world: World, collector: Collector
) -> None:
    updated(world, 1)

    export_due(world.now + timedelta(days=2))

    assert not collector.spans
