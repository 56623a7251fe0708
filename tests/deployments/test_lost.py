"""Devices that vanish, pauses, cancels and odd timing: nothing waits for ever."""

from dataclasses import replace
from datetime import timedelta

from deployments.criteria import HealthCriteria
from deployments.services.operate import (
    cancel_deployment,
    pause_deployment,
    resume_deployment,
)
from devices.models import Device
from tests.deployments.world import CRITERIA, THRESHOLDS, World, statuses

LENIENT = replace(THRESHOLDS, success_rate=1, minimum_exposure=100)
BAD = {"application_metrics": {"errorRate": 0.5}}


def test_a_device_that_never_comes_back_does_not_hold_the_deployment_for_ever(
    world: World,
) -> None:
    v1, v2 = world.image("1.0.0"), world.image("2.0.0")
    devices = world.fleet(3, v1)
    deployment = world.launch(v2, rollback_thresholds=LENIENT, health_threshold=50.0)
    for device in devices:
        device.poll()
        device.work()
    dead = devices[0]
    for device in devices[1:]:
        device.reboot_into(v2)
        device.beat()
        device.report("confirming")
        device.beat()
    world.live_on(90, but=[dead])
    assert dead.target(deployment).status == "rolling_back"

    world.live_on(3700, step=25, but=[dead])

    deployment.refresh_from_db()
    assert deployment.status == "Completed"
    assert dead.target(deployment).status == "failed"
    assert dead.target(deployment).error_code == "rollback_unconfirmed"


def test_a_device_that_vanishes_before_its_retry_fails_at_the_deadline(
    world: World,
) -> None:
    v1, v2 = world.image("1.0.0"), world.image("2.0.0")
    gone, *others = world.fleet(3, v1)
    deployment = world.launch(
        v2,
        rollback_thresholds=LENIENT,
        health_threshold=50.0,
        offline_deadline=timedelta(minutes=20),
    )
    gone.poll()
    gone.report("downloading")
    for device in others:
        device.poll()
        device.go_through()

    world.live_on(3600, step=25, but=[gone])

    deployment.refresh_from_db()
    assert gone.target(deployment).status == "failed"
    assert deployment.status == "Completed"


def test_a_pause_does_not_use_up_the_time_that_devices_have_to_appear(
    world: World,
) -> None:
    v1, v2 = world.image("1.0.0"), world.image("2.0.0")
    (device,) = world.fleet(1, v1)
    deployment = world.launch(v2, offline_deadline=timedelta(minutes=10))
    pause_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="weekend", now=world.now
    )
    world.live_on(1200, step=25)

    resume_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="monday", now=world.now
    )
    world.tick(1)

    assert device.poll() is not None


def test_a_cancel_does_not_hide_an_installation_that_had_begun(world: World) -> None:
    v1, v2 = world.image("1.0.0"), world.image("2.0.0")
    began, retried = world.fleet(2, v1)
    deployment = world.launch(v2, rollback_thresholds=LENIENT, health_threshold=50.0)
    for device in (began, retried):
        device.poll()
        device.work()
    retried.reboot_into(v2)
    retried.report("failed", error_code="io_error")
    world.tick(1)
    assert retried.target(deployment).status == "pending"
    cancel_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="stop", now=world.now
    )
    world.live_on(400, but=[began])

    assert retried.target(deployment).status == "rolling_back"
    assert began.target(deployment).status == "rolling_back"
    world.update_offered()
    deployment.refresh_from_db()
    assert deployment.status == "Cancelled"
    assert statuses(deployment) == {"rolled_back": 2}


def test_a_watched_device_is_told_to_report_within_the_time_of_silence(
    world: World,
) -> None:
    v1, v2 = world.image("1.0.0"), world.image("2.0.0")
    (device,) = world.fleet(1, v1)
    world.launch(
        v2,
        health_criteria=HealthCriteria(),
        rollback_thresholds=replace(THRESHOLDS, offline_after=timedelta(seconds=10)),
    )
    device.poll()

    assert device.beat().next_heartbeat_seconds <= 5


def test_a_breach_after_the_watch_is_over_counts_no_more(world: World) -> None:
    v1, v2 = world.image("1.0.0"), world.image("2.0.0")
    (device,) = world.fleet(1, v1)
    deployment = world.launch(
        v2,
        health_criteria=replace(CRITERIA, watch_duration=timedelta(minutes=5)),
    )
    device.poll()
    device.go_through()
    world.live_on(400)
    assert device.target(deployment).status == "success"

    device.beat(**BAD)
    world.tick(1)

    assert device.target(deployment).status == "success"


def test_a_return_is_to_the_version_that_the_device_named(world: World) -> None:
    v1, v2 = world.image("1.0.0", content=b"same"), world.image("2.0.0")
    world.image("1.0.1", content=b"same", approved=False)
    (device,) = world.fleet(1, v1)
    deployment = world.launch(v2)
    device.poll()

    assert device.target(deployment).from_firmware == v1


def test_a_device_that_is_disabled_between_two_attempts_has_failed(
    world: World,
) -> None:
    v1, v2 = world.image("1.0.0"), world.image("2.0.0")
    device, _ = world.fleet(2, v1)
    deployment = world.launch(v2, rollback_thresholds=LENIENT, health_threshold=1.0)
    device.poll()
    device.report("failed", error_code="io_error")
    Device.objects.filter(pk=device.pk).update(enabled=False)
    world.now += timedelta(seconds=30)

    assert device.poll() is None
    assert device.target(deployment).status == "failed"
    assert device.target(deployment).error_code == "disabled"


def test_a_cancelled_plan_is_no_longer_paused(world: World) -> None:
    v1, v2 = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(1, v1)
    deployment = world.launch(v2, scheduled_at=world.now + timedelta(hours=1))
    pause_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="x", now=world.now
    )
    cancel_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="x", now=world.now
    )
    deployment.refresh_from_db()
    assert deployment.status == "Cancelled"
    assert deployment.pause_reasons == []
    assert deployment.waiting_for == ""
