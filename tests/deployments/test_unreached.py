"""An image that does not reach the devices: the path is at fault, never the image."""

from datetime import timedelta

import pytest

from deployments.models import Deployment, Quarantine, Rollback
from deployments.rules.codes import FETCH_ERRORS
from deployments.services.operate import resume_deployment, retry_failed
from firmware.models import Firmware
from tests.deployments.world import ScriptedDevice, World, events, statuses

# Longer than the longest wait for another attempt.
UNTIL_NEXT_ATTEMPT = timedelta(minutes=11)


@pytest.fixture
def images(world: World) -> tuple[Firmware, Firmware]:
    return world.image("1.0.0"), world.image("2.0.0")


def cannot_fetch(device: ScriptedDevice, code: str = "path_not_found") -> None:
    """Take the order and give up on its image."""
    assert device.poll() is not None
    device.report("downloading")
    device.report("failed", error_code=code, message="HTTP 404")


def exhaust(world: World, device: ScriptedDevice) -> None:
    """Use up all attempts of a device before a tick looks."""
    for attempt in range(3):
        if attempt:
            world.now += UNTIL_NEXT_ATTEMPT
        cannot_fetch(device)


def resume(world: World, deployment: Deployment) -> None:
    resume_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="mended", now=world.now
    )
    world.tick()


def status_of(deployment: Deployment) -> str:
    deployment.refresh_from_db()
    return deployment.status


@pytest.mark.parametrize("code", sorted(FETCH_ERRORS))
def test_an_image_that_reaches_nobody_pauses_and_sends_nobody_back(
    world: World, images, code: str
) -> None:
    fleet = world.fleet(10, images[0])
    deployment = world.launch(images[1])

    for device in fleet:
        cannot_fetch(device, code)
    world.tick()

    assert status_of(deployment) == "Paused"
    assert deployment.pause_reasons == ["health"]
    assert f"did not reach 10 of 10 devices ({code} 10)" in deployment.pause_detail
    assert statuses(deployment) == {"pending": 10}
    assert not Rollback.objects.exists()


def test_it_pauses_as_well_when_all_attempts_are_used_up(world: World, images) -> None:
    fleet = world.fleet(3, images[0])
    deployment = world.launch(images[1])

    for device in fleet:
        exhaust(world, device)
    world.tick()

    assert status_of(deployment) == "Paused"
    assert statuses(deployment) == {"failed": 3}
    assert not Quarantine.objects.exists()


def test_resuming_on_a_mended_path_completes(world: World, images) -> None:
    tired, fresh, *rest = world.fleet(4, images[0])
    deployment = world.launch(images[1])
    exhaust(world, tired)
    for device in (fresh, *rest):
        cannot_fetch(device)
    world.tick()

    resume(world, deployment)
    world.update_offered()

    assert status_of(deployment) == "Completed"
    assert statuses(deployment) == {"success": 4}
    assert "deployment.retried" in events(deployment)


def test_the_only_device_of_a_stage_pauses_at_its_first_failure(
    world: World, images
) -> None:
    canary, *others = world.fleet(10, images[0])
    deployment = world.launch(images[1], strategy="Canary")
    (canary,) = [device for device in [canary, *others] if device.poll()]
    canary.report("failed", error_code="path_server_error", message="HTTP 503")

    world.tick()

    assert status_of(deployment) == "Paused"
    assert "path_server_error 1" in deployment.pause_detail


def test_a_page_of_a_proxy_on_a_tenth_of_the_fleet_pauses(world: World, images) -> None:
    behind, *others = world.fleet(20, images[0])
    also_behind, *others = others
    deployment = world.launch(images[1])
    for device in (behind, also_behind):
        cannot_fetch(device, "path_not_firmware")
    for device in others:
        device.poll()
        device.go_through()

    world.live_on(15)

    assert status_of(deployment) == "Paused"
    assert statuses(deployment) == {"success": 18, "pending": 2}
    assert "proxy or portal" in deployment.pause_detail


def test_one_of_many_that_cannot_fetch_leaves_it_to_the_thresholds(
    world: World, images
) -> None:
    lonely, *others = world.fleet(30, images[0])
    deployment = world.launch(images[1])
    for device in others:
        device.poll()
        device.go_through()
    exhaust(world, lonely)

    world.live_on(15)

    # 96.7 %: below the health threshold, above the rollback threshold.
    assert status_of(deployment) == "Completed"
    assert statuses(deployment) == {"success": 29, "failed": 1}
    (stage,) = deployment.stages.all()
    assert "the image did not reach 1 device" in stage.warning


def test_what_fails_again_after_a_resume_asks_a_person_once_more(
    world: World, images
) -> None:
    fleet = world.fleet(2, images[0])
    deployment = world.launch(images[1])
    for device in fleet:
        cannot_fetch(device)
    world.tick()
    resume(world, deployment)

    for device in fleet:
        exhaust(world, device)
    world.tick()

    assert status_of(deployment) == "Paused"
    assert "tried again in vain" in deployment.pause_detail
    resume(world, deployment)
    assert status_of(deployment) == "Completed"
    assert statuses(deployment) == {"failed": 2}


def test_more_devices_than_were_known_pause_it_at_once_again(
    world: World, images
) -> None:
    first, second, third = world.fleet(3, images[0])
    deployment = world.launch(images[1])
    for device in (first, second):
        cannot_fetch(device)
    world.tick()
    resume(world, deployment)

    for device in (first, second):
        cannot_fetch(device)
    world.tick()
    assert status_of(deployment) == "Running"
    cannot_fetch(third)
    world.tick()

    assert status_of(deployment) == "Paused"


def test_retrying_what_failed_does_so_beside_a_resume(world: World, images) -> None:
    fleet = world.fleet(2, images[0])
    deployment = world.launch(images[1])
    for device in fleet:
        exhaust(world, device)
    world.tick()

    retry_failed(
        actor=world.admin, deployment_id=deployment.pk, reason="again", now=world.now
    )
    resume(world, deployment)
    world.update_offered()

    assert status_of(deployment) == "Completed"
    assert statuses(deployment) == {"success": 2}


def test_a_bad_image_goes_back_whatever_the_path_does(world: World, images) -> None:
    fleet = world.fleet(10, images[0])
    deployment = world.launch(images[1])
    for device in fleet[:2]:
        device.poll()
        device.report("installing")
        device.report("failed", error_code="self_test_failed", message="no boot")
    for device in fleet[2:]:
        cannot_fetch(device)

    world.tick()

    assert status_of(deployment) == "RollingBack"
    facts = Rollback.objects.get().facts["stage"]
    assert (facts["failed"], facts["bestReachableRate"]) == (2, 80.0)
