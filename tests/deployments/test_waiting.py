"""Every device and every deployment that waits says why, and until when."""

from datetime import timedelta
from typing import Any

import pytest

from deployments.criteria import HealthCriteria
from deployments.models import Deployment
from deployments.reads.devices import target_rows
from deployments.reads.status import deployment_status
from deployments.reads.waiting import Waiting, deployment_waiting
from deployments.services.operate import pause_deployment, rollback_deployment
from deployments.services.requests import Selection
from firmware.models import Firmware
from tests.deployments.world import CRITERIA, THRESHOLDS, ScriptedDevice, World

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def waits(
    world: World, deployment: Deployment, device: ScriptedDevice
) -> tuple[Any, Any]:
    deployment.refresh_from_db()
    (row,) = target_rows(deployment, [device.target(deployment)], world.now)
    return row.waiting_for, row.waiting_until


@pytest.fixture
def old(world: World) -> Firmware:
    return world.image("1.0.0")


@pytest.fixture
def new(world: World, old: Firmware) -> Firmware:
    return world.image("2.0.0")


def test_an_online_device_is_to_poll_and_is_given_up_at_the_deadline(
    world: World, old: Firmware, new: Firmware
) -> None:
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)

    assert waits(world, deployment, device) == ("the device to poll", world.now + DAY)


def test_an_offline_device_says_so(world: World, old: Firmware, new: Firmware) -> None:
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    opened = world.now
    world.tick(3600)

    assert waits(world, deployment, device) == (
        "the device, which is offline",
        opened + DAY,
    )


def test_a_device_of_a_later_stage_waits_for_the_next_check(
    world: World, old: Firmware, new: Firmware
) -> None:
    fleet = world.fleet(10, old)
    deployment = world.launch(new, "Canary")
    world.update_offered()
    deployment.refresh_from_db()
    later = next(d for d in fleet if d.target(deployment).stage_number == 2)

    said, until = waits(world, deployment, later)

    assert said == "stage 2 (30 %) to open"
    assert until == deployment.next_check_at
    assert until is not None


def test_a_device_that_works_has_until_the_deadline_of_its_order(
    world: World, old: Firmware, new: Firmware
) -> None:
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.report("downloading")

    heard = f"{world.now:%H:%M:%S} UTC"
    assert waits(world, deployment, device) == (
        f"the device, which is downloading; last heard at {heard}",
        world.now + 5 * MINUTE,
    )


def test_a_device_that_went_offline_at_work_says_what_it_did_and_when(
    world: World, old: Firmware, new: Firmware
) -> None:
    (device,) = world.fleet(1, old)
    deployment = world.launch(new, parameters={"offline_deadline": 30 * 86_400.0})
    device.poll()
    device.report("downloading")
    heard = world.now
    deadline = waits(world, deployment, device)[1]

    world.now += 3 * MINUTE
    soon = waits(world, deployment, device)
    world.now += DAY
    late = waits(world, deployment, device)

    words = (
        "the device, which is offline: it was downloading when it was last heard, at"
    )
    assert soon == (f"{words} {heard:%H:%M:%S} UTC", deadline)
    assert late == (f"{words} {heard:%Y-%m-%d %H:%M:%S} UTC", deadline)


def test_a_claim_has_so_long_to_be_proved(
    world: World, old: Firmware, new: Firmware
) -> None:
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.go_through()

    shown, until = waits(world, deployment, device)
    device.runs = old
    device.beat()
    contradicted, sooner = waits(world, deployment, device)

    patience = CRITERIA.confirmation_duration + THRESHOLDS.offline_after
    assert shown == "proof: 1 of 2 healthy heartbeats over the confirmation window"
    # While it shows the image, a limit may run out before it is given up.
    assert until == world.now + patience + THRESHOLDS.limits.longest_duration
    assert contradicted == "proof: it claims the update and runs 1.0.0"
    assert sooner == world.now + patience


def test_another_attempt_says_when_and_after_what(
    world: World, old: Firmware, new: Firmware
) -> None:
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.report("failed", error_code="download_failed", message="no route")

    said, until = waits(world, deployment, device)

    assert "no route" in said
    assert until == world.now + timedelta(seconds=10)


def test_a_device_on_its_way_back_is_given_up_after_an_hour(
    world: World, old: Firmware, new: Firmware
) -> None:
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    world.update_offered()
    rollback_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="bad", now=world.now
    )

    assert waits(world, deployment, device) == (
        "to poll, and be ordered back",
        world.now + HOUR,
    )
    deployment.refresh_from_db()
    assert deployment_waiting(deployment) == Waiting(
        "1 device to prove the former image", world.now + HOUR
    )


def test_the_younger_of_two_deployments_waits_for_the_older_and_names_it(
    world: World, old: Firmware, new: Firmware
) -> None:
    (device,) = world.fleet(1, old)
    world.launch(new, name="the first")
    world.now += MINUTE
    second = world.launch(world.image("3.0.0"), name="the second")

    before = waits(world, second, device)
    device.poll()

    assert before == ("its update by the deployment 'the first'", None)
    assert waits(world, second, device) == before


def test_who_is_left_out_as_busy_is_told_for_whom(
    world: World, old: Firmware, new: Firmware
) -> None:
    device, _ = world.fleet(2, old)
    world.launch(new, name="the first", selection=Selection(device_ids=(device.name,)))
    device.poll()

    preview = world.preview(world.image("3.0.0"), busy_devices="exclude")

    (left_out,) = preview.audience.excluded
    assert (left_out.device_id, left_out.code) == (device.name, "busy")
    assert left_out.detail.endswith("by the deployment 'the first'")


def test_a_scheduled_deployment_waits_for_its_time(
    world: World, old: Firmware, new: Firmware
) -> None:
    world.fleet(1, old)
    at = world.now + HOUR
    deployment = world.launch(new, scheduled_at=at)

    status = deployment_status(deployment, world.now)

    assert status.waiting_for == "its time to start"
    assert status.waiting_until == at


def test_a_paused_deployment_says_why_and_its_devices_too(
    world: World, old: Firmware, new: Firmware
) -> None:
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    pause_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="lunch", now=world.now
    )

    said, until = waits(world, deployment, device)

    assert said == "the deployment, which is paused: lunch"
    assert until is None
    assert deployment_waiting(deployment) == Waiting("paused by an operator: lunch")


def test_what_is_over_waits_for_nothing(
    world: World, old: Firmware, new: Firmware
) -> None:
    (device,) = world.fleet(1, old)
    deployment = world.launch(
        new, health_criteria=HealthCriteria(CRITERIA.confirmation_duration)
    )
    world.update_offered()
    world.tick(1)

    said, until = waits(world, deployment, device)
    assert said is None
    assert until is None
    assert deployment_waiting(deployment) is None
