"""Administrators are told of events: by webhook and mail, at least once."""

import json
import threading
from datetime import timedelta
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from django.core import mail
from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from deployments.models import Delivery, MailRecipient, Notification, Webhook
from deployments.notifications import outbox
from deployments.notifications.addresses import (
    TargetRefusedError,
    is_public,
    resolve,
)
from deployments.notifications.channels.mail import MAIL_GATHERING
from deployments.notifications.channels.webhook import WEBHOOK
from deployments.services.operate import pause_deployment
from deployments.services.receivers import create_receiver, resend
from devices.services.erasure import erase_device
from hotswap.common.leases import take_lease
from hotswap.common.models import AuditEvent
from hotswap.retention import enforce_policies
from tests.api import pointers, problem_of
from tests.callers import PersonCaller
from tests.deployments.receivers import (
    Receiver,
    hook,
    launch,
    send,
    serving,
    verified,
)
from tests.deployments.world import World
from tests.waiting import wait_until
from tests.words import says

LAUNCHED = ("deployment.created", "deployment.started", "stage.opened")


@pytest.fixture(autouse=True)
def loopback_allowed(settings: Any) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = [ip_network("127.0.0.0/8")]


# --- What is told ---------------------------------


def test_events_of_a_launch_arrive_in_order_and_signed(
    world: World, receiver: Receiver
) -> None:
    _, secret = hook(world, receiver.url, *LAUNCHED)

    deployment = launch(world)
    send(world)

    assert receiver.types == list(LAUNCHED)
    headers, body = receiver.got[2]
    assert verified(headers, body, secret)
    assert not verified(headers, body + b" ", secret)
    assert headers["webhook-timestamp"] == str(int(world.now.timestamp()))
    payload = json.loads(body)
    assert payload["timestamp"] == "2026-03-02T12:00:00Z"
    assert (payload["data"]["stage"]["number"], payload["data"]["stage"]["size"]) == (
        1,
        1,
    )
    assert payload["data"]["deployment"]["id"] == str(deployment.pk)
    assert payload["data"]["deployment"]["firmware"]["version"] == "2.0.0"
    assert not Delivery.objects.exclude(status="delivered").exists()


def test_a_webhook_is_called_in_the_trace_of_its_task(
    world: World, receiver: Receiver
) -> None:
    hook(world, receiver.url)
    launch(world)
    context = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1))

    HTTPXClientInstrumentor().instrument()
    try:
        with trace.use_span(NonRecordingSpan(context)):
            send(world)
    finally:
        HTTPXClientInstrumentor().uninstrument()

    called = {headers["traceparent"][:36] for headers, _ in receiver.got}
    assert called == {f"00-{1:032x}-"}


def test_a_receiver_hears_of_the_events_it_asked_for(
    world: World, receiver: Receiver
) -> None:
    hook(world, receiver.url, "deployment.paused")
    deployment = launch(world)

    pause_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="lunch", now=world.now
    )
    send(world)

    assert receiver.types == ["deployment.paused"]
    data = json.loads(receiver.got[0][1])["data"]
    assert (data["reason"], data["message"]) == ("operator", "lunch")


def test_nobody_to_tell_writes_nothing(world: World) -> None:
    launch(world)

    assert not Notification.objects.exists()


def test_mail_goes_to_those_who_want_it(world: World) -> None:
    create_receiver(
        kind=MailRecipient,
        actor=world.admin,
        address="ops@example.com",
        events=["stage.opened"],
    )
    deployment = launch(world)

    world.now += MAIL_GATHERING
    send(world)

    (message,) = mail.outbox
    assert message.to == ["ops@example.com"]
    assert message.subject == f"[HotSwap] Stage opened: {deployment.name}"
    assert "Firmware: sensor-v1 2.0.0" in message.body


def test_an_erased_device_is_erased_from_what_waits(
    world: World, receiver: Receiver
) -> None:
    hook(world, receiver.url, "deployment.paused")
    deployment = launch(world)
    pause_deployment(
        actor=world.admin,
        deployment_id=deployment.pk,
        reason="because of\nd-000",
        now=world.now,
    )

    erase_device(actor=world.admin, device_id="d-000")
    send(world)

    assert not says(receiver.got[0][1].decode(), "d-000")


# --- What goes wrong on the way ---------------------------------


@pytest.mark.parametrize("status", [500, 302])
def test_a_refused_attempt_is_repeated_with_the_same_id(
    world: World, receiver: Receiver, status: int
) -> None:
    receiver.answers = [status]
    _, secret = hook(world, receiver.url, "stage.opened")
    launch(world)

    send(world)
    row = Delivery.objects.get()
    first = (row.status, row.attempts, row.response_status, row.error)
    send(world)
    early = len(receiver.got)
    world.now += timedelta(seconds=5)
    send(world)

    assert first == ("pending", 1, status, f"the endpoint answered {status}")
    assert early == 1
    assert receiver.paths == ["/hook", "/hook"]
    (before, body), (after, again) = receiver.got
    assert body == again
    assert before["webhook-id"] == after["webhook-id"]
    assert before["webhook-timestamp"] != after["webhook-timestamp"]
    assert verified(after, again, secret)
    row.refresh_from_db()
    assert (row.status, row.attempts, row.error) == ("delivered", 2, "")


def test_after_the_last_attempt_it_has_failed_and_can_be_resent(
    world: World, receiver: Receiver, settings: Any
) -> None:
    settings.NOTIFICATION_RETRIES = [timedelta(seconds=5)]
    receiver.answers = [500, 503]
    webhook, _ = hook(world, receiver.url, "stage.opened")
    launch(world)
    send(world)
    world.now += timedelta(seconds=5)
    send(world)
    row = Delivery.objects.get()
    given_up = (row.status, row.next_attempt_at, row.response_status)

    resent = resend(
        actor=world.admin, kind=Webhook, receiver_id=webhook.pk, delivery_id=row.pk
    )
    assert resent.next_attempt_at is not None
    world.now = resent.next_attempt_at
    send(world)

    assert given_up == ("failed", None, 503)
    row.refresh_from_db()
    assert (row.status, row.attempts) == ("delivered", 3)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1


def test_an_endpoint_that_is_gone_is_told_nothing_more(
    world: World, receiver: Receiver
) -> None:
    receiver.answers = [410]
    webhook, _ = hook(world, receiver.url)
    launch(world)

    send(world)

    webhook.refresh_from_db()
    assert not webhook.enabled
    assert len(receiver.got) == 1
    assert set(Delivery.objects.values_list("status", flat=True)) == {"failed"}
    assert AuditEvent.objects.filter(verb="webhook.disabled").count() == 1


def test_who_is_killed_after_sending_is_followed_by_another_attempt(
    world: World, receiver: Receiver
) -> None:
    hook(world, receiver.url, "stage.opened")
    launch(world)
    # The first sender leases and sends, and never gets to write down the answer.
    (job,) = outbox._claim(now=world.now, busy=set())
    job.send()

    send(world)
    before = len(receiver.got)
    world.now += outbox.DELIVERY_LEASE
    send(world)

    assert before == 1
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len(receiver.got) == 2
    assert Delivery.objects.get().status == "delivered"


def test_a_slow_and_a_dead_endpoint_delay_no_other(
    world: World, receiver: Receiver
) -> None:
    slow = Receiver(hold=threading.Event())
    server = serving(slow)
    hook(world, slow.url, *LAUNCHED)
    hook(world, "http://127.0.0.1:1", *LAUNCHED)
    hook(world, receiver.url, *LAUNCHED)
    launch(world)
    # The slow endpoint answers once the healthy one has heard everything.
    watcher = threading.Thread(target=_release_when_heard, args=(receiver, slow))
    watcher.start()

    send(world)

    watcher.join()
    server.shutdown()
    server.server_close()
    assert len(receiver.got) == 3
    assert slow.hold is not None
    assert slow.hold.is_set()
    dead = Delivery.objects.filter(webhook__url__startswith="http://127.0.0.1:1/")
    assert set(dead.values_list("status", flat=True)) == {"pending"}
    assert "ConnectError" in dead.first().error  # type: ignore[union-attr]


def _release_when_heard(receiver: Receiver, slow: Receiver) -> None:
    assert slow.hold is not None
    try:
        wait_until(lambda: len(receiver.got) == 3, what="the healthy endpoint")
    finally:
        slow.hold.set()


def test_only_one_sender_works_at_a_time(world: World, receiver: Receiver) -> None:
    hook(world, receiver.url, "stage.opened")
    launch(world)
    assert take_lease(outbox.LEASE_NAME, length=outbox.LEASE_LENGTH, now=world.now)

    send(world)
    while_busy = len(receiver.got)
    world.now += outbox.LEASE_LENGTH + timedelta(seconds=1)
    send(world)

    assert (while_busy, len(receiver.got)) == (0, 1)


def test_an_address_that_turned_private_is_refused_at_sending(
    world: World, receiver: Receiver, settings: Any
) -> None:
    hook(world, receiver.url, "stage.opened")
    launch(world)
    settings.WEBHOOK_ALLOWED_NETWORKS = []

    send(world)

    assert receiver.got == []
    assert "not public" in Delivery.objects.get().error


def test_old_notifications_are_forgotten(world: World, receiver: Receiver) -> None:
    hook(world, receiver.url, "stage.opened")
    launch(world)
    send(world)

    enforce_policies(now=world.now + timedelta(days=29), names=["notifications"])
    kept = Notification.objects.count()
    enforce_policies(now=world.now + timedelta(days=31), names=["notifications"])

    assert (kept, Notification.objects.count()) == (1, 0)


# --- Where nothing may be sent ---------------------------------


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *("100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "192.0.2.1"),
        *("::1", "::", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "ff0e::1"),
        *("::ffff:8.8.8.8", "::8.8.8.8", "64:ff9b::8.8.8.8", "64:ff9b:1::1"),
        *("2002:0808:0808::1", "2001:0:1::1", "2001:db8::1", "198.18.0.1"),
        *("2a00::5efe:10.0.0.1", "192.88.99.1"),
    ],
)
def test_no_such_address_is_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", ["8.8.8.8", "2606:4700::1111"])
def test_an_address_of_the_internet_is_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize(
    "url",
    [
        "http://8.8.8.8/",
        "ftp://8.8.8.8/",
        "https://",
        "https:///path",
        "https://xn--/",
        "https://xn--a/",
        "https://a.xn--zzzzzzzz-/",
        "https://user:pw@8.8.8.8/",
        "https://@8.8.8.8/",
        "https://8.8.8.8/#part",
        "https://8.8.8.8:99999/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://localhost/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://no-such-host.invalid/",
        "https://" + "a" * 300 + "/",
        "https://a..b/",
        "nonsense",
        "",
    ],
)
def test_such_a_url_is_refused(url: str) -> None:
    with pytest.raises(TargetRefusedError):
        resolve(url, allowed=[])


def test_a_public_address_is_pinned() -> None:
    target = resolve("https://8.8.8.8:8443/a?b=c", allowed=[])

    assert (target.addresses, target.port) == (("8.8.8.8",), 8443)


# --- API ---------------------------------


def test_the_secret_is_shown_once(admin: PersonCaller, receiver: Receiver) -> None:
    made = admin.post("/webhooks", {"url": receiver.url, "events": ["stage.opened"]})
    listed = admin.get("/webhooks").json()["results"]

    assert made.status_code == 201
    assert made["Cache-Control"] == "no-store"
    assert made.json()["secret"].startswith("whsec_")
    assert "secret" not in listed[0]
    assert listed[0]["events"] == ["stage.opened"]
    sealed = bytes(Webhook.objects.get().sealed_secret)
    assert made.json()["secret"].encode() not in sealed


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/url"),
        ({"url": "https://10.0.0.1/"}, "/url"),
        ({"url": 5}, "/url"),
        ({"url": "https://no-such-host.invalid/"}, "/url"),
        ({"url": "https://8.8.8.8/", "events": ["nothing"]}, "/events/0"),
        ({"url": "https://8.8.8.8/", "colour": "red"}, "/colour"),
    ],
)
def test_a_wrong_webhook_names_the_field(
    admin: PersonCaller, body: Any, pointer: str
) -> None:
    assert pointer in pointers(problem_of(admin.post("/webhooks", body), 400))


def test_deliveries_are_listed_and_resent(
    admin: PersonCaller, world: World, receiver: Receiver
) -> None:
    webhook, _ = hook(world, receiver.url, "stage.opened")
    launch(world)
    send(world)
    (row,) = admin.get(f"/webhooks/{webhook.pk}/deliveries").json()["results"]

    answer = admin.post(f"/webhooks/{webhook.pk}/deliveries/{row['id']}/resend")
    Webhook.objects.update(enabled=False)
    refused = admin.post(f"/webhooks/{webhook.pk}/deliveries/{row['id']}/resend")

    assert (row["status"], row["attempts"], row["responseStatus"]) == (
        "delivered",
        1,
        204,
    )
    assert answer.json()["status"] == "pending"
    problem_of(refused, 409, "webhook_disabled")


def test_a_deleted_webhook_leaves_nothing_to_send(
    admin: PersonCaller, world: World, receiver: Receiver
) -> None:
    webhook, _ = hook(world, receiver.url)
    launch(world)

    assert admin.delete(f"/webhooks/{webhook.pk}").status_code == 204
    send(world)

    assert receiver.got == []
    problem_of(admin.delete(f"/webhooks/{webhook.pk}"), 404, "webhook_not_found")


def test_mail_recipients_are_kept_over_the_api(admin: PersonCaller) -> None:
    made = admin.post("/mail-recipients", {"address": "ops@example.com"})
    again = admin.post("/mail-recipients", {"address": "ops@example.com"})
    wrong = admin.post("/mail-recipients", {"address": "ops\n@example.com"})
    log = admin.get(f"/mail-recipients/{made.json()['id']}/deliveries")
    gone = admin.delete(f"/mail-recipients/{made.json()['id']}")

    assert (made.status_code, gone.status_code) == (201, 204)
    problem_of(again, 409, "mail_recipient_known")
    assert "/address" in pointers(problem_of(wrong, 400))
    assert log.json()["results"] == []
    assert not MailRecipient.objects.exists()


def test_there_is_a_limit_to_webhooks(admin: PersonCaller, receiver: Receiver) -> None:
    for _ in range(WEBHOOK.maximum):
        assert admin.post("/webhooks", {"url": receiver.url}).status_code == 201

    refused = admin.post("/webhooks", {"url": receiver.url})

    problem_of(refused, 409, "too_many_receivers")
