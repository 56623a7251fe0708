"""Devices that are disabled while a deployment wants them."""

from devices.services.registry import change_device
from tests.deployments.world import ScriptedDevice, World, statuses


def disable(world: World, device: ScriptedDevice) -> None:
    change_device(actor=world.admin, device_id=device.name, changes={"enabled": False})


def test_a_device_disabled_before_its_offer_is_skipped(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    disable(world, device)

    assert device.poll() is None
    assert device.target(deployment).error_code == "disabled"
    assert statuses(deployment) == {"skipped": 1}


def test_a_device_disabled_in_the_middle_finishes_its_order(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.report("downloading")
    disable(world, device)

    again = device.poll()
    device.go_through()
    world.live_on(20)

    assert again is not None
    assert statuses(deployment) == {"success": 1}


def test_a_disabled_device_is_not_tried_again(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.report("failed", error_code="disk_full", message="disk is full")
    disable(world, device)
    world.live_on(15)

    assert device.poll() is None
    assert device.target(deployment).error_code == "disabled"
    assert statuses(deployment) == {"failed": 1}


def test_a_disabled_device_goes_back_when_it_must(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    world.launch(new, max_attempts=1)
    device.poll()
    device.work()
    device.reboot_into(new)
    disable(world, device)
    device.beat(application_metrics={"errorRate": 0.9})
    world.tick(1)

    order = device.poll()

    assert order is not None
    assert order["action"] == "rollback"
