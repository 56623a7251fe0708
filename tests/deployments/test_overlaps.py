"""Two deployments that want one device: what the one did is not the other's to undo."""

from dataclasses import replace

from deployments.services.operate import (
    pause_deployment,
    resume_deployment,
    rollback_deployment,
)
from deployments.services.requests import Selection
from devices.models import Device
from tests.deployments.world import THRESHOLDS, World, statuses

LENIENT = replace(THRESHOLDS, success_rate=1, minimum_exposure=100)
BAD = {"application_metrics": {"errorRate": 0.5}}


def test_a_rollback_leaves_devices_alone_that_a_later_deployment_has_updated(
    world: World,
) -> None:
    v1, v2, v3 = (world.image(v) for v in ("1.0.0", "2.0.0", "3.0.0"))
    moved_on, stayed = world.fleet(2, v1)
    first = world.launch(v2)
    world.update_offered()
    world.launch(v3, selection=Selection(device_ids=(moved_on.name,)))
    world.update_offered()

    rollback_deployment(
        actor=world.admin, deployment_id=first.pk, reason="bad", now=world.now
    )
    returned = world.update_offered()
    world.tick(1)

    first.refresh_from_db()
    assert returned == [stayed]
    assert moved_on.runs == v3
    assert first.status == "RolledBack"
    assert moved_on.target(first).error_code == "moved_on"
    assert statuses(first) == {"rolled_back": 1, "skipped": 1}


def test_a_return_waits_for_a_later_update_at_work_and_then_lets_go(
    world: World,
) -> None:
    v1, v2, v3 = (world.image(v) for v in ("1.0.0", "2.0.0", "3.0.0"))
    (device,) = world.fleet(1, v1)
    first = world.launch(v2)
    world.update_offered()
    second = world.launch(v3)
    device.poll()
    device.work()

    rollback_deployment(
        actor=world.admin, deployment_id=first.pk, reason="bad", now=world.now
    )
    world.tick(1)
    device.reboot_into(v3)
    device.beat()
    device.report("confirming")
    device.beat()
    world.live_on(15)

    second.refresh_from_db()
    assert second.status == "Completed"
    assert device.poll() is None
    world.tick(1)
    first.refresh_from_db()
    assert (first.status, first.failure_reason) == (
        "Failed",
        (
            "1 of 1 exposed devices was updated by a later deployment; "
            "nothing had to be rolled back"
        ),
    )
    assert device.target(first).status == "skipped"


def test_of_two_returns_the_later_deployment_goes_first(world: World) -> None:
    v1, v2, v3 = (world.image(v) for v in ("1.0.0", "2.0.0", "3.0.0"))
    (device,) = world.fleet(1, v1)
    first = world.launch(v2)
    world.update_offered()
    second = world.launch(v3)
    world.update_offered()
    for deployment in (second, first):
        rollback_deployment(
            actor=world.admin,
            deployment_id=deployment.pk,
            reason="bad",
            now=world.now,
        )

    ran = []
    for _ in range(2):
        world.update_offered()
        ran.append(device.runs)

    first.refresh_from_db()
    second.refresh_from_db()
    assert ran == [v2, v1]
    assert (first.status, second.status) == ("RolledBack", "RolledBack")


def test_a_device_that_a_later_deployment_updated_is_not_taken_for_a_stray(
    world: World,
) -> None:
    v1, v2 = world.image("1.0.0"), world.image("2.0.0")
    device, _ = world.fleet(2, v1)
    first = world.launch(v2, rollback_thresholds=LENIENT, health_threshold=10.0)
    device.poll()
    device.report("failed", error_code="signature_invalid")
    world.tick(1)
    second = world.launch(v2, selection=Selection(device_ids=(device.name,)))
    device.poll()
    device.go_through()
    world.live_on(15)

    world.tick(1)

    first.refresh_from_db()
    second.refresh_from_db()
    assert second.status == "Completed"
    assert device.target(first).status == "failed"
    assert device.poll() is None


def test_an_older_plan_does_not_take_a_device_back_to_an_older_image(
    world: World,
) -> None:
    v1, v2, v3 = (world.image(v) for v in ("1.0.0", "2.0.0", "3.0.0"))
    (device,) = world.fleet(1, v1)
    first = world.launch(v2)
    pause_deployment(
        actor=world.admin, deployment_id=first.pk, reason="wait", now=world.now
    )
    world.tick(1)
    world.launch(v3)
    world.update_offered()

    resume_deployment(
        actor=world.admin, deployment_id=first.pk, reason="go", now=world.now
    )

    assert device.poll() is None
    assert device.target(first).error_code == "moved_on"
    world.tick(1)
    first.refresh_from_db()
    assert first.status == "Completed"


def test_a_device_that_proved_a_higher_security_version_is_left_out_at_the_offer(
    world: World,
) -> None:
    v1, v2 = world.image("1.0.0"), world.image("2.0.0")
    (device,) = world.fleet(1, v1)
    first = world.launch(v2)
    Device.objects.update(security_version=7)

    assert device.poll() is None
    assert device.target(first).error_code == "security_version"
