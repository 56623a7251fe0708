"""Administrators are told of devices that are quarantined or fall back."""

import json
from ipaddress import ip_network
from typing import Any

import pytest

from deployments.models import Delivery, Deployment, Notification
from deployments.notifications import enqueue
from deployments.notifications.enqueue import GATHERING
from devices.services.erasure import erase_device
from firmware.models import Firmware
from tests.deployments.receivers import Receiver, hook, send
from tests.deployments.world import ScriptedDevice, World
from tests.words import says


@pytest.fixture(autouse=True)
def surroundings(settings: Any) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = [ip_network("127.0.0.0/8")]
    settings.QUARANTINE_AFTER = 1


def failing(world: World, count: int) -> tuple[Deployment, list[ScriptedDevice]]:
    """Have devices work on an image that does not run."""
    old, new = world.image("1.0.0"), world.image("2.0.0")
    devices = world.fleet(count, old)
    deployment = world.launch(new)
    for device in devices:
        device.poll()
        device.work()
    return deployment, devices


def give_up(*devices: ScriptedDevice) -> None:
    for device in devices:
        device.report("failed", error_code="self_test_failed")


def completed(world: World, count: int) -> tuple[Deployment, Firmware]:
    """Complete a deployment; return it with the former image."""
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(count, old)
    deployment = world.launch(new)
    world.update_offered()
    world.live_on(30)
    deployment.refresh_from_db()
    assert deployment.status == "Completed"
    return deployment, old


def told(receiver: Receiver) -> list[dict[str, Any]]:
    return [json.loads(body) for _, body in receiver.got]


def test_a_quarantined_device_is_told_with_its_name_and_failures(
    world: World, receiver: Receiver
) -> None:
    hook(world, receiver.url, "device.quarantined")
    deployment, devices = failing(world, 1)

    give_up(*devices)
    world.now += GATHERING
    send(world)

    (said,) = told(receiver)
    data = said["data"]
    assert said["type"] == "device.quarantined"
    assert data["deployment"]["id"] == str(deployment.pk)
    assert data["deployment"]["firmware"]["version"] == "2.0.0"
    assert data["total"] == 1
    assert data["devices"] == [
        {"id": "d-000", "failures": 1, "errorCode": "self_test_failed"}
    ]
    assert "d-000" in data["message"]


def test_devices_that_are_quarantined_together_share_a_notification(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enqueue, "NAMED_DEVICES", 3)
    hook(world, receiver.url, "device.quarantined")
    _, devices = failing(world, 5)

    give_up(*devices)
    world.now += GATHERING
    send(world)

    (said,) = told(receiver)
    assert said["data"]["total"] == 5
    assert [each["id"] for each in said["data"]["devices"]] == [
        "d-000",
        "d-001",
        "d-002",
    ]
    assert "5 devices" in said["data"]["message"]


def test_one_statement_quarantines_and_tells_many(
    world: World, receiver: Receiver
) -> None:
    hook(world, receiver.url, "device.quarantined")
    _, devices = failing(world, 4)

    # They never come back from their reboot: the sweep finds all of them at once.
    for _ in range(7):
        world.tick(10)

    assert Notification.objects.count() == 1
    world.now += GATHERING
    send(world)
    (said,) = told(receiver)
    assert said["data"]["total"] == len(devices)
    assert {each["errorCode"] for each in said["data"]["devices"]} == {"offline"}


def test_what_was_sent_takes_no_more_devices(world: World, receiver: Receiver) -> None:
    hook(world, receiver.url, "device.quarantined")
    _, (first, second) = failing(world, 2)
    give_up(first)
    Delivery.objects.update(next_attempt_at=world.now)
    send(world)

    give_up(second)
    world.now += GATHERING
    send(world)

    assert [said["data"]["total"] for said in told(receiver)] == [1, 1]


def test_a_device_that_leaves_a_completed_deployment_is_told(
    world: World, receiver: Receiver
) -> None:
    hook(world, receiver.url, "device.fell_back")
    deployment, old = completed(world, 2)
    world.tick(3700)
    for device in world.devices.values():
        device.reboot_into(old)
        device.beat()

    world.now += GATHERING
    send(world)

    (said,) = told(receiver)
    assert said["type"] == "device.fell_back"
    assert said["data"]["deployment"]["status"] == "Completed"
    assert said["data"]["total"] == 2
    assert said["data"]["devices"][0] == {
        "id": "d-000",
        "errorCode": "fell_back",
        "firmwareVersion": "1.0.0",
    }
    assert said["data"]["deployment"]["id"] == str(deployment.pk)


def test_an_erased_device_is_erased_from_the_list_of_devices(
    world: World, receiver: Receiver
) -> None:
    hook(world, receiver.url, "device.quarantined")
    _, devices = failing(world, 2)
    give_up(*devices)

    erase_device(actor=world.admin, device_id="d-000")
    world.now += GATHERING
    send(world)

    (said,) = told(receiver)
    assert not says(json.dumps(said), "d-000")
    assert said["data"]["total"] == 2
    assert {each["id"] for each in said["data"]["devices"]} == {"[erased]", "d-001"}


def test_a_quarantine_that_nobody_listens_for_writes_nothing(world: World) -> None:
    _, devices = failing(world, 1)

    give_up(*devices)

    assert not Notification.objects.exists()
