"""What became of each device that went back, alone or with its deployment."""

from datetime import timedelta
from typing import Any

import pytest

from deployments.models import Deployment, Rollback, Target, Update
from deployments.reads.rollback_report import deployment_rollbacks, with_outcomes
from deployments.rules.codes import next_step
from deployments.services.operate import retry_failed, rollback_deployment
from devices.models import Device
from devices.services.erasure import erase_device
from firmware.models import Firmware
from hotswap.common.wire import to_wire
from tests.deployments.test_rollback import TOLERANT
from tests.deployments.world import ScriptedDevice, World

BAD = {"application_metrics": {"errorRate": 0.5}}


@pytest.fixture
def images(world: World) -> tuple[Firmware, Firmware]:
    return world.image("1.0.0"), world.image("1.1.0")


def rollbacks(deployment: Deployment, world: World) -> list[dict[str, Any]]:
    deployment.refresh_from_db()
    return to_wire(deployment_rollbacks(deployment, world.now))["results"]


def launch_open(world: World, firmware: Firmware, **changes: Any) -> Deployment:
    """Launch to half of the fleet first, and stay open for an hour after."""
    parameters = {
        "initial_percentage": 50,
        "increments": [100],
        "wait_duration": 3600.0,
    }
    return world.launch(
        firmware,
        "Canary",
        parameters=parameters,
        rollback_thresholds=TOLERANT,
        **changes,
    )


def roll_back(deployment: Deployment, world: World) -> None:
    rollback_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="no", now=world.now
    )


def return_offered(world: World) -> None:
    """Let everyone who is ordered back go back, and the deployment notice."""
    world.update_offered()
    world.tick()


def outcomes(row: dict[str, Any]) -> dict[str, str]:
    return {
        each["deviceId"]: each["outcome"] for each in row["deviceOutcomes"]["devices"]
    }


def breach_and_return(device: ScriptedDevice, world: World) -> None:
    """Fail after the update, be ordered back alone, and prove the former image."""
    device.beat(**BAD)
    world.tick(5)
    device.poll()
    device.go_through()
    world.live_on(15)


def test_a_device_without_a_former_image_is_a_failed_return(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    lost, other = world.fleet(2, images[0])
    lost.beat(firmware_version="0.9.0", firmware_checksum="f" * 64)
    deployment = world.launch(images[1])
    world.update_offered()
    roll_back(deployment, world)
    return_offered(world)

    (row,) = rollbacks(deployment, world)

    assert deployment.status == "Failed"
    assert row["outcome"] == "failed"
    assert (row["devices"], row["restored"], row["failed"]) == (2, 1, 1)
    assert outcomes(row) == {lost.name: "failed", other.name: "restored"}
    first = row["deviceOutcomes"]["devices"][0]
    assert first["errorCode"] == "no_previous_image"
    assert first["nextStep"] == next_step("no_previous_image")


def test_a_device_that_may_not_go_back_is_a_failed_return(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    world.fleet(1, images[0])
    deployment = world.launch(images[1])
    world.update_offered()
    Device.objects.update(security_version=7)
    roll_back(deployment, world)
    world.tick()

    (row,) = rollbacks(deployment, world)

    assert (row["devices"], row["failed"], row["outcome"]) == (1, 1, "failed")
    (device,) = row["deviceOutcomes"]["devices"]
    assert device["errorCode"] == "rollback_forbidden"


def test_a_device_that_never_left_its_former_image_is_not_a_return(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    stays, goes = world.fleet(2, images[0])
    deployment = world.launch(images[1], max_attempts=1, rollback_thresholds=TOLERANT)
    for device in (stays, goes):
        device.poll()
    stays.report("downloading")
    stays.report("failed", error_code="download_failed", message="no route")
    goes.go_through()
    world.live_on(15)
    roll_back(deployment, world)
    return_offered(world)

    (row,) = rollbacks(deployment, world)

    assert (row["devices"], row["restored"], row["failed"]) == (1, 1, 0)
    assert row["neverLeft"] == 1
    assert outcomes(row) == {stays.name: "never left", goes.name: "restored"}


def test_the_median_and_the_last_time_to_restore_are_measured(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    fleet = world.fleet(3, images[0])
    deployment = world.launch(images[1])
    world.update_offered()
    roll_back(deployment, world)
    for device in fleet:
        device.poll()
        device.go_through()
        world.live_on(20)
    world.tick()

    (row,) = rollbacks(deployment, world)

    times = sorted(
        each["timeToRestoreSeconds"] for each in row["deviceOutcomes"]["devices"]
    )
    assert row["medianToRestoreSeconds"] == times[1]
    assert row["timeToRestoreSeconds"] == times[2]
    assert times[0] < times[1] < times[2]


def test_the_devices_that_tripped_it_are_kept_without_their_names(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    bad, *others = world.fleet(3, images[0])
    deployment = world.launch(images[1])
    for device in (bad, *others):
        device.poll()
        device.go_through()
    bad.beat(**BAD)
    world.tick()

    (row,) = rollbacks(deployment, world)
    erase_device(actor=world.admin, device_id=bad.name, now=world.now)
    (after,) = rollbacks(deployment, world)

    assert row["atThatMoment"]["failedDevices"] == {
        "total": 1,
        "devices": [{"deviceId": bad.name, "errorCode": "error_rate"}],
    }
    assert after["atThatMoment"]["failedDevices"] == {"total": 1, "devices": []}


def test_erasure_takes_the_name_out_of_what_is_kept_of_a_rollback(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    (device,) = world.fleet(1, images[0])
    deployment = world.launch(images[1])
    world.update_offered()
    rollback_deployment(
        actor=world.admin,
        deployment_id=deployment.pk,
        reason=f"{device.name} smokes",
        now=world.now,
    )
    kept = Rollback.objects.get()
    kept.facts["reasons"] = [{"errorCode": f"{device.name}_smokes", "devices": 1}]
    kept.facts["failedDevices"] = [
        {"key": str(device.pk), "errorCode": f"{device.name}_smokes"}
    ]
    kept.save()

    erase_device(actor=world.admin, device_id=device.name, now=world.now)

    kept.refresh_from_db()
    assert device.name not in f"{kept.reason} {kept.facts}"
    assert kept.facts["reasons"] == [{"errorCode": "failed", "devices": 1}]


def test_a_device_sent_back_twice_is_two_rollbacks(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    world.fleet(4, images[0])
    deployment = launch_open(world, images[1])
    bad, _ = world.update_offered()
    breach_and_return(bad, world)
    between = world.now
    retry_failed(
        actor=world.admin, deployment_id=deployment.pk, reason="again", now=world.now
    )
    world.tick(5)
    bad.poll()
    bad.go_through()
    world.live_on(15)
    breach_and_return(bad, world)

    second, first = rollbacks(deployment, world)

    assert first["deviceId"] == second["deviceId"] == bad.name
    assert first["outcome"] == second["outcome"] == "restored"
    assert first["startedAt"] < first["restoredAt"] <= between
    assert between < second["startedAt"] < second["restoredAt"]
    assert first["timeToRestoreSeconds"] < 30
    assert second["timeToRestoreSeconds"] < 30


def test_a_return_alone_that_is_given_up_says_what_to_do(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    world.fleet(4, images[0])
    deployment = launch_open(world, images[1], max_attempts=1)
    bad, _ = world.update_offered()
    bad.beat(**BAD)
    world.tick(5)
    bad.poll()
    bad.report("failed", error_code="install_failed", message="worn out")
    world.tick(5)

    (row,) = rollbacks(deployment, world)

    assert (row["outcome"], row["failed"]) == ("failed", 1)
    assert row["reason"].startswith("error_rate: ")
    assert row["errorCode"] == "rollback_unconfirmed"
    assert row["nextStep"] == next_step("rollback_unconfirmed")


def test_a_device_that_went_back_before_is_not_counted_again(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    world.fleet(4, images[0])
    deployment = launch_open(world, images[1])
    bad, _ = world.update_offered()
    breach_and_return(bad, world)
    world.now += timedelta(seconds=5)
    roll_back(deployment, world)
    return_offered(world)

    whole, alone = rollbacks(deployment, world)

    assert (whole["devices"], whole["restored"], whole["restoredBefore"]) == (1, 1, 1)
    assert (alone["deviceId"], alone["outcome"]) == (bad.name, "restored")


@pytest.mark.parametrize("code", ["no_previous_image", "rollback_forbidden"])
def test_a_device_that_fails_alone_and_cannot_go_back_is_a_failed_return(
    world: World, images: tuple[Firmware, Firmware], code: str
) -> None:
    fleet = world.fleet(4, images[0])
    if code == "no_previous_image":
        for device in fleet:
            device.beat(firmware_version="0.9.0", firmware_checksum="f" * 64)
    deployment = launch_open(world, images[1])
    bad, _ = world.update_offered()
    if code == "rollback_forbidden":
        Device.objects.update(security_version=7)
    bad.beat(**BAD)
    world.tick(5)

    (row,) = rollbacks(deployment, world)

    assert (row["level"], row["deviceId"]) == ("device", bad.name)
    assert (row["outcome"], row["failed"], row["attempts"]) == ("failed", 1, 0)
    assert row["reason"].startswith("error_rate: ")
    assert row["errorCode"] == code
    assert row["nextStep"] == next_step(code)
    assert row["startedAt"] == world.now


def test_a_device_that_cannot_go_back_counts_with_its_deployment_only(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    world.fleet(4, images[0])
    deployment = launch_open(world, images[1])
    bad, good = world.update_offered()
    Device.objects.filter(pk=bad.pk).update(security_version=7)
    bad.beat(**BAD)
    world.tick(5)
    world.now += timedelta(seconds=5)
    roll_back(deployment, world)
    return_offered(world)

    (row,) = rollbacks(deployment, world)

    assert outcomes(row) == {bad.name: "failed", good.name: "restored"}


def test_every_exposed_device_is_accounted_for(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    stopped, skipped, good = world.fleet(3, images[0])
    deployment = world.launch(images[1])
    for device in (stopped, skipped, good):
        device.poll()
    good.go_through()
    world.live_on(15)
    # No service leaves such rows to a rollback today; the moves are allowed.
    targets = Target.objects.filter(deployment=deployment)
    Update.objects.filter(device__in=[stopped.pk, skipped.pk]).update(
        status="cancelled", closed_at=world.now
    )
    targets.filter(device=stopped.pk).update(status="cancelled", settled_at=world.now)
    targets.filter(device=skipped.pk).update(status="pending")
    targets.filter(device=skipped.pk).update(status="skipped", settled_at=world.now)
    roll_back(deployment, world)

    (begun,) = rollbacks(deployment, world)
    world.tick()
    (ordered,) = rollbacks(deployment, world)

    for row in (begun, ordered):
        assert outcomes(row) == {
            good.name: "under way",
            skipped.name: "never changed",
            stopped.name: "never changed",
        }
        assert (row["devices"], row["neverChanged"]) == (1, 2)
        assert row["deviceOutcomes"]["total"] == 3


def test_each_target_has_its_outcome_in_the_rollback(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    world.fleet(4, images[0])
    deployment = launch_open(world, images[1])
    bad, good = world.update_offered()
    Device.objects.filter(pk=bad.pk).update(security_version=7)
    targets = Target.objects.filter(deployment=deployment)
    before = {target.outcome for target in with_outcomes(deployment, targets)}
    roll_back(deployment, world)
    return_offered(world)
    deployment.refresh_from_db()

    found = {
        target.device.device_id: target.outcome
        for target in with_outcomes(deployment, targets)
    }

    assert before == {""}
    assert found.pop(bad.name) == "failed"
    assert found.pop(good.name) == "restored"
    assert set(found.values()) == {""}
