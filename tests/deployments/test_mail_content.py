"""What people are told: firmware that waits, what failed, one mail for many."""

import json
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from django.core import mail

from deployments.models import Delivery, Deployment, MailRecipient, Notification, Target
from deployments.notifications import outbox
from deployments.notifications.channels.mail import MAIL_GATHERING
from deployments.notifications.sending import send_mail
from deployments.notifications.texts import SHORT_LENGTH, short_of
from deployments.rules.events import NEEDS_A_PERSON
from deployments.services.operate import pause_deployment, resume_deployment
from deployments.services.receivers import create_receiver
from devices.services.erasure import erase_device
from firmware.services.approval import (
    approve_firmware,
    deprecate_firmware,
    reject_firmware,
)
from tests.callers import PersonCaller
from tests.deployments.receivers import Receiver, hook, launch, send
from tests.deployments.world import World
from tests.words import says


@pytest.fixture(autouse=True)
def surroundings(settings: Any) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = [ip_network("127.0.0.0/8")]
    settings.PUBLIC_URL = "https://updates.example.com"


def mail_to(world: World, *events: str, address: str = "ops@example.com") -> Any:
    return create_receiver(
        kind=MailRecipient, actor=world.admin, address=address, events=events
    )


def send_gathered(world: World) -> None:
    world.now += MAIL_GATHERING
    send(world)


def send_now(world: World) -> None:
    """Send what was written by the clock of the wall."""
    newest = Delivery.objects.order_by("-next_attempt_at").first()
    assert newest is not None
    assert newest.next_attempt_at is not None
    world.now = newest.next_attempt_at
    send(world)


# --- Firmware ----------------------------------------------------------------------


def test_approvers_are_mailed_of_firmware_that_waits(world: World) -> None:
    mail_to(world, "firmware.uploaded")

    firmware = world.image(
        "2.0.0",
        approved=False,
        release_notes="Fixes the valve.",
        request_comment="please hurry",
    )
    send_now(world)

    (message,) = mail.outbox
    assert message.subject == "[HotSwap] Firmware waits for approval: sensor-v1 2.0.0"
    assert f"uploaded by {world.admin.username} and waits for approval" in message.body
    assert "please hurry" in message.body
    assert "Fixes the valve." in message.body
    assert (
        "https://updates.example.com/admin/firmware/firmware/"
        f"{firmware.pk}/change/" in message.body
    )


def test_decisions_on_firmware_are_told(world: World, receiver: Receiver) -> None:
    hook(world, receiver.url)
    actor = world.admin
    good, bad = (world.image(f"{n}.0.0", approved=False) for n in (1, 2))

    approve_firmware(actor=actor, firmware_id=good.pk, comment="tested")
    reject_firmware(actor=actor, firmware_id=bad.pk, comment="it leaks")
    deprecate_firmware(actor=actor, firmware_id=good.pk, reason="old")
    send_now(world)

    assert receiver.types == [
        "firmware.uploaded",
        "firmware.uploaded",
        "firmware.approved",
        "firmware.rejected",
        "firmware.deprecated",
    ]
    told = [json.loads(body)["data"] for _, body in receiver.got]
    assert [each["by"] for each in told] == [actor.username] * 5
    assert told[2]["firmware"]["status"] == "Approved"
    assert told[3]["message"] == (
        f"sensor-v1 2.0.0 was rejected by {actor.username}: it leaks"
    )
    assert told[4]["firmware"]["id"] == str(good.pk)


def test_known_bytes_are_told_once(world: World) -> None:
    mail_to(world, "firmware.uploaded")

    for _ in range(2):
        world.image("1.0.0", approved=False)

    assert Notification.objects.count() == 1


# --- Devices and reasons -----------------------------------------------------------


def first_of(deployment: Deployment) -> str:
    """Return the device that is named first; their order is another each time."""
    names = Target.objects.filter(deployment=deployment).order_by("rank")
    return str(names.values_list("device__device_id", flat=True)[0])


def failing(world: World, count: int) -> Deployment:
    """Launch to devices of which all fail, all but the first for the same reason."""
    old, new = world.image("1.0.0"), world.image("2.0.0")
    devices = world.fleet(count, old)
    deployment = world.launch(new, max_attempts=1)
    other = first_of(deployment)
    for device in devices:
        device.poll()
        code = "unknown_key" if device.name == other else "self_test_failed"
        device.report("failed", error_code=code)
    world.tick(1)
    deployment.refresh_from_db()
    return deployment


def test_a_mail_names_the_devices_that_failed_and_why(world: World) -> None:
    mail_to(world, "rollback.started", "deployment.failed", "deployment.rolled_back")

    deployment = failing(world, 12)
    send_gathered(world)

    assert deployment.status in ("RollingBack", "RolledBack", "Failed")
    body = str(mail.outbox[0].body)
    assert "Failed: 12 devices, 11 × self_test_failed, 1 × unknown_key" in body
    assert f"{first_of(deployment)}: unknown_key" in body
    assert "and 2 more" in body
    assert (
        "https://updates.example.com/admin/deployments/deployment/"
        f"{deployment.pk}/change/" in body
    )


def test_a_short_message_names_them_too(world: World, settings: Any) -> None:
    settings.PUBLIC_URL = ""
    mail_to(world, "rollback.started")

    failing(world, 5)

    payload = Notification.objects.get(type="rollback.started").payload
    sentence, details = short_of(payload).split("\n")
    assert sentence == payload["data"]["message"]
    assert details.startswith("4 × self_test_failed, 1 × unknown_key: ")
    assert details.endswith(" and 2 more")
    assert len(details) <= SHORT_LENGTH


def test_an_erased_device_is_erased_from_the_failures(world: World) -> None:
    mail_to(world, "rollback.started")
    failing(world, 3)

    erase_device(actor=world.admin, device_id="d-001")
    send_gathered(world)

    assert "d-000" in str(mail.outbox[0].body)
    assert not says(str(mail.outbox[0].body), "d-001")


def test_where_nothing_failed_nothing_is_said_of_failures(world: World) -> None:
    mail_to(world, "deployment.paused")
    deployment = launch(world)
    pause_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="lunch", now=world.now
    )

    assert "failures" not in Notification.objects.get().payload["data"]


# --- One mail for many events ------------------------------------------------------


def test_events_of_one_deployment_that_come_together_are_one_mail(
    world: World,
) -> None:
    mail_to(world, "deployment.created", "deployment.started", "stage.opened")
    deployment = launch(world)
    send(world)
    at_once = len(mail.outbox)

    send_gathered(world)

    assert at_once == 0
    (message,) = mail.outbox
    assert message.subject == (
        f"[HotSwap] Stage opened (and 2 more): {deployment.name}"
    )
    told = [
        line.split(" ", 1)[1].split(":")[0]
        for line in str(message.body).splitlines()[:3]
    ]
    assert told == ["deployment.created", "deployment.started", "stage.opened"]
    assert str(message.body).count("Deployment: ") == 1
    assert set(Delivery.objects.values_list("status", flat=True)) == {"delivered"}


def test_what_comes_later_is_another_mail(world: World) -> None:
    mail_to(world, "stage.opened", "deployment.paused")
    deployment = launch(world)
    send_gathered(world)

    pause_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="lunch", now=world.now
    )
    send_gathered(world)

    assert [each.subject.split(":")[0] for each in mail.outbox] == [
        "[HotSwap] Stage opened",
        "[HotSwap] Deployment paused",
    ]


def test_each_recipient_gets_what_it_asked_for(world: World) -> None:
    mail_to(world, "stage.opened", "deployment.created")
    mail_to(world, "deployment.created", address="boss@example.com")
    launch(world)

    send_gathered(world)

    subjects = {each.to[0]: each.subject.split(":")[0] for each in mail.outbox}
    assert subjects == {
        "ops@example.com": "[HotSwap] Stage opened (and 1 more)",
        "boss@example.com": "[HotSwap] Deployment created",
    }


def test_webhooks_are_told_of_each_event_at_once(
    world: World, receiver: Receiver
) -> None:
    hook(world, receiver.url, "deployment.created", "deployment.started")
    launch(world)

    send(world)

    assert receiver.types == ["deployment.created", "deployment.started"]


def test_a_mail_that_fails_is_tried_again_as_a_whole(
    world: World, settings: Any
) -> None:
    mail_to(world, "deployment.created", "deployment.started")
    launch(world)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9
    send_gathered(world)
    failed = set(Delivery.objects.values_list("status", "attempts"))

    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    world.now += timedelta(seconds=5)
    send(world)

    assert failed == {("pending", 1)}
    (message,) = mail.outbox
    assert "(and 1 more)" in message.subject
    assert set(Delivery.objects.values_list("status", "attempts")) == {("delivered", 2)}


def test_a_sender_that_died_leaves_the_whole_mail_to_the_next(world: World) -> None:
    mail_to(world, "deployment.created", "deployment.started")
    launch(world)
    world.now += MAIL_GATHERING
    (job,) = outbox._claim(now=world.now, busy=set())

    send(world)
    early = len(mail.outbox)
    world.now += outbox.DELIVERY_LEASE
    send(world)

    assert len(job.attempts) == 2
    assert early == 0
    assert len(mail.outbox) == 1
    assert set(Delivery.objects.values_list("status", flat=True)) == {"delivered"}


def test_a_pause_and_its_end_are_told_as_it_stands_at_last(world: World) -> None:
    mail_to(world, "deployment.paused", "deployment.completed")
    deployment = launch(world)
    acting: dict[str, Any] = {
        "actor": world.admin,
        "deployment_id": deployment.pk,
        "reason": "lunch",
    }
    pause_deployment(**acting, now=world.now)
    resume_deployment(**acting, now=world.now)
    pause_deployment(**acting, now=world.now)

    send_gathered(world)

    (message,) = mail.outbox
    assert str(message.body).count("deployment.paused: lunch") == 2


# --- What a new recipient is told ---------------------------------------------------


def test_a_new_recipient_is_told_of_what_needs_a_person(admin: PersonCaller) -> None:
    made = admin.post("/mail-recipients", {"address": "ops@example.com"}).json()
    everything = admin.post(
        "/mail-recipients", {"address": "all@example.com", "events": []}
    ).json()

    assert made["events"] == sorted(NEEDS_A_PERSON)
    assert "firmware.uploaded" in made["events"]
    assert "stage.opened" not in made["events"]
    assert everything["events"] == []


def test_a_new_webhook_is_told_of_everything(
    admin: PersonCaller, receiver: Receiver
) -> None:
    made = admin.post("/webhooks", {"url": receiver.url}).json()

    assert made["events"] == []


def test_without_a_mail_server_a_mail_is_not_delivered(settings: Any) -> None:
    settings.EMAIL_BACKEND = "hotswap.common.no_mail.EmailBackend"

    outcome = send_mail(
        sender="a@example.org",
        address="b@example.org",
        subject="s",
        text="t",
        message_id="1",
    )

    assert "no mail server is configured: set HOTSWAP_EMAIL_URL" in outcome.error
