"""The login of the console: one way in, with a second factor where there is one."""

import re
import time
from types import SimpleNamespace
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal import auth as totp
from django.contrib import admin
from django.test import Client
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from hotswap.common.logins import current_logins
from hotswap.common.models import AuditEvent, User
from hotswap.common.second_factors import take_code
from hotswap.common.tokens import issue_token_pair
from tests import factors
from tests.common.factories import PASSWORD, PersonFactory
from tests.console.conftest import ConsoleClient
from tests.factors import (
    add_app,
    add_recovery_codes,
    code_of,
    opened,
    stored_secret,
)

LOGIN = "/admin/login/"
CODE = "/admin/account/factors/authenticate/"
FACTORS = "/admin/account/factors/"
ACTIVATE = "/admin/account/factors/totp/activate/"
CONFIRM = "/admin/account/confirm/"
# What a new second factor brings about follows its commit.
COMMITTED = pytest.mark.django_db(transaction=True)


def give_password(client: Client, person: User, password: str = PASSWORD) -> Any:
    return client.post(LOGIN, {"username": person.username, "password": password})


def is_in(client: Client) -> bool:
    return client.get("/admin/devices/device/").status_code == 200


@pytest.fixture
def person(db: None) -> User:
    return PersonFactory.create(admin=True)


def test_the_login_speaks_plainly_and_once(person: User) -> None:
    client = Client()

    first = client.get(LOGIN).content.decode()
    wrong = give_password(client, person, "wrong").content.decode()

    assert "icon.svg" in first
    assert wrong.count("The name or the password is wrong.") == 1
    for words in ("staff account", "case-sensitive", "Welcome back", "sign up"):
        assert words not in wrong


def test_the_password_alone_does_not_open_the_console(person: User) -> None:
    secret = add_app(person)
    client = Client()

    answer = give_password(client, person)
    assert answer["Location"] == CODE
    assert not is_in(client)
    wrong = client.post(CODE, {"code": "000000"})
    assert b"This code is wrong" in wrong.content
    assert not is_in(client)

    client.post(CODE, {"code": code_of(secret)})

    assert is_in(client)
    event = AuditEvent.objects.get(verb="person.logged-in")
    assert event.details == {"via": "console", "secondFactor": True}
    assert AuditEvent.objects.filter(verb="person.login-failed").count() == 1


@pytest.mark.parametrize("path", ["/admin/", "/admin/login/", "/admin/common/user/"])
def test_no_form_of_the_admin_goes_around_the_code(person: User, path: str) -> None:
    add_app(person)
    client = Client()
    form = {
        "username": person.username,
        "password": PASSWORD,
        "this_is_the_login_form": 1,
    }

    client.post(path, form)
    client.post(f"{path}?next=/admin/", form)

    assert not is_in(client)


def test_a_recovery_code_opens_it_too(person: User) -> None:
    add_app(person)
    code = add_recovery_codes(person)[0]
    client = Client()
    give_password(client, person)

    client.post(CODE, {"code": code})

    assert is_in(client)


@pytest.mark.usefixtures("one_window")
def test_guesses_at_codes_end_in_the_console(person: User, settings: Any) -> None:
    settings.LOGIN_FAILURES_PER_MINUTE = 3
    add_app(person)
    client = Client()
    give_password(client, person)

    pages = [client.post(CODE, {"code": "000000"}).content for _ in range(8)]

    assert b"Too many failures" in pages[-1]


def set_up(client: Client) -> Any:
    """Set up an authenticator app, as a person does."""
    client.post(f"{CONFIRM}?next={ACTIVATE}", {"password": PASSWORD})
    page = client.get(ACTIVATE).content.decode()
    found = re.search(r'id="authenticator_secret"[^>]* value="(\w+)"', page)
    assert found, page
    return client.post(ACTIVATE, {"code": code_of(found[1])})


@COMMITTED
def test_whoever_must_have_one_is_led_to_set_it_up_and_gets_nowhere_else(
    person: User, settings: Any
) -> None:
    settings.REQUIRE_MFA = "admins"
    client = ConsoleClient()
    give_password(client, person)

    for path in ("/admin/", "/admin/devices/device/", "/admin/account/"):
        answer = client.get(path)
        assert (answer.status_code, answer["Location"]) == (302, FACTORS)
    assert client.get("/api/v1/docs").status_code == 403
    assert b"must have a second factor" in client.get(FACTORS).content

    set_up(client)

    assert is_in(client)
    assert client.get("/api/v1/docs").status_code == 200


@COMMITTED
def test_setting_one_up_ends_the_logins_that_had_none(person: User) -> None:
    mine, other = ConsoleClient(), ConsoleClient()
    give_password(mine, person)
    give_password(other, person)
    issue_token_pair(user=person)

    set_up(mine)

    assert is_in(mine)
    assert not is_in(other)
    assert len(current_logins(user=person, now=timezone.now())) == 1
    verbs = AuditEvent.objects.values_list("verb", flat=True)
    assert "person.second-factor-added" in verbs


@COMMITTED
def test_the_code_that_an_app_is_set_up_with_is_used_up(
    person: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = int(time.time())
    monkeypatch.setattr(factors, "time", SimpleNamespace(time=lambda: now))
    monkeypatch.setattr(totp, "time", SimpleNamespace(time=lambda: now))
    client = ConsoleClient()
    give_password(client, person)
    set_up(client)
    secret = opened(stored_secret(person))

    assert take_code(person, code_of(secret)) is None

    monkeypatch.setattr(totp, "time", SimpleNamespace(time=lambda: now + 30))
    assert take_code(person, code_of(secret, later=1)) is not None


def test_a_session_of_one_factor_is_not_enough_once_one_is_required(
    person: User, settings: Any
) -> None:
    client = ConsoleClient()
    give_password(client, person)
    add_app(person)

    settings.REQUIRE_MFA = "all"
    answer = client.get("/admin/devices/device/")

    assert answer["Location"].startswith(LOGIN)
    assert "_auth_user_id" not in client.session


@COMMITTED
def test_removing_the_last_one_is_in_the_trail(person: User) -> None:
    client = ConsoleClient()
    give_password(client, person)
    set_up(client)

    client.post(f"{FACTORS}totp/deactivate/")

    assert not Authenticator.objects.filter(user=person, type="totp").exists()
    verbs = AuditEvent.objects.values_list("verb", flat=True)
    assert "person.second-factor-removed" in verbs


@pytest.mark.parametrize(
    "path",
    [
        FACTORS,
        ACTIVATE,
        f"{FACTORS}webauthn/add/",
        f"{FACTORS}recovery-codes/generate/",
    ],
)
def test_pages_of_second_factors_look_like_the_console(person: User, path: str) -> None:
    client = ConsoleClient()
    give_password(client, person)
    set_up(client)
    client.post(f"{FACTORS}totp/deactivate/")

    page = client.get(path, follow=True)

    assert page.status_code == 200
    assert b"hs-element-title" in page.content


def test_no_page_edits_what_logins_are_made_of() -> None:
    apps = {model._meta.app_label for model in admin.site._registry}

    assert not apps & {"account", "mfa", "socialaccount", "auth", "sessions"}


@pytest.mark.parametrize(
    "name", ["signup", "email", "reset_password", "set_password", "change_password"]
)
def test_nobody_signs_up_or_goes_around_an_admin(name: str) -> None:
    with pytest.raises(NoReverseMatch):
        reverse(f"account_{name}")
