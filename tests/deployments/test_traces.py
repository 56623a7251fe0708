"""The traces of deployments, as a real collector is sent them (FR-FW-007)."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from deployments.choices import DeploymentStatus, UpdateStatus
from deployments.criteria import RollbackThresholds
from deployments.models import Deployment, TickTrace, Update
from deployments.services.operate import rollback_deployment
from deployments.services.traces import export_due, is_sampled
from hotswap.common import tracing
from tests.collector import Collector, Received, collecting
from tests.deployments.test_spans import NAMES
from tests.deployments.world import ScriptedDevice, World


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
            "deployment.tick": {},
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


def test_the_headers_of_the_settings_go_along(
    world: World, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "TRACE_HEADERS", "authorization=Bearer%20key")
    monkeypatch.setattr(tracing, "_exporters", [tracing.make_exporter()])
    updated(world, 1)

    export_due(world.now)

    assert set(collector.authorizations) == {"Bearer key"}


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


def ordered(world: World, **changes: Any) -> ScriptedDevice:
    """Give one device its order."""
    old, new = world.image("1.0.0"), world.image("2.0.0")
    (device,) = world.fleet(1, runs=old)
    world.launch(new, **changes)
    assert device.poll()
    return device


def of_device(spans: list[Received]) -> list[str]:
    return [span.name for span in spans if span.device]


def test_a_phase_is_sent_once_it_is_over_and_not_again_with_its_order(
    world: World, collector: Collector
) -> None:
    device = ordered(world)
    device.report("downloading")
    export_due(world.now)
    assert of_device(collector.spans) == []

    world.now += timedelta(seconds=4)
    device.report("verifying", body={"durations": {"download": 3.5}})
    export_due(world.now)
    assert of_device(collector.spans) == ["firmware.download"]
    assert collector.one("firmware.download").trace_id

    world.now += timedelta(seconds=4)
    device.report("installing", body={"durations": {"download": 3.5, "verify": 1.5}})
    device.report("rebooting", body={"durations": {"verify": 1.5, "install": 0}})
    export_due(world.now)
    export_due(world.now)
    verify = collector.one("firmware.verify")
    assert verify.end - verify.start == 1_500_000_000
    assert of_device(collector.spans) == NAMES[:3]

    device.reboot_into(device.ordered_image())
    device.beat()
    device.report("confirming")
    world.live_on(15)
    assert Update.objects.get().status == UpdateStatus.SUCCESS
    export_due(world.now)

    sent = of_device(collector.spans)
    assert sorted(sent) == sorted(["device.notify", *NAMES])
    notify = collector.one("device.notify")
    for name in NAMES:
        assert collector.one(name).parent_id == notify.span_id


def test_a_phase_survives_whoever_sends_it(world: World, collector: Collector) -> None:
    device = ordered(world)
    device.report("downloading")
    device.report("verifying")
    collector.status = 503
    export_due(world.now)
    assert of_device(collector.spans) == []

    collector.status = 200
    export_due(world.now)
    # As if that one had died before it noted that it was taken.
    Update.objects.update(traced_sequence=0)
    export_due(world.now)

    first, second = collector.named("firmware.download")
    assert first == second


def test_a_phase_that_comes_again_is_sent_again_from_first_to_last(
    world: World, collector: Collector
) -> None:
    device = ordered(world)
    device.report("downloading")
    device.report("verifying")
    export_due(world.now)

    world.now += timedelta(seconds=10)
    for status in ("downloading", "verifying", "installing"):
        device.report(status)
    export_due(world.now)

    first, second = collector.named("firmware.download")
    assert (first.span_id, first.start) == (second.span_id, second.start)
    assert second.end - first.end == 10_000_000_000


@pytest.mark.parametrize("has_exported", [True, False])
def test_the_phases_of_a_device_that_sends_its_own_wait_for_its_last_report(
    world: World, collector: Collector, has_exported: bool
) -> None:
    device = ordered(world)
    for status in ("downloading", "verifying", "installing", "rebooting"):
        device.report(status, body={"spansExported": False})
    export_due(world.now)
    assert of_device(collector.spans) == []

    device.reboot_into(device.ordered_image())
    device.beat()
    device.report("confirming", body={"spansExported": has_exported})
    world.live_on(15)
    export_due(world.now)

    sent = NAMES[-1:] if has_exported else NAMES
    assert sorted(of_device(collector.spans)) == sorted(["device.notify", *sent])


def test_a_tick_that_changed_something_is_sent_by_whoever_comes_next(
    world: World, collector: Collector
) -> None:
    device = ordered(world)
    # The one that ticked has died, and another one exports.
    collector.status = 503
    export_due(world.now)
    collector.status = 200

    export_due(world.now)

    deployment = Deployment.objects.get()
    (tick,) = collector.named("deployment.tick")
    assert tick.parent_id == deployment.root_span_id
    assert "stage.opened" in tick.attributes["hotswap.events"]
    stage = deployment.stages.get()
    assert tick.start == tracing.nanoseconds(stage.opened_at or world.now)
    assert tick.end >= tick.start
    assert device.open_updates() == 1
    assert not TickTrace.objects.exists()


def test_ticks_are_noted_where_a_collector_is_configured_alone(world: World) -> None:
    ordered(world)

    assert not TickTrace.objects.exists()


def test_a_request_that_is_not_sampled_is_no_parent(
    world: World, collector: Collector
) -> None:
    def within(flags: int) -> Deployment:
        context = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(flags))
        with trace.use_span(NonRecordingSpan(context)):
            return world.launch(world.image(f"2.{flags}.0"))

    world.fleet(1, runs=world.image("1.0.0"))

    assert within(1).parent_span == f"{2:016x}"
    assert within(0).parent_span == ""


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
