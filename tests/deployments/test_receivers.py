"""Who is told can be changed, tested and told again."""

import json
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from django.core import mail

from deployments.models import Delivery, MailRecipient, Webhook
from deployments.notifications import outbox
from deployments.notifications.channels.mail import MAIL_GATHERING
from deployments.services.receivers import (
    create_receiver,
    resend,
    rotate_secret,
    send_test,
)
from hotswap.common.models import AuditEvent
from tests.api import pointers, problem_of
from tests.callers import PersonCaller
from tests.deployments.receivers import Receiver, hook, launch, send, verified
from tests.deployments.world import World


@pytest.fixture(autouse=True)
def loopback_allowed(settings: Any) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = [ip_network("127.0.0.0/8")]


def now_sent(world: World) -> None:
    """Send what a service has just made due, by its own clock."""
    due = Delivery.objects.order_by("next_attempt_at").last()
    assert due is not None
    assert due.next_attempt_at is not None
    world.now = due.next_attempt_at
    send(world)


def test_a_webhook_is_read_and_changed(
    admin: PersonCaller, world: World, receiver: Receiver
) -> None:
    webhook, _ = hook(world, receiver.url)
    path = f"/webhooks/{webhook.pk}"
    before = admin.get(path)

    changed = admin.patch(
        path,
        {
            "url": f"{receiver.url}/other",
            "events": ["stage.opened", "deployment.failed"],
            "description": "pager",
        },
        headers={"If-Match": before["ETag"]},
    )
    stale = admin.patch(
        path, {"description": "late"}, headers={"If-Match": before["ETag"]}
    )

    assert before.json()["events"] == []
    body = changed.json()
    assert body["url"] == f"{receiver.url}/other"
    assert body["events"] == ["deployment.failed", "stage.opened"]
    assert body["description"] == "pager"
    assert changed["ETag"] == admin.get(path)["ETag"] != before["ETag"]
    problem_of(stale, 412)
    (event,) = AuditEvent.objects.filter(verb="webhook.changed")
    # The path of a URL may be a secret: the trail says that it changed, not to what.
    assert event.details["fields"] == ["description", "events", "url"]
    assert receiver.url not in json.dumps(event.details)


def test_a_change_to_what_it_is_changes_nothing(
    admin: PersonCaller, world: World, receiver: Receiver
) -> None:
    webhook, _ = hook(world, receiver.url)
    before = admin.get(f"/webhooks/{webhook.pk}")["ETag"]

    admin.patch(f"/webhooks/{webhook.pk}", {"enabled": True, "events": []})

    assert admin.get(f"/webhooks/{webhook.pk}")["ETag"] == before
    assert not AuditEvent.objects.filter(verb="webhook.changed").exists()


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"url": "https://10.0.0.1/"}, "/url"),
        ({"url": None}, "/url"),
        ({"enabled": "yes"}, "/enabled"),
        ({"events": "all"}, "/events"),
        ({"events": ["webhook.test"]}, "/events/0"),
        ({"description": "x" * 201}, "/description"),
        ({"secret": "mine"}, "/secret"),
    ],
)
def test_a_wrong_change_names_the_field_and_changes_nothing(
    admin: PersonCaller, world: World, receiver: Receiver, body: Any, pointer: str
) -> None:
    webhook, _ = hook(world, receiver.url)

    answer = admin.patch(f"/webhooks/{webhook.pk}", {"description": "new"} | body)

    assert pointer in pointers(problem_of(answer, 400))
    assert admin.get(f"/webhooks/{webhook.pk}").json()["description"] == ""


def test_who_is_disabled_is_told_nothing_and_then_again(
    admin: PersonCaller, world: World, receiver: Receiver
) -> None:
    receiver.answers = [410]
    webhook, _ = hook(world, receiver.url, "stage.opened")
    launch(world)
    send(world)
    gone = admin.get(f"/webhooks/{webhook.pk}").json()

    again = admin.patch(f"/webhooks/{webhook.pk}", {"enabled": True}).json()
    row = Delivery.objects.get()
    resend(actor=world.admin, kind=Webhook, receiver_id=webhook.pk, delivery_id=row.pk)
    now_sent(world)

    assert (gone["enabled"], gone["disabledReason"]) == (
        False,
        "the endpoint answered 410 Gone",
    )
    assert (again["enabled"], again["disabledReason"]) == (True, "")
    row.refresh_from_db()
    assert row.status == "delivered"


def test_disabling_ends_what_waits(
    admin: PersonCaller, world: World, receiver: Receiver
) -> None:
    webhook, _ = hook(world, receiver.url)
    launch(world)

    admin.patch(f"/webhooks/{webhook.pk}", {"enabled": False})
    send(world)

    assert receiver.got == []
    assert set(Delivery.objects.values_list("status", "error")) == {
        ("failed", "disabled by a person")
    }


def test_both_secrets_sign_until_the_former_ends(
    world: World, receiver: Receiver, settings: Any
) -> None:
    webhook, former = hook(world, receiver.url, "stage.opened")
    changed, secret = rotate_secret(actor=world.admin, webhook_id=webhook.pk)
    assert changed.previous_secret_until is not None

    launch(world)
    send(world)
    world.now = changed.previous_secret_until
    outbox.forget_former_secrets(world.now - timedelta(seconds=1), 10)
    send_test(actor=world.admin, kind=Webhook, receiver_id=webhook.pk)
    send(world)

    (during, first), (after, second) = receiver.got
    assert verified(during, first, secret)
    assert verified(during, first, former)
    assert verified(after, second, secret)
    assert not verified(after, second, former)


def test_a_former_secret_is_forgotten(world: World, receiver: Receiver) -> None:
    webhook, _ = hook(world, receiver.url)
    changed, _ = rotate_secret(actor=world.admin, webhook_id=webhook.pk)
    assert changed.previous_secret_until is not None

    outbox.forget_former_secrets(changed.previous_secret_until, 10)

    webhook.refresh_from_db()
    assert webhook.previous_sealed_secret is None


def test_a_new_secret_is_shown_once(
    admin: PersonCaller, world: World, receiver: Receiver
) -> None:
    webhook, former = hook(world, receiver.url)

    answer = admin.post(f"/webhooks/{webhook.pk}/rotate-secret")

    assert answer["Cache-Control"] == "no-store"
    assert answer.json()["secret"].startswith("whsec_")
    assert answer.json()["secret"] != former
    assert answer.json()["previousSecretUntil"] is not None
    assert "secret" not in admin.get(f"/webhooks/{webhook.pk}").json()


def test_a_test_arrives_signed_whatever_the_webhook_listens_for(
    admin: PersonCaller, world: World, receiver: Receiver
) -> None:
    webhook, secret = hook(world, receiver.url, "deployment.failed")

    answer = admin.post(f"/webhooks/{webhook.pk}/test")
    now_sent(world)

    assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    ((headers, body),) = receiver.got
    assert verified(headers, body, secret)
    assert json.loads(body)["type"] == "webhook.test"


def test_a_test_goes_to_one_alone(
    admin: PersonCaller, world: World, receiver: Receiver
) -> None:
    hook(world, receiver.url)
    recipient = create_receiver(
        kind=MailRecipient, actor=world.admin, address="ops@example.com"
    )

    admin.post(f"/mail-recipients/{recipient.pk}/test")
    now_sent(world)

    assert receiver.got == []
    assert mail.outbox[0].subject == "[HotSwap] Test"


def test_a_disabled_one_is_not_tested(
    admin: PersonCaller, world: World, receiver: Receiver
) -> None:
    webhook, _ = hook(world, receiver.url)
    recipient = create_receiver(
        kind=MailRecipient, actor=world.admin, address="ops@example.com"
    )
    admin.patch(f"/webhooks/{webhook.pk}", {"enabled": False})
    admin.patch(f"/mail-recipients/{recipient.pk}", {"enabled": False})

    hooked = admin.post(f"/webhooks/{webhook.pk}/test")
    mailed = admin.post(f"/mail-recipients/{recipient.pk}/test")

    problem_of(hooked, 409, "webhook_disabled")
    problem_of(mailed, 409, "mail_recipient_disabled")


def test_a_mail_recipient_is_changed_and_told_again(
    admin: PersonCaller, world: World
) -> None:
    recipient = create_receiver(
        kind=MailRecipient,
        actor=world.admin,
        address="ops@example.com",
        events=["stage.opened"],
    )
    path = f"/mail-recipients/{recipient.pk}"
    launch(world)
    world.now += MAIL_GATHERING
    send(world)
    (row,) = admin.get(f"{path}/deliveries").json()["results"]

    changed = admin.patch(path, {"events": ["deployment.failed"], "description": "Ops"})
    again = admin.post(f"{path}/deliveries/{row['id']}/resend")
    now_sent(world)

    assert changed.json()["description"] == "Ops"
    assert again.json()["status"] == "pending"
    assert [each.to for each in mail.outbox] == [["ops@example.com"]] * 2
    problem_of(admin.patch(path, {"address": "x@example.com"}), 400)


def test_a_disabled_mail_recipient_gets_no_mail(
    admin: PersonCaller, world: World
) -> None:
    recipient = create_receiver(
        kind=MailRecipient, actor=world.admin, address="ops@example.com"
    )
    admin.patch(f"/mail-recipients/{recipient.pk}", {"enabled": False})

    launch(world)
    world.now += MAIL_GATHERING
    send(world)

    assert mail.outbox == []
    assert not MailRecipient.objects.get().enabled


def test_a_delivery_belongs_to_its_own_receiver(
    admin: PersonCaller, world: World, receiver: Receiver
) -> None:
    webhook, _ = hook(world, receiver.url, "stage.opened")
    other, _ = hook(world, receiver.url, "deployment.failed")
    launch(world)
    row = Delivery.objects.get(webhook=webhook)

    answer = admin.post(f"/webhooks/{other.pk}/deliveries/{row.pk}/resend")

    problem_of(answer, 404, "delivery_not_found")
