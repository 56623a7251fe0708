"""Single sign-on by OpenID Connect, against a real provider."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.test import Client

from hotswap.common.models import AuditEvent, User
from hotswap.common.roles import Role
from hotswap.common.single_sign_on import role_of
from hotswap.settings.accounts import sign_on_providers
from tests.common.factories import PASSWORD, PersonFactory
from tests.factors import add_app
from tests.oidc import CLIENT_ID, CLIENT_SECRET, Provider, running_provider

START = "/admin/account/sso/oidc/login/"


@pytest.fixture
def provider(db: None, settings: Any) -> Iterator[Provider]:
    with running_provider() as provider:
        settings.SOCIALACCOUNT_PROVIDERS = sign_on_providers(
            issuer=provider.issuer,
            client_id=CLIENT_ID,
            client_secret=CLIENT_SECRET,
            name="Example",
        )
        settings.OIDC_ROLE_CLAIM = "groups"
        settings.OIDC_ROLES = {"ota-admins": "Admin", "ota-staff": "Operator"}
        provider.person = {
            "sub": "1234",
            "preferred_username": "ada",
            "email": "ada@example.com",
            "groups": ["ota-staff", "other"],
        }
        yield provider


def sign_on(client: Client) -> Any:
    """Go to the provider and back, as a browser does."""
    begun = client.get(START)
    assert begun.status_code == 302, begun.content
    there = httpx.get(begun["Location"])
    return client.get(there.headers["Location"].replace("http://testserver", ""))


def is_in(client: Client) -> bool:
    return client.get("/admin/devices/device/").status_code == 200


def test_a_person_of_the_provider_comes_in_with_the_role_of_the_claim(
    provider: Provider,
) -> None:
    client = Client()

    sign_on(client)

    assert is_in(client)
    person = User.objects.get(username="ada")
    assert person.role is Role.OPERATOR
    assert not person.has_usable_password()
    created = AuditEvent.objects.get(verb="person.created")
    assert created.details == {"role": "Operator", "via": "sso"}
    login = AuditEvent.objects.get(verb="person.logged-in")
    assert login.details == {"via": "sso", "secondFactor": False}


def test_the_role_follows_the_claim_at_each_login(provider: Provider) -> None:
    sign_on(Client())
    provider.person["groups"] = ["ota-admins", "ota-staff"]

    sign_on(Client())

    assert User.objects.get(username="ada").role is Role.ADMIN
    changed = AuditEvent.objects.get(verb="person.changed")
    assert changed.details == {"role": {"from": "Operator", "to": "Admin"}}


def test_whoever_has_no_role_there_does_not_come_in(provider: Provider) -> None:
    sign_on(Client())
    provider.person["groups"] = ["other"]
    client = Client()

    answer = sign_on(client)

    assert answer.status_code == 403
    assert b"Nobody has given you a role here." in answer.content
    assert not is_in(client)


def test_nobody_takes_over_an_account_by_its_name_or_address(
    provider: Provider,
) -> None:
    provider.person |= {"given_name": "Grace", "family_name": "Hopper"}
    local = PersonFactory.create(username="ada", email="ada@example.com", admin=True)
    client = Client()

    sign_on(client)

    assert is_in(client)
    person = User.objects.get(pk=client.session["_auth_user_id"])
    assert person.pk != local.pk
    assert re.fullmatch(r"ada\d+", person.username)
    assert User.objects.count() == 2


def test_a_disabled_person_does_not_come_in(provider: Provider) -> None:
    sign_on(Client())
    User.objects.filter(username="ada").update(is_active=False)
    client = Client()

    sign_on(client)

    assert not is_in(client)


def test_the_last_admin_is_not_lost_by_a_claim(provider: Provider) -> None:
    provider.person["groups"] = ["ota-admins"]
    sign_on(Client())
    provider.person["groups"] = ["ota-staff"]
    client = Client()

    answer = sign_on(client)

    assert answer.status_code == 403
    assert not is_in(client)
    assert User.objects.get(username="ada").role is Role.ADMIN


def test_a_forged_answer_does_not_come_in(provider: Provider) -> None:
    client = Client()
    begun = client.get(START)
    there = httpx.get(begun["Location"]).headers["Location"]

    stranger = Client()
    stranger.get(there.replace("http://testserver", ""))
    provider.codes.clear()
    client.get(there.replace("http://testserver", ""))

    assert not is_in(stranger)
    assert not is_in(client)
    assert not User.objects.filter(username="ada").exists()


@pytest.mark.parametrize("is_trusted", [True, False])
def test_the_provider_stands_for_the_second_factor_where_it_is_trusted_to(
    provider: Provider, settings: Any, is_trusted: bool
) -> None:
    settings.REQUIRE_MFA = "all"
    settings.OIDC_SECOND_FACTOR = is_trusted
    client = Client()

    sign_on(client)

    assert is_in(client) is is_trusted
    factors = client.get("/admin/account/factors/totp/activate/")
    assert factors.status_code == 200


def test_a_second_factor_here_is_asked_for_after_the_provider(
    provider: Provider,
) -> None:
    sign_on(Client())
    add_app(User.objects.get(username="ada"))
    client = Client()

    answer = sign_on(client)

    assert answer["Location"] == "/admin/account/factors/authenticate/"
    assert not is_in(client)


def test_the_login_offers_it_beside_the_password(provider: Provider) -> None:
    person = PersonFactory.create()
    client = Client()

    page = client.get("/admin/login/").content.decode()
    client.post("/admin/login/", {"username": person.username, "password": PASSWORD})

    assert "Log in with Example" in page
    assert is_in(client)


@pytest.mark.parametrize(
    ("claims", "claim", "role"),
    [
        ({"groups": ["a"]}, "groups", Role.ADMIN),
        ({"groups": "o"}, "groups", Role.OPERATOR),
        ({"groups": ["v", "o"]}, "groups", Role.OPERATOR),
        ({"groups": []}, "groups", None),
        ({"groups": [{"a": 1}, 7]}, "groups", None),
        ({"realm_access": {"roles": ["v"]}}, "realm_access.roles", Role.VIEWER),
        ({"realm_access": "v"}, "realm_access.roles", None),
        ({}, "groups", None),
    ],
)
def test_role_of_claims(claims: dict[str, Any], claim: str, role: Role | None) -> None:
    roles = {"a": "Admin", "o": "Operator", "v": "Viewer"}

    for source in ("id_token", "userinfo"):
        assert role_of({source: claims}, claim=claim, roles=roles) is role


def test_the_login_has_a_button_for_each_provider(
    provider: Provider, settings: Any
) -> None:
    (first,) = settings.SOCIALACCOUNT_PROVIDERS["openid_connect"]["APPS"]
    settings.SOCIALACCOUNT_PROVIDERS["openid_connect"]["APPS"] = [
        first,
        {**first, "provider_id": "other", "name": "Another"},
    ]

    page = Client().get("/admin/login/").content.decode()

    buttons = re.findall(r'href="([^"]+)"[^>]*>\s*Log in with (\w+)', page)
    assert [name for _, name in buttons] == ["Example", "Another"]
    assert [START in address for address, _ in buttons] == [True, False]
