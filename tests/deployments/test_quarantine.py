"""An image that fails on a device again and again is not offered there any more."""

from dataclasses import replace

import pytest

from deployments.exceptions import (
    IneligibleDevicesError,
    NothingToRetryError,
    NotQuarantinedError,
)
from deployments.models import Deployment, Quarantine
from deployments.services.operate import retry_failed
from deployments.services.quarantine import release_quarantine
from deployments.services.requests import Selection
from firmware.models import Firmware
from hotswap.common.models import AuditEvent
from tests.api import problem_of
from tests.callers import PersonCaller
from tests.deployments.world import THRESHOLDS, ScriptedDevice, World, events

# Single devices fail, the deployment goes on.
TOLERANT = replace(THRESHOLDS, success_rate=1)


@pytest.fixture
def images(world: World) -> tuple[Firmware, Firmware]:
    return world.image("1.0.0"), world.image("2.0.0")


def launch(world: World, bad: Firmware) -> Deployment:
    return world.launch(
        bad, health_threshold=1, rollback_thresholds=TOLERANT, max_attempts=1
    )


def fail_once(world: World, device: ScriptedDevice, code: str) -> None:
    """Take the order and give up on it, still on the former image."""
    assert device.poll() is not None
    device.report("downloading")
    device.report("failed", error_code=code, message="it did not come up")
    world.live_on(15)


def try_again(world: World, deployment: Deployment) -> None:
    retry_failed(
        actor=world.admin, deployment_id=deployment.pk, reason="again", now=world.now
    )
    world.tick()


def test_the_second_failure_of_an_image_shuts_it_out(world: World, images) -> None:
    old, bad = images
    first, second = world.fleet(2, old)
    deployment = launch(world, bad)
    second.poll()
    second.go_through()

    fail_once(world, first, "self_test_failed")
    assert not Quarantine.objects.active().exists()
    try_again(world, deployment)
    fail_once(world, first, "self_test_failed")

    kept = Quarantine.objects.active().get()
    assert (kept.device_id, kept.firmware, kept.failures) == (first.pk, bad, 2)
    assert events(deployment).count("device.quarantined") == 1
    with pytest.raises(
        NothingToRetryError, match="1 device that failed is quarantined"
    ):
        try_again(world, deployment)
    target = first.target(deployment)
    assert (target.status, target.error_code) == ("failed", "self_test_failed")
    assert first.poll() is None


def test_a_breach_counts_and_a_broken_download_does_not(world: World, images) -> None:
    old, bad = images
    sick, cut = world.fleet(2, old)
    launch(world, bad)
    sick.poll()
    sick.go_through()
    sick.beat(application_metrics={"errorRate": 0.9})
    fail_once(world, cut, "download_failed")
    world.tick(5)

    counted = Quarantine.objects.get()
    assert (counted.device_id, counted.failures) == (sick.pk, 1)
    assert counted.last_code == "error_rate"


def test_a_new_deployment_leaves_the_device_out_and_says_why(
    world: World, images, settings
) -> None:
    settings.QUARANTINE_AFTER = 1
    old, bad = images
    first, _ = world.fleet(2, old)
    launch(world, bad)
    fail_once(world, first, "self_test_failed")

    with pytest.raises(IneligibleDevicesError) as refusal:
        world.launch(bad, selection=Selection(device_ids=(first.name,)))

    assert [error.code for error in refusal.value.errors] == ["quarantined"]


def test_another_image_is_offered_all_the_same(world: World, images, settings) -> None:
    settings.QUARANTINE_AFTER = 1
    old, bad = images
    (device,) = world.fleet(1, old)
    launch(world, bad)
    fail_once(world, device, "self_test_failed")

    world.launch(world.image("3.0.0"))

    assert [each.name for each in world.update_offered()] == [device.name]


def test_released_it_may_have_the_image_again(
    world: World, images, settings, viewer: PersonCaller, operator: PersonCaller
) -> None:
    settings.QUARANTINE_AFTER = 1
    old, bad = images
    (device,) = world.fleet(1, old)
    launch(world, bad)
    fail_once(world, device, "self_test_failed")
    route = f"/devices/{device.name}/quarantines/{bad.pk}/release"

    listed = viewer.get(f"/quarantines?deviceId={device.name}").json()["results"]
    refused = operator.post(route, {})
    released = operator.post(route, {"reason": "new battery"})
    again = operator.post(route, {"reason": "new battery"})

    assert [(row["version"], row["failures"]) for row in listed] == [("2.0.0", 1)]
    problem_of(refused, 400)
    assert released.status_code == 200
    assert released.json()["quarantinedAt"] is None
    problem_of(again, 404, "not_quarantined")
    assert AuditEvent.objects.filter(verb="device.quarantine-released").count() == 1
    world.launch(bad, health_threshold=1, rollback_thresholds=TOLERANT)
    assert device.poll() is not None


def test_nothing_is_shut_out_where_that_is_switched_off(
    world: World, images, settings
) -> None:
    settings.QUARANTINE_AFTER = 0
    old, bad = images
    (device,) = world.fleet(1, old)
    launch(world, bad)
    fail_once(world, device, "self_test_failed")

    assert not Quarantine.objects.exists()
    with pytest.raises(NotQuarantinedError):
        release_quarantine(
            actor=world.admin,
            device_id=device.name,
            firmware_id=bad.pk,
            reason="nothing",
        )


def test_a_device_that_leaves_the_image_after_completion_counts(
    world: World, images
) -> None:
    old, bad = images
    other = world.image("1.5.0")
    (device,) = world.fleet(1, old)
    deployment = launch(world, bad)
    world.update_offered()
    world.tick(3700)

    for image in (old, other, old, bad):
        device.reboot_into(image)
        device.beat()
    counted = Quarantine.objects.get()
    assert (counted.failures, counted.quarantined_at) == (1, None)
    device.reboot_into(old)
    device.beat()
    device.beat()

    kept = Quarantine.objects.active().get()
    assert (kept.failures, kept.last_code) == (2, "fell_back")
    assert events(deployment).count("device.quarantined") == 1
    with pytest.raises(IneligibleDevicesError):
        world.launch(bad, selection=Selection(device_ids=(device.name,)))
