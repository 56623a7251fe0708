"""What becomes of devices by themselves is told, and is in the logs of deployments."""

import json
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest

from deployments.models import Deployment, Event, MailRecipient, Notification
from deployments.rules.events import NEEDS_A_PERSON
from deployments.services import fleet_news
from deployments.services.receivers import create_receiver
from devices.services.erasure import erase_device
from tests.deployments.receivers import Receiver, hook, send
from tests.deployments.test_documented_events import EXAMPLES, shape
from tests.deployments.world import ScriptedDevice, World
from tests.words import says

SILENCE = 750


@pytest.fixture(autouse=True)
def surroundings(settings: Any) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = [ip_network("127.0.0.0/8")]


def fall_silent(world: World) -> None:
    """Let all devices be silent for as long as they may, while the server is awake."""
    world.tick()
    for _ in range(0, SILENCE, 25):
        world.tick(25)


def lines(deployment: Deployment, event: str) -> list[tuple[str | None, str]]:
    found = Event.objects.filter(deployment=deployment, event=event).order_by("id")
    return list(found.values_list("device__device_id", "message"))


def test_devices_that_fall_silent_together_share_a_notification(
    world: World, receiver: Receiver
) -> None:
    hook(world, receiver.url, "device.offline", "device.online")
    first, *_ = world.fleet(3, world.image("1.0.0"))

    fall_silent(world)
    send(world)
    first.beat()
    world.tick(5)
    send(world)

    gone, back = [json.loads(body) for _, body in receiver.got]
    assert gone["type"] == "device.offline"
    assert gone["data"]["message"] == "3 devices are offline"
    assert gone["data"]["total"] == 3
    assert [each["id"] for each in gone["data"]["devices"]] == [
        *("d-000", "d-001", "d-002")
    ]
    assert back["type"] == "device.online"
    for said in (gone, back):
        assert shape(said) == shape(EXAMPLES[said["type"]])
    assert back["data"]["message"] == "d-000 is online again: it is heard again"


def test_at_most_a_hundred_are_named(
    world: World, monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    monkeypatch.setattr(fleet_news, "NAMED_DEVICES", 2)
    hook(world, receiver.url, "device.offline")
    world.fleet(3, world.image("1.0.0"))

    fall_silent(world)

    data = Notification.objects.get().payload["data"]
    assert (len(data["devices"]), data["total"]) == (2, 3)


def test_mail_is_not_sent_of_it_unless_it_is_asked_for(world: World) -> None:
    create_receiver(
        kind=MailRecipient,
        actor=world.admin,
        address="usual@example.com",
        events=NEEDS_A_PERSON,
    )
    create_receiver(
        kind=MailRecipient,
        actor=world.admin,
        address="some@example.com",
        events=["device.offline"],
    )
    world.fleet(1, world.image("1.0.0"))

    fall_silent(world)

    (delivery,) = Notification.objects.get(type="device.offline").deliveries.all()
    assert delivery.recipient is not None
    assert delivery.recipient.address == "some@example.com"


def test_a_target_of_an_open_deployment_is_mentioned_in_its_log(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(2, old)
    deployment = world.launch(new)
    world.fleet(1, old, prefix="stranger")

    fall_silent(world)

    assert [name for name, _ in lines(deployment, "device.offline")] == [
        *("d-000", "d-001")
    ]


def test_many_targets_share_a_line_that_forgets_who_is_erased(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_news, "LINES_A_DEPLOYMENT", 2)
    monkeypatch.setattr(fleet_news, "NAMED_IN_LOG", 2)
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(4, old)
    deployment = world.launch(new)

    fall_silent(world)

    said = "4 of its devices are offline: d-000, d-001 and 2 more"
    assert lines(deployment, "device.offline") == [(None, said)]
    erase_device(actor=world.admin, device_id="d-001")
    ((_, after),) = lines(deployment, "device.offline")
    assert not says(after, "d-001")


def test_a_deployment_that_is_over_hears_nothing_of_it(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(1, old)
    deployment = world.launch(new)
    world.update_offered()
    deployment.refresh_from_db()
    assert deployment.status == "Completed"

    fall_silent(world)

    assert lines(deployment, "device.offline") == []


def test_an_unhealthy_target_is_mentioned_with_its_reason(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)

    device.beat(application_metrics={"errorRate": 0.5})
    world.tick(5)
    device.beat()
    world.tick(5)

    assert lines(deployment, "device.unhealthy") == [
        ("d-000", "error rate 50.0 % is over 10 %")
    ]
    assert len(lines(deployment, "device.healthy")) == 1


def canary(world: World) -> tuple[Deployment, ScriptedDevice]:
    """Bring a device to an image one minute after its first heartbeat."""
    old, new = world.image("1.0.0"), world.image("2.0.0")
    (device,) = world.fleet(1, old)
    world.fleet(1, old, prefix="later")
    world.now += timedelta(minutes=1)
    deployment = world.launch(new)
    device.poll()
    device.go_through()
    return deployment, device


def test_an_anomaly_of_a_canary_is_told_once_with_its_doubt(
    world: World, receiver: Receiver
) -> None:
    hook(world, receiver.url, "device.anomaly")
    deployment, device = canary(world)

    for cpu in (90.0, 91.0):
        device.beat(cpu_usage=cpu)
        world.tick(5)
    send(world)

    said = "CPU 90.0 %, usually 5.0 % (low confidence, 1 report)"
    assert lines(deployment, "device.anomaly") == [("d-000", said)]
    ((_, body),) = receiver.got
    assert shape(json.loads(body)) == shape(EXAMPLES["device.anomaly"])
    deployment.refresh_from_db()
    assert deployment.status == "Running"
    assert device.target(deployment).status == "confirming"


def test_what_the_former_image_does_is_no_anomaly(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()

    device.beat(cpu_usage=90.0)
    world.tick(5)

    assert lines(deployment, "device.anomaly") == []


def test_the_next_order_may_have_an_anomaly_of_its_own(world: World) -> None:
    deployment, device = canary(world)
    device.beat(cpu_usage=90.0)
    world.tick(5)
    device.report("failed", error_code="install_failed")
    world.tick(15)
    device.poll()
    device.go_through()

    device.beat(cpu_usage=90.0)
    world.tick(5)

    assert len(lines(deployment, "device.anomaly")) == 2
