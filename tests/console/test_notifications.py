"""The console's pages of notifications."""

import re
import sys
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from django.utils import timezone

from deployments.models import Delivery, Gateway, MailRecipient, Webhook
from tests.console.conftest import ConsoleClient, Scene
from tests.deployments.receivers import WITHOUT_APPRISE

WEBHOOKS = "/admin/deployments/webhook/"
GATEWAYS = "/admin/deployments/gateway/"
MAILS = "/admin/deployments/mailrecipient/"


@pytest.fixture(autouse=True)
def loopback_allowed(settings: Any) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = [ip_network("127.0.0.0/8")]


def secret_in(content: bytes) -> str:
    found = re.search(rb"whsec_[A-Za-z0-9+/=]+", content)
    assert found is not None
    return found[0].decode()


def test_the_secret_of_a_new_webhook_is_shown_once(admin_client: ConsoleClient) -> None:
    answer = admin_client.post(
        f"{WEBHOOKS}add/",
        {"url": "http://127.0.0.1:9/hook", "events": ["stage.opened"]},
    )
    webhook = Webhook.objects.get()
    page = admin_client.get(f"{WEBHOOKS}{webhook.pk}/change/")

    assert secret_in(answer.content)
    assert "no-store" in answer["Cache-Control"]
    assert b"whsec_" not in page.content
    assert b"Stage opened" in page.content


def test_a_webhook_to_a_private_address_keeps_the_form(
    admin_client: ConsoleClient,
) -> None:
    answer = admin_client.post(f"{WEBHOOKS}add/", {"url": "https://10.0.0.1/hook"})

    assert answer.content.count(b"not public") == 1
    assert b"https://10.0.0.1/hook" in answer.content
    assert not Webhook.objects.exists()


def test_a_new_secret_replaces_the_former(
    admin_client: ConsoleClient, scene: Scene
) -> None:
    first = admin_client.post(f"{WEBHOOKS}{scene.webhook.pk}/rotate-secret/", {"x": ""})

    page = admin_client.get(f"{WEBHOOKS}{scene.webhook.pk}/change/")

    assert secret_in(first.content)
    assert b"Former secret" in page.content


def test_a_webhook_is_edited_disabled_and_enabled(
    admin_client: ConsoleClient, scene: Scene
) -> None:
    place = f"{WEBHOOKS}{scene.webhook.pk}/"
    admin_client.post(
        f"{place}edit/",
        {"url": scene.webhook.url, "events": ["stage.opened"], "description": "pager"},
    )
    admin_client.post(f"{place}disable/", {"x": ""})
    scene.webhook.refresh_from_db()
    edited = (scene.webhook.events, scene.webhook.description, scene.webhook.enabled)
    page = admin_client.get(f"{place}change/")

    admin_client.post(f"{place}enable/", {"x": ""})

    scene.webhook.refresh_from_db()
    assert edited == (["stage.opened"], "pager", False)
    assert b"disabled by a person" in page.content
    assert scene.webhook.enabled


def test_a_test_is_put_into_the_outbox(
    admin_client: ConsoleClient, scene: Scene
) -> None:
    admin_client.post(f"{MAILS}{scene.mail_recipient.pk}/test/", {"x": ""})

    row = Delivery.objects.get(recipient=scene.mail_recipient)
    assert row.notification.type == "mail-recipient.test"


def test_a_delivery_names_its_event_in_words(
    admin_client: ConsoleClient, scene: Scene
) -> None:
    name = scene.delivery.notification.type
    words = name.replace(".", " ").capitalize()
    listed = admin_client.get("/admin/deployments/delivery/")
    page = admin_client.get(f"/admin/deployments/delivery/{scene.delivery.pk}/change/")

    assert words in listed.content.decode()
    assert name not in listed.content.decode()
    assert page.context["heading"] == words
    # What was sent is shown as it was sent.
    assert name in page.content.decode()


def test_a_delivery_is_resent_from_its_page(
    admin_client: ConsoleClient, scene: Scene
) -> None:
    Delivery.objects.update(status="failed", next_attempt_at=None, error="no answer")
    page = admin_client.get(f"{WEBHOOKS}{scene.webhook.pk}/change/")

    admin_client.post(
        f"/admin/deployments/delivery/{scene.delivery.pk}/resend/", {"x": ""}
    )

    assert b"no answer" in page.content
    assert Delivery.objects.get().status == "pending"


def test_a_mail_recipient_is_added_once_and_deleted(
    admin_client: ConsoleClient,
) -> None:
    admin_client.post(f"{MAILS}add/", {"address": "ops@example.com"})
    again = admin_client.post(f"{MAILS}add/", {"address": "ops@example.com"})
    wrong = admin_client.post(f"{MAILS}add/", {"address": "nobody"})
    recipient = MailRecipient.objects.get()

    admin_client.post(f"{MAILS}{recipient.pk}/delete/", {"x": ""})

    assert b"told already" in again.content
    assert b"valid email" in wrong.content
    assert not MailRecipient.objects.exists()


def test_the_last_delivery_says_how_old_it_is(
    admin_client: ConsoleClient, scene: Scene
) -> None:
    Delivery.objects.update(created_at=timezone.now() - timedelta(hours=3))

    page = admin_client.get(WEBHOOKS).content.decode()

    assert ">3 h ago</time>" in page


def test_a_delivery_that_is_due_says_since_when(
    admin_client: ConsoleClient, scene: Scene
) -> None:
    place = f"/admin/deployments/delivery/{scene.delivery.pk}/change/"
    Delivery.objects.update(next_attempt_at=timezone.now() - timedelta(minutes=2))
    due = admin_client.get(place).content.decode()
    Delivery.objects.update(next_attempt_at=timezone.now() + timedelta(minutes=4))

    later = admin_client.get(place).content.decode()

    assert "none yet" in due
    assert re.search("due <time [^>]*>2 min ago", due)
    assert re.search("<dd><time [^>]*>in 3 min", later)


def test_empty_lists_say_what_would_fill_them(admin_client: ConsoleClient) -> None:
    assert b"There is no webhook." in admin_client.get(WEBHOOKS).content
    assert b"Nobody is told by mail." in admin_client.get(MAILS).content
    assert b"Nobody is told by SMS or chat." in admin_client.get(GATEWAYS).content


# --- Gateways ---------------------------------


def test_a_gateway_is_added_and_only_its_scheme_shown(
    admin_client: ConsoleClient,
) -> None:
    url = "json://127.0.0.1:9/s3cret"

    admin_client.post(f"{GATEWAYS}add/", {"url": url, "description": "pager"})
    gateway = Gateway.objects.get()
    admin_client.post(f"{GATEWAYS}{gateway.pk}/test/", {"x": ""})
    delivery = Delivery.objects.get()
    pages = [
        GATEWAYS,
        f"{GATEWAYS}{gateway.pk}/change/",
        f"{GATEWAYS}{gateway.pk}/edit/",
        f"/admin/deployments/delivery/{delivery.pk}/change/",
        "/admin/deployments/delivery/",
    ]

    shown = [admin_client.get(page).content.decode() for page in pages]

    assert gateway.url == url
    assert all("json://…" in page for page in shown)
    assert not any("s3cret" in page for page in shown)


def test_a_gateway_to_a_private_address_keeps_the_form(
    admin_client: ConsoleClient,
) -> None:
    answer = admin_client.post(f"{GATEWAYS}add/", {"url": "jsons://10.0.0.1/x"})

    assert answer.content.count(b"not public") == 1
    assert b"jsons://10.0.0.1/x" in answer.content
    assert not Gateway.objects.exists()


def test_a_gateway_keeps_its_url_unless_a_new_one_is_given(
    admin_client: ConsoleClient, scene: Scene
) -> None:
    place = f"{GATEWAYS}{scene.gateway.pk}/edit/"
    before = scene.gateway.url

    admin_client.post(place, {"url": "", "events": ["stage.opened"]})
    scene.gateway.refresh_from_db()
    kept = (scene.gateway.url, scene.gateway.events)
    admin_client.post(place, {"url": "json://127.0.0.1:9/new"})

    scene.gateway.refresh_from_db()
    assert kept == (before, ["stage.opened"])
    assert scene.gateway.url == "json://127.0.0.1:9/new"
    assert scene.gateway.scheme == "json"


def test_without_apprise_the_form_says_so(
    admin_client: ConsoleClient, settings: Any
) -> None:
    settings.GATEWAY_COMMAND = [sys.executable, "-I", "-c", WITHOUT_APPRISE]

    answer = admin_client.post(f"{GATEWAYS}add/", {"url": "json://127.0.0.1:9/x"})

    assert answer.content.count(b"Apprise is not installed on the server") == 1
    assert not Gateway.objects.exists()
