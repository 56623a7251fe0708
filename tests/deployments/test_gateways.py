"""Gateways pass on short messages by apprise; the library and the servers are real."""

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from django.core import mail

from deployments.models import Delivery, Gateway, MailRecipient, Notification
from deployments.notifications import outbox
from deployments.notifications.channels.gateway import GATEWAY
from deployments.notifications.channels.mail import MAIL_GATHERING
from deployments.notifications.gateway_process import HOSTED, SERVICES
from deployments.notifications.texts import SHORT_LENGTH, short_of
from deployments.services.receivers import (
    create_receiver,
    resend,
    send_test,
)
from hotswap.common.models import AuditEvent
from tests.api import pointers, problem_of
from tests.callers import PersonCaller
from tests.deployments.receivers import (
    WITHOUT_APPRISE,
    Receiver,
    hook,
    launch,
    send,
    serving,
)
from tests.deployments.test_receivers import now_sent
from tests.deployments.world import World
from tests.devices.agent.certificates import Authority
from tests.waiting import wait_until

TWILIO = f"twilio://AC{'a' * 32}:{'b' * 32}@15551112222/15553334444"


@pytest.fixture(autouse=True)
def loopback_allowed(settings: Any) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = [ip_network("127.0.0.0/8")]


@pytest.fixture
def slow() -> Iterator[Receiver]:
    """An endpoint that takes what it is sent and does not answer."""
    found = Receiver(hold=threading.Event())
    server = serving(found)
    yield found
    assert found.hold is not None
    found.hold.set()
    server.shutdown()
    server.server_close()


def place(receiver: Receiver) -> str:
    return receiver.url.replace("http://", "json://") + "/gate"


def gate(world: World, receiver: Receiver, *events: str) -> Gateway:
    return create_receiver(
        kind=Gateway, actor=world.admin, url=place(receiver), events=events
    )


def messages(receiver: Receiver) -> list[str]:
    return [json.loads(body)["message"] for _, body in receiver.got]


# --- What is told ---------------------------------


def test_an_event_arrives_in_a_title_and_a_sentence(
    world: World, receiver: Receiver, settings: Any
) -> None:
    settings.PUBLIC_URL = "https://updates.example.com"
    gate(world, receiver, "stage.opened")
    deployment = launch(world)

    send(world)

    ((_, body),) = receiver.got
    told = json.loads(body)
    assert told["title"] == f"[HotSwap] Stage opened: {deployment.name}"
    sentence, link = told["message"].split("\n")
    assert sentence == Notification.objects.get().payload["data"]["message"]
    assert link == (
        "https://updates.example.com/admin/deployments/deployment/"
        f"{deployment.pk}/change/"
    )
    assert Delivery.objects.get().status == "delivered"


def test_events_arrive_one_after_the_other(world: World, receiver: Receiver) -> None:
    gate(world, receiver)
    launch(world)

    send(world)

    titles = [json.loads(body)["title"] for _, body in receiver.got]
    assert [title.partition(":")[0] for title in titles] == [
        "[HotSwap] Deployment created",
        "[HotSwap] Deployment started",
        "[HotSwap] Stage opened",
    ]


def test_a_long_sentence_is_cut(settings: Any) -> None:
    settings.PUBLIC_URL = ""

    text = short_of({"data": {"message": "why\nnot " * 100}})

    assert len(text) == SHORT_LENGTH
    assert text.startswith("why not why")
    assert text.endswith("…")


def test_a_test_arrives_whatever_the_gateway_listens_for(
    admin: PersonCaller, world: World, receiver: Receiver
) -> None:
    gateway = gate(world, receiver, "deployment.failed")

    answer = admin.post(f"/gateways/{gateway.pk}/test")
    now_sent(world)

    assert (answer.status_code, answer.json()["type"]) == (202, "gateway.test")
    assert messages(receiver) == ["A test of this gateway: nothing happened."]


# --- What goes wrong on the way ---------------------------------


def test_a_refused_attempt_is_repeated_and_can_be_resent(
    admin: PersonCaller, world: World, receiver: Receiver, settings: Any
) -> None:
    settings.NOTIFICATION_RETRIES = [timedelta(seconds=5)]
    receiver.answers = [500, 503]
    gateway = gate(world, receiver, "stage.opened")
    launch(world)

    send(world)
    row = Delivery.objects.get()
    first = (row.status, row.response_status, row.error)
    world.now += timedelta(seconds=5)
    send(world)
    row.refresh_from_db()
    given_up = (row.status, row.attempts, row.response_status)
    resend(actor=world.admin, kind=Gateway, receiver_id=gateway.pk, delivery_id=row.pk)
    now_sent(world)

    assert first == ("pending", 500, "the service answered 500")
    assert given_up == ("failed", 2, 503)
    (shown,) = admin.get(f"/gateways/{gateway.pk}/deliveries").json()["results"]
    assert (shown["status"], shown["attempts"], shown["error"]) == ("delivered", 3, "")
    assert len(receiver.got) == 3


def test_a_service_that_cannot_be_reached_is_tried_again(world: World) -> None:
    create_receiver(
        kind=Gateway,
        actor=world.admin,
        url="json://127.0.0.1:1/gate",
        events=["stage.opened"],
    )
    launch(world)

    send(world)

    row = Delivery.objects.get()
    assert (row.status, row.attempts) == ("pending", 1)
    assert "could not be reached" in row.error


def test_a_gateway_that_is_gone_is_told_nothing_more(
    world: World, receiver: Receiver
) -> None:
    receiver.answers = [410]
    gateway = gate(world, receiver)
    launch(world)

    send(world)

    gateway.refresh_from_db()
    assert (gateway.enabled, len(receiver.got)) == (False, 1)
    assert gateway.disabled_reason == "the endpoint answered 410 Gone"
    assert AuditEvent.objects.filter(verb="gateway.disabled").count() == 1


def test_who_never_answers_is_killed(
    world: World, slow: Receiver, settings: Any
) -> None:
    gate(world, slow, "stage.opened")
    launch(world)
    # Its process starts within this time, too.
    settings.GATEWAY_SECONDS = 10.0

    send(world)

    row = Delivery.objects.get()
    assert len(slow.got) == 1
    assert (row.status, row.error) == ("pending", "no answer in time")


def test_a_gateway_that_hangs_delays_no_other(
    world: World, receiver: Receiver, slow: Receiver, settings: Any
) -> None:
    other = Receiver()
    server = serving(other)
    gate(world, slow)
    gate(world, other)
    hook(world, receiver.url)
    create_receiver(kind=MailRecipient, actor=world.admin, address="ops@example.com")
    launch(world)
    world.now += MAIL_GATHERING
    # It answers once all others have heard everything.
    heard: list[bool] = []
    watcher = threading.Thread(
        target=_release_when_heard, args=(slow, [receiver, other], heard)
    )
    watcher.start()
    settings.GATEWAY_SECONDS = 50.0

    # A turn has an end; on a busy machine some messages are of the next one.
    while watcher.is_alive():
        send(world)
    server.shutdown()
    server.server_close()
    assert heard == [True]
    assert len(slow.got) >= 1


def _release_when_heard(
    slow: Receiver, others: list[Receiver], heard: list[bool]
) -> None:
    assert slow.hold is not None
    try:
        wait_until(
            lambda: (
                [len(each.got) for each in others] == [3, 3] and len(mail.outbox) == 1
            ),
            what="everybody but the one that hangs",
        )
        heard.append(len(slow.got) == 1)
    finally:
        slow.hold.set()


def test_who_is_killed_after_sending_is_followed_by_another_attempt(
    world: World, receiver: Receiver
) -> None:
    gate(world, receiver, "stage.opened")
    launch(world)
    (job,) = outbox._claim(now=world.now, busy=set())
    job.send()

    world.now += outbox.DELIVERY_LEASE
    send(world)

    assert len(receiver.got) == 2
    assert Delivery.objects.get().status == "delivered"


@pytest.mark.parametrize("is_trusted", [True, False])
def test_certificates_are_checked(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_trusted: bool
) -> None:
    authority = Authority(tmp_path)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    secure = Receiver()
    server = serving(secure, tls=authority.server_context(*authority.issue("server")))
    url = place(secure).replace("json://", "jsons://")
    create_receiver(kind=Gateway, actor=world.admin, url=url, events=["stage.opened"])
    launch(world)

    send(world)

    server.shutdown()
    server.server_close()
    assert Delivery.objects.get().status == ("delivered" if is_trusted else "pending")
    assert len(secure.got) == is_trusted


# --- Where nothing may be sent ---------------------------------


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "syslog://localhost", "dbus://", "gnome://", "glib://"),
        *("windows://", "macosx://", "rsyslog://127.0.0.1", "mailto://a:b@127.0.0.1"),
        *("http://127.0.0.1/", "https://hooks.slack.com/services/T1/B1/abc"),
        *("nonsense", "json:/127.0.0.1", "json://", "twilio://", "JSONS://10.0.0.1/"),
        *("json://8.8.8.8/", "jsons://10.0.0.1/", "jsons://[::1]/", "json://[::1]/"),
        *(
            "jsons://169.254.169.254/",
            "jsons://[::ffff:8.8.8.8]/",
            "gotifys://10.0.0.1/t",
        ),
        *("jsons://no-such-host.invalid/", "jsons://[64:ff9b::8.8.8.8]/"),
        *("jsons://8.8.8.8/?verify=no", "jsons://8.8.8.8/?redirect=yes"),
        *("jsons://8.8.8.8/?Template=/etc/passwd", f"{TWILIO}?verify=no"),
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/?template=/etc/passwd",
    ],
)
def test_such_a_url_is_refused_and_the_field_named(
    admin: PersonCaller, url: str
) -> None:
    answer = admin.post("/gateways", {"url": url})

    assert pointers(problem_of(answer, 400)) == {"/url": "gateway_refused"}
    assert not Gateway.objects.exists()


@pytest.mark.parametrize(
    "url",
    [
        TWILIO,
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general",
        "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js",
        "tgram://123456789:abcdefg_hijklmnop/12315544/",
        f"sns://AHIAJGNT76XIMXDBIJYA/{'k' * 40}/us-east-2/12223334444",
        "jsons://8.8.8.8/hook",
        "gotifys://8.8.8.8/token",
        "ntfys://8.8.8.8/topic",
    ],
)
def test_a_known_service_or_a_permitted_host_is_accepted(
    admin: PersonCaller, url: str
) -> None:
    answer = admin.post("/gateways", {"url": url})

    assert answer.status_code == 201
    assert answer.json()["scheme"] == url.partition("://")[0]


def test_loopback_is_refused_unless_it_is_allowed(
    admin: PersonCaller, receiver: Receiver, settings: Any
) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = []

    answer = admin.post("/gateways", {"url": place(receiver)})

    problem = problem_of(answer, 400, "gateway_refused")
    assert pointers(problem) == {"/url": "gateway_refused"}
    assert "127.0.0.1, which is not public" in problem["detail"]


def test_an_address_that_turned_private_is_refused_at_sending(
    world: World, receiver: Receiver, settings: Any
) -> None:
    gate(world, receiver, "stage.opened")
    launch(world)
    settings.WEBHOOK_ALLOWED_NETWORKS = []

    send(world)

    assert receiver.got == []
    row = Delivery.objects.get()
    assert row.status == "pending"
    assert "not public" in row.error


def test_a_redirect_is_not_followed(world: World, receiver: Receiver) -> None:
    receiver.answers = [302]
    gate(world, receiver, "stage.opened")
    launch(world)

    send(world)

    assert receiver.paths == ["/gate"]
    assert Delivery.objects.get().error == "the service answered 302"


def test_every_scheme_is_one_that_apprise_has() -> None:
    known = _printed(
        "import apprise\n"
        "found = apprise.Apprise().details()['schemas']\n"
        "print(*(name for each in found for key in ('protocols', 'secure_protocols')\n"
        "        for name in each[key] or ()))"
    ).split()

    assert set(known) >= SERVICES | set(HOSTED)


# --- What the process may do ---------------------------------

GUARDED = """
import os, socket, subprocess, sys
from deployments.notifications.gateway_process import Guard
sys.addaudithook(Guard([], plain=False).hook)
try:
    {attempt}
except PermissionError as error:
    print("refused")
except OSError as error:
    print(type(error).__name__)
else:
    print("done")
"""


def _printed(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.create_connection(('127.0.0.1', {port}))",
        "socket.create_connection(('localhost', {port}))",
        "socket.create_connection(('0.0.0.0', {port}))",
        "socket.create_connection(('2130706433', {port}))",
        "socket.socket(socket.AF_INET6).connect(('::ffff:127.0.0.1', {port}))",
        "socket.socket().connect_ex(('127.0.0.1', {port}))",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
        "socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, ('10.0.0.1', 9))",
        "socket.socket(socket.AF_UNIX).connect('/run/nobody')",
        "socket.socket().bind(('127.0.0.1', 0))",
        "open('/etc/passwd')",
        "open(os.__file__ + '/../../../../../../../../etc/passwd')",
        "os.open('/etc/passwd', os.O_RDONLY)",
        "open('/tmp/hotswap-written', 'w')",
        "open(os.__file__, 'a')",
        "subprocess.run(['true'])",
        "os.system('true')",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.remove('/tmp/hotswap-nothing')",
    ],
)
def test_the_process_that_sends_is_refused_this(
    receiver: Receiver, attempt: str
) -> None:
    port = receiver.url.rpartition(":")[2]

    printed = _printed(GUARDED.format(attempt=attempt.replace("{port}", port)))

    assert printed == "refused"
    assert receiver.got == []


def test_the_process_that_sends_may_read_its_libraries() -> None:
    assert _printed(GUARDED.format(attempt="open(os.__file__)")) == "done"


def test_a_secret_stands_in_no_list_of_processes(world: World, slow: Receiver) -> None:
    gate(world, slow, "stage.opened")
    launch(world)
    seen: list[str] = []

    def look() -> None:
        assert slow.hold is not None
        try:
            wait_until(lambda: bool(slow.got), what="the message")
            seen.extend(map(_of_gateway_processes, ("cmdline", "environ")))
        finally:
            slow.hold.set()

    watcher = threading.Thread(target=look)
    watcher.start()
    send(world)
    watcher.join()

    assert "gateway_process" in seen[0]
    assert "/gate" not in seen[0].replace("gateway", "")
    assert "SECRET" not in seen[1]
    assert "HOTSWAP" not in seen[1]


def _of_gateway_processes(place: str) -> str:
    found = ""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"gateway_process" in (process / "cmdline").read_bytes():
                found += (process / place).read_text()
        except OSError:
            continue
    return found


# --- Secrets ---------------------------------


def test_the_secrets_of_a_url_are_never_shown_again(
    admin: PersonCaller,
    world: World,
    receiver: Receiver,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    settings.NOTIFICATION_RETRIES = []
    host = receiver.url.removeprefix("http://")
    url = f"json://s3cret-user:s3cret-word@{host}/s3cret-path?+x=s3cret-header"
    receiver.answers = [500]

    made = admin.post("/gateways", {"url": url, "description": "pager"})
    path = f"/gateways/{made.json()['id']}"
    admin.post(f"{path}/test")
    now_sent(world)
    changed = admin.patch(path, {"url": f"{url}2"})
    settings.WEBHOOK_ALLOWED_NETWORKS = []
    refused = admin.post("/gateways", {"url": url})
    malformed = admin.post("/gateways", {"url": f"{url}&verify=no"})
    told = [
        *(made, changed, refused, malformed, admin.get(path), admin.get("/gateways")),
        *(admin.get(f"{path}/deliveries"), admin.get("/audit-events")),
    ]

    gateway = Gateway.objects.get()
    assert changed.json()["scheme"] == "json"
    assert (gateway.url, str(gateway)) == (f"{url}2", "json://… (pager)")
    assert b"s3cret" not in bytes(gateway.sealed_url)
    assert [b"s3cret" in answer.content for answer in told] == [False] * len(told)
    rows = [
        *AuditEvent.objects.values_list("details", flat=True),
        *Delivery.objects.values_list("error", flat=True),
        *Notification.objects.values_list("payload", flat=True),
    ]
    assert "s3cret" not in json.dumps(rows)
    assert "s3cret" not in caplog.text
    assert b"s3cret-header" in json.dumps(receiver.got[0][0]).encode()


# --- API ---------------------------------


def test_a_gateway_is_read_changed_and_deleted(
    admin: PersonCaller, world: World, receiver: Receiver
) -> None:
    gateway = gate(world, receiver)
    path = f"/gateways/{gateway.pk}"
    before = admin.get(path)

    same = admin.patch(path, {"url": place(receiver), "enabled": True})
    changed = admin.patch(
        path,
        {"events": ["stage.opened"], "description": "pager", "url": TWILIO},
        headers={"If-Match": before["ETag"]},
    )
    stale = admin.patch(path, {"enabled": False}, headers={"If-Match": before["ETag"]})
    wrong = admin.patch(path, {"url": "jsons://10.0.0.1/"})
    gone = admin.delete(path)

    assert same["ETag"] == before["ETag"]
    body = changed.json()
    assert (body["scheme"], body["events"]) == ("twilio", ["stage.opened"])
    problem_of(stale, 412)
    assert pointers(problem_of(wrong, 400)) == {"/url": "gateway_refused"}
    (event,) = AuditEvent.objects.filter(verb="gateway.changed")
    told = event.details.pop("changes")
    assert told["sealedUrl"] == {"withheld": []}
    assert event.details == {
        "fields": ["description", "events", "url"],
        "events": ["stage.opened"],
    }
    assert gone.status_code == 204
    problem_of(admin.get(path), 404, "gateway_not_found")


def test_who_is_disabled_is_told_nothing_and_not_tested(
    admin: PersonCaller, world: World, receiver: Receiver
) -> None:
    gateway = gate(world, receiver)
    launch(world)

    admin.patch(f"/gateways/{gateway.pk}", {"enabled": False})
    send(world)

    assert receiver.got == []
    assert set(Delivery.objects.values_list("status", "error")) == {
        ("failed", "disabled by a person")
    }
    problem_of(admin.post(f"/gateways/{gateway.pk}/test"), 409, "gateway_disabled")


def test_there_is_a_limit_to_gateways(admin: PersonCaller, receiver: Receiver) -> None:
    for _ in range(GATEWAY.maximum):
        assert admin.post("/gateways", {"url": place(receiver)}).status_code == 201

    refused = admin.post("/gateways", {"url": place(receiver)})

    problem_of(refused, 409, "too_many_receivers")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/url"),
        ({"url": 5}, "/url"),
        ({"url": "json://" + "x" * 2000}, "/url"),
        ({"url": TWILIO, "events": ["nothing"]}, "/events/0"),
        ({"url": TWILIO, "scheme": "sms"}, "/scheme"),
    ],
)
def test_a_wrong_gateway_names_the_field(
    admin: PersonCaller, body: Any, pointer: str
) -> None:
    assert pointer in pointers(problem_of(admin.post("/gateways", body), 400))


# --- Without the library ---------------------------------


def test_without_apprise_there_are_no_new_gateways(
    admin: PersonCaller, settings: Any
) -> None:
    settings.GATEWAY_COMMAND = [sys.executable, "-I", "-c", WITHOUT_APPRISE]

    answer = admin.post("/gateways", {"url": TWILIO})

    problem = problem_of(answer, 409, "apprise_not_installed")
    assert "pip install 'hotswap[gateway]'" in problem["detail"]


def test_what_waits_is_tried_again_until_apprise_is_back(
    world: World, receiver: Receiver, settings: Any
) -> None:
    gateway = gate(world, receiver)
    complete = settings.GATEWAY_COMMAND
    settings.GATEWAY_COMMAND = [sys.executable, "-I", "-c", WITHOUT_APPRISE]
    send_test(actor=world.admin, kind=Gateway, receiver_id=gateway.pk)

    now_sent(world)
    row = Delivery.objects.get()
    without = (row.status, row.attempts, row.error)
    settings.GATEWAY_COMMAND = complete
    now_sent(world)

    assert without[:2] == ("pending", 1)
    assert "apprise is not installed" in without[2]
    row.refresh_from_db()
    assert (row.status, row.attempts) == ("delivered", 2)
