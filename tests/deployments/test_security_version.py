"""A security version that rises: the warning before, and what cannot go back after."""

import pytest

from deployments.models import Update
from deployments.services.operate import rollback_deployment
from deployments.services.preview import preview_deployment
from deployments.services.requests import DeploymentRequest, Selection
from devices.models import Device
from firmware.models import Firmware
from tests.api import Caller
from tests.deployments.test_api import launch_body
from tests.deployments.world import ScriptedDevice, World, statuses

BAD = {"application_metrics": {"errorRate": 0.5}}


@pytest.fixture
def old(world: World) -> Firmware:
    return world.image("2.5.0", security_version=1)


@pytest.fixture
def risen(world: World) -> Firmware:
    return world.image("2.6.0", security_version=2)


@pytest.fixture
def device(world: World, old: Firmware) -> ScriptedDevice:
    (device,) = world.fleet(1, old)
    Device.objects.update(security_version=1)
    return device


def test_a_claim_raises_what_the_device_refuses_below(
    world: World, device: ScriptedDevice, risen: Firmware
) -> None:
    world.launch(risen)
    device.poll()
    device.work()
    assert device.device.security_version == 1

    device.report("confirming")

    assert device.device.security_version == 2


def test_a_device_that_has_claimed_is_not_ordered_to_what_it_must_refuse(
    world: World, device: ScriptedDevice, risen: Firmware
) -> None:
    deployment = world.launch(risen)
    device.poll()
    device.go_through()

    device.beat(**BAD)
    world.tick(1)
    world.tick(1)

    target = device.target(deployment)
    assert target.status == "failed"
    assert "lower security version" in target.message
    assert device.poll() is None
    assert not Update.objects.filter(kind="rollback").exists()
    deployment.refresh_from_db()
    assert deployment.status == "Failed"
    assert "1 of them may not go back" in deployment.failure_reason


def test_a_rollback_by_hand_says_which_devices_may_not_go_back(
    world: World, device: ScriptedDevice, risen: Firmware
) -> None:
    deployment = world.launch(risen)
    world.update_offered()

    rollback_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="no", now=world.now
    )
    world.tick(1)

    target = device.target(deployment)
    assert (target.status, target.error_code) == ("failed", "rollback_forbidden")
    deployment.refresh_from_db()
    assert deployment.status == "Failed"


def test_a_device_that_has_not_claimed_is_ordered_back_as_ever(
    world: World, device: ScriptedDevice, risen: Firmware
) -> None:
    deployment = world.launch(risen)
    device.poll()
    device.work()
    rollback_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="no", now=world.now
    )

    assert statuses(deployment) == {"rolling_back": 1}
    order = device.poll()
    assert order is not None
    assert order["action"] == "rollback"


def test_a_return_that_the_device_refuses_is_not_ordered_again(
    world: World, device: ScriptedDevice, risen: Firmware
) -> None:
    deployment = world.launch(risen)
    device.poll()
    device.work()
    rollback_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="no", now=world.now
    )
    device.poll()

    device.report("failed", error_code="security_version_too_low")
    for _ in range(3):
        world.tick(1)

    target = device.target(deployment)
    assert (target.status, target.error_code) == ("failed", "rollback_forbidden")
    assert target.rollback_attempt == 1
    assert device.poll() is None


def test_a_return_that_became_impossible_before_its_order_ends(
    world: World, device: ScriptedDevice, risen: Firmware
) -> None:
    deployment = world.launch(risen)
    device.poll()
    device.work()
    rollback_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="no", now=world.now
    )
    Device.objects.update(security_version=2)

    assert device.poll() is None

    target = device.target(deployment)
    assert (target.status, target.error_code) == ("failed", "rollback_forbidden")


def test_an_equal_security_version_goes_back_as_ever(
    world: World, old: Firmware, device: ScriptedDevice
) -> None:
    deployment = world.launch(world.image("2.5.1", security_version=1))
    device.poll()
    device.go_through()
    device.beat(**BAD)
    world.tick(1)

    assert statuses(deployment) == {"rolling_back": 1}


def test_a_preview_warns_of_a_security_version_that_rises(
    world: World, device: ScriptedDevice, risen: Firmware
) -> None:
    world.fleet(2, device.runs, prefix="high")
    Device.objects.filter(device_id="high-001").update(security_version=2)

    preview = preview_deployment(
        request=DeploymentRequest(
            firmware_id=risen.pk,
            strategy="Direct",
            selection=Selection(everyone=True),
            parameters={},
        ),
        now=world.now,
    )

    assert [(w.code, w.count) for w in preview.warnings] == [
        ("security_version_raised", 2),
        ("whole_fleet", 3),
    ]


def test_a_preview_warns_of_devices_that_no_rollback_could_send_home(
    world: World, device: ScriptedDevice
) -> None:
    lost, silent = world.fleet(2, device.runs, prefix="lost")
    Device.objects.filter(device_id=lost.name).update(firmware_checksum="0" * 64)
    Device.objects.filter(device_id=silent.name).update(firmware_checksum="")

    preview = preview_deployment(
        request=DeploymentRequest(
            firmware_id=world.image("2.5.1", security_version=1).pk,
            strategy="Direct",
            selection=Selection(everyone=True),
            parameters={},
        ),
        now=world.now,
    )

    counts = {warning.code: warning.count for warning in preview.warnings}
    assert counts["no_previous_image"] == 2


def test_the_warning_is_in_the_answer_of_the_preview(
    world: World, device: ScriptedDevice, risen: Firmware, operator: Caller
) -> None:
    answer = operator.post("/deployments/preview", launch_body(risen)).json()
    calm = operator.post(
        "/deployments/preview",
        launch_body(world.image("2.5.1", security_version=1)),
    ).json()

    assert answer["warnings"][0]["code"] == "security_version_raised"
    assert answer["warnings"][0]["count"] == 1
    assert calm["warnings"] == []
