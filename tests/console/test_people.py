"""People in the console: invited, reset, erased."""

import re
from typing import Any

from django.core import mail
from django.test import Client

from hotswap.common.models import AuditEvent, User
from tests.common.factories import PASSWORD, PersonFactory
from tests.console.conftest import ConsoleClient, Scene
from tests.factors import add_app

INVITE = "/admin/common/user/invite/"
LIST = "/admin/common/user/"


def page_of(person: User, action: str) -> str:
    return f"/admin/common/user/{person.pk}/{action}/"


def test_an_invited_person_chooses_a_password_and_comes_in(
    admin_client: ConsoleClient,
) -> None:
    form = {"username": "ada", "email": "ada@example.com", "role": "Operator"}

    answer = admin_client.post(INVITE, form)

    assert answer.status_code == 302
    (message,) = mail.outbox
    found = re.search(r"http://testserver(/\S+)", str(message.body))
    assert found
    client = Client()
    page = client.get(found[1], follow=True)
    assert b"hs-entrance" in page.content
    new = {"password1": "another-horse-7", "password2": "another-horse-7"}
    done = client.post(page.redirect_chain[-1][0], new, follow=True)
    assert b"hs-entrance" in done.content
    client.post("/admin/login/", {"username": "ada", "password": "another-horse-7"})
    assert client.get("/admin/devices/device/").status_code == 200


def test_an_invitation_needs_an_address_and_a_new_name(
    admin_client: ConsoleClient,
) -> None:
    taken = PersonFactory.create()

    form: dict[str, Any]
    for form in (
        {"username": "ada", "email": "", "role": "Viewer"},
        {"username": taken.username, "email": "a@example.com", "role": "Viewer"},
    ):
        assert admin_client.post(INVITE, form).status_code == 200

    assert mail.outbox == []
    assert not User.objects.filter(username="ada").exists()


def test_a_mail_server_that_is_away_leaves_the_person_to_be_invited_again(
    admin_client: ConsoleClient, settings: Any
) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    form = {"username": "ada", "email": "ada@example.com", "role": "Viewer"}

    page = admin_client.post(INVITE, form, follow=True).content.decode()

    assert "send it again" in page
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    person = User.objects.get(username="ada")
    admin_client.post(page_of(person, "send-invitation"))
    assert len(mail.outbox) == 1


def test_lost_second_factors_are_reset(admin_client: ConsoleClient) -> None:
    person = PersonFactory.create()
    add_app(person)

    admin_client.post(page_of(person, "reset-second-factors"))

    client = Client()
    client.post("/admin/login/", {"username": person.username, "password": PASSWORD})
    assert client.get("/admin/devices/device/").status_code == 200


def test_erasing_asks_for_the_name(admin_client: ConsoleClient) -> None:
    person = PersonFactory.create(username="ada")

    wrong = admin_client.post(page_of(person, "erase"), {"typed": "bob"})
    assert b"is another" in wrong.content
    admin_client.post(page_of(person, "erase"), {"typed": "ada"})

    assert User.objects.get(pk=person.pk).erased_at is not None
    assert b"erased-" not in admin_client.get(LIST).content
    assert AuditEvent.objects.latest("id").verb == "person.erased"
    assert admin_client.get(page_of(person, "change")).status_code in (302, 404)


def test_what_a_person_did_is_named_and_linked(
    admin_client: ConsoleClient, scene: Scene
) -> None:
    page = admin_client.get(page_of(scene.world.admin, "change")).content.decode()

    log = page[page.index("Recent activity") :]
    assert f">{scene.deployment}</a>" in log
    assert f'/admin/deployments/deployment/{scene.deployment.pk}/change/"' in log


def test_an_operator_does_nothing_to_people(operator_client: ConsoleClient) -> None:
    person = PersonFactory.create()

    for action in ("erase", "send-invitation", "reset-second-factors", "edit"):
        assert operator_client.post(page_of(person, action)).status_code == 403
    assert operator_client.post(INVITE).status_code == 403
