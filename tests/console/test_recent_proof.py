"""What gives rights or secrets asks again who it is, unless that was shown lately."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.mfa.models import Authenticator
from django.test import Client

from hotswap.common.models import AuditEvent, PersonalToken, User
from tests.common.factories import PASSWORD, PersonFactory
from tests.console.conftest import Scene
from tests.factors import add_app, add_recovery_codes, code_of, log_in_by_password

CONFIRM = "/admin/account/confirm/"
CODE = "/admin/account/factors/reauthenticate/"
NEW_TOKEN = "/admin/account/tokens/create/"
TOKEN = {"name": "pipeline", "role": "Admin", "days": "7"}
LONG_AGO = 3600
HTMX = {"HX-Request": "true"}


@pytest.fixture
def person(db: None) -> User:
    return PersonFactory.create(admin=True)


@pytest.fixture
def client(person: User) -> Client:
    """A session whose login is an hour ago."""
    client = Client()
    log_in_by_password(client, person, seconds_ago=LONG_AGO)
    return client


def asked(answer: Any, back: str, *, at: str = CONFIRM) -> bool:
    """Tell whether an answer leads to where one says again who one is, and back."""
    parts = urlsplit(answer.headers.get("HX-Redirect") or answer.headers["Location"])
    return parts.path == at and parse_qs(parts.query) == {"next": [back]}


def test_a_token_is_made_after_the_password_was_given_again(client: Client) -> None:
    assert asked(client.get(NEW_TOKEN), NEW_TOKEN)
    assert asked(client.post(NEW_TOKEN, TOKEN), NEW_TOKEN)
    assert not PersonalToken.objects.exists()

    page = client.get(f"{CONFIRM}?next={NEW_TOKEN}").content.decode()
    assert "Is it still you?" in page
    answer = client.post(f"{CONFIRM}?next={NEW_TOKEN}", {"password": PASSWORD})
    assert answer["Location"] == NEW_TOKEN
    client.post(NEW_TOKEN, TOKEN)

    assert PersonalToken.objects.get().name == "pipeline"


def test_a_wrong_password_changes_nothing_and_is_audited(client: Client) -> None:
    page = client.post(f"{CONFIRM}?next={NEW_TOKEN}", {"password": "wrong"})

    assert b"The password is wrong." in page.content
    assert asked(client.post(NEW_TOKEN, TOKEN), NEW_TOKEN)
    assert AuditEvent.objects.filter(verb="person.login-failed").count() == 1


def test_whoever_has_just_logged_in_is_not_asked_again(person: User) -> None:
    client = Client()
    client.post("/admin/login/", {"username": person.username, "password": PASSWORD})

    page = client.get(NEW_TOKEN)
    factors = client.get("/admin/account/factors/totp/activate/")

    assert page.status_code == factors.status_code == 200


def test_a_code_of_the_app_counts_as_the_password_does(
    client: Client, person: User
) -> None:
    secret = add_app(person)

    answer = client.post(f"{CODE}?next={NEW_TOKEN}", {"code": code_of(secret)})

    assert answer["Location"] == NEW_TOKEN
    assert client.get(NEW_TOKEN).status_code == 200


def test_adding_and_removing_second_factors_asks_too(
    client: Client, person: User
) -> None:
    for path in ("totp/activate/", "webauthn/add/"):
        answer = client.get(f"/admin/account/factors/{path}")
        assert urlsplit(answer["Location"]).path == CONFIRM, path

    add_app(person)
    add_recovery_codes(person)
    client.post("/admin/account/factors/totp/deactivate/")
    for path in ("recovery-codes/", "recovery-codes/generate/"):
        answer = client.get(f"/admin/account/factors/{path}")
        assert urlsplit(answer["Location"]).path == CONFIRM, path
    assert Authenticator.objects.filter(user=person).count() == 2


def test_whoever_has_neither_password_nor_factor_is_not_asked(
    client: Client, person: User
) -> None:
    person.set_unusable_password()
    person.save()
    log_in_by_password(client, person, seconds_ago=LONG_AGO)

    assert client.get(NEW_TOKEN).status_code == 200


def test_what_gives_rights_or_secrets_asks_and_what_takes_them_away_does_not(
    client: Client, scene: Scene
) -> None:
    person = f"/admin/common/user/{scene.person.pk}/"
    webhook = f"/admin/deployments/webhook/{scene.webhook.pk}/"
    of_person, of_webhook = f"{person}change/", f"{webhook}change/"
    people, webhooks = "/admin/common/user/", "/admin/deployments/webhook/"
    add_app(scene.person)
    asking = [
        (people, f"{people}create/"),
        (people, f"{people}invite/"),
        (of_person, f"{person}edit/"),
        (of_person, f"{person}set-password/"),
        (of_person, f"{person}erase/"),
        (of_person, f"{person}reset-second-factors/"),
        (f"{webhooks}add/", f"{webhooks}add/"),
        (f"{webhook}rotate-secret/", f"{webhook}rotate-secret/"),
        (of_webhook, f"{webhook}edit/"),
    ]
    for back, path in asking:
        for answer in (client.get(path), client.post(path, headers=HTMX)):
            assert asked(answer, back), path

    assert client.get(f"{person}disable/").status_code == 200
    assert client.get(f"{webhook}disable/").status_code == 200
    scene.person.refresh_from_db()
    assert not scene.person.is_superuser
