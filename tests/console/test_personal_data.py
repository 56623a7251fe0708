"""What is held about a person is given out as one document (GDPR 15, 20)."""

import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.utils import timezone

from devices.models import SavedFilter
from devices.services.saved_filters import save_filter
from hotswap.common import people
from hotswap.common.models import AuditEvent, ConsoleSession, RefreshToken, User
from hotswap.common.personal_tokens import create_token
from hotswap.common.roles import Role
from hotswap.common.tokens import issue_token_pair
from tests.api import Caller
from tests.callers import PersonCaller
from tests.common.factories import PASSWORD, PersonFactory
from tests.console.conftest import ConsoleClient
from tests.factors import add_app, add_recovery_codes, log_in_by_password, opened

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin() -> PersonCaller:
    return PersonCaller(PersonFactory.create(admin=True))


@pytest.fixture
def ada() -> User:
    """Somebody of whom one of everything is held."""
    person = PersonFactory.create(
        operator=True, username="ada.lovelace", email="ada@example.com"
    )
    ConsoleClient(headers={"User-Agent": "Browser of Ada"}).post(
        "/admin/login/", {"username": person.username, "password": PASSWORD}
    )
    pair = issue_token_pair(user=person)
    create_token(
        user=person,
        name="pipeline of Ada",
        role=Role.VIEWER,
        lifetime=timedelta(days=1),
        now=timezone.now(),
    )
    add_app(person)
    add_recovery_codes(person)
    SocialAccount.objects.create(
        user=person, provider="oidc", uid="ada-at-work", extra_data={"team": "looms"}
    )
    save_filter(user=person, name="mine", query="region=EU")
    Caller(token=pair.access).post("/device-groups", {"name": "of ada"})
    return person


def exported(admin: PersonCaller, person: User) -> dict[str, Any]:
    answer = admin.get(f"/people/{person.pseudonym}/export")
    assert answer.status_code == 200
    document: dict[str, Any] = json.loads(answer.content)
    return document


def test_a_document_holds_all_about_the_person_and_no_secret(
    admin: PersonCaller, ada: User
) -> None:
    document = exported(admin, ada)

    assert document["person"]["username"] == "ada.lovelace"
    assert document["person"]["email"] == "ada@example.com"
    assert document["person"]["role"] == "Operator"
    (session,) = document["consoleSessions"]
    assert session["userAgent"] == "Browser of Ada"
    assert len(document["apiLogins"]) == 1
    assert [each["name"] for each in document["accessTokens"]] == ["pipeline of Ada"]
    factors = {each["type"] for each in document["secondFactors"]}
    assert factors == {"totp", "recovery_codes"}
    assert document["singleSignOn"][0]["claims"] == {"team": "looms"}
    assert document["savedFilters"][0]["query"] == "region=EU"
    did = [each["verb"] for each in document["auditEvents"]]
    assert {"device-group.created", "person.logged-in"} <= set(did)
    assert did[-1] == "person.exported"
    text = json.dumps(document)
    secrets = [
        ada.password,
        ConsoleSession.objects.get(user=ada).session_key,
        RefreshToken.objects.get(user=ada).digest,
        *ada.personaltoken_set.values_list("digest", flat=True),
        *ada.personaltoken_set.values_list("hint", flat=True),
    ]
    for factor in Authenticator.objects.filter(user=ada):
        stored = [value for value in factor.data.values() if isinstance(value, str)]
        secrets += [*stored, *map(opened, stored)]
    assert not [secret for secret in secrets if secret in text]


def test_nothing_about_others_is_in_it(admin: PersonCaller, ada: User) -> None:
    other = PersonFactory.create(username=f"other-{uuid4().hex}")
    save_filter(user=other, name="theirs", query="region=US")
    issue_token_pair(user=other)

    text = json.dumps(exported(admin, ada))

    assert other.username not in text
    assert str(other.pseudonym) not in text
    assert "theirs" not in text


def test_everybody_gets_their_own_in_the_console(viewer_client: ConsoleClient) -> None:
    answer = viewer_client.get("/admin/account/data/")

    name = viewer_client.person.username
    assert name in answer["Content-Disposition"]
    document = json.loads(answer.content)
    assert document["person"]["username"] == name
    event = AuditEvent.objects.get(verb="person.exported")
    assert event.actor == viewer_client.person.pseudonym
    page = viewer_client.get("/admin/account/")
    # Not as a `download`: the browser would keep the page that asks who it is.
    assert 'href="/admin/account/data/">Download' in page.content.decode()


def test_admins_alone_get_that_of_others(
    admin_client: ConsoleClient, operator_client: ConsoleClient, ada: User
) -> None:
    path = f"/admin/common/user/{ada.pk}/data/"

    assert operator_client.get(path).status_code == 403
    page = admin_client.get(f"/admin/common/user/{ada.pk}/change/")
    assert f'href="{path}"' in page.content.decode()
    answer = admin_client.get(path)
    assert b"ada@example.com" in answer.content


def test_whoever_logged_in_long_ago_proves_who_they_are_first(db: None) -> None:
    client, person = ConsoleClient(), PersonFactory.create()
    log_in_by_password(client, person, seconds_ago=3600)

    answer = client.get("/admin/account/data/")

    assert answer["Location"].startswith("/admin/account/confirm/")
    assert not AuditEvent.objects.filter(verb="person.exported").exists()


def test_an_erasure_takes_the_filters_too(admin: PersonCaller, ada: User) -> None:
    people.erase_person(actor=admin.person, user_id=ada.pk)

    assert not SavedFilter.objects.filter(user=ada).exists()
