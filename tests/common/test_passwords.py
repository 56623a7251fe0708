"""Passwords: how they are kept, changed, and when they must be."""

from typing import Any

import pytest
from django.conf import settings as project
from django.contrib.auth.hashers import identify_hasher

from hotswap.common.models import AuditEvent, ConsoleSession, User
from hotswap.common.people import set_password
from hotswap.common.tokens import issue_token_pair
from hotswap.settings import base
from tests.api import Caller, pointers, problem_of
from tests.callers import PersonCaller
from tests.common.factories import PASSWORD, PersonFactory

NEW = "another-horse-and-battery"


def change(caller: Caller, current: str = PASSWORD, new: str = NEW) -> Any:
    return caller.post(
        "/auth/password", {"currentPassword": current, "newPassword": new}
    )


def verbs() -> list[str]:
    """Return what the trail says of people."""
    rows = AuditEvent.objects.filter(object_kind="person").order_by("id")
    return list(rows.values_list("verb", flat=True))


def test_passwords_are_kept_by_argon2(settings: Any) -> None:
    settings.PASSWORD_HASHERS = base.PASSWORD_HASHERS
    person = User(username="somebody")

    person.set_password(PASSWORD)

    assert identify_hasher(person.password).algorithm == "argon2"
    assert person.check_password(PASSWORD)


def test_twelve_characters_are_needed() -> None:
    assert project.PASSWORD_MIN_LENGTH == 12


def test_a_changed_password_ends_all_logins_and_begins_one(
    operator: PersonCaller, anonymous: Caller
) -> None:
    former = issue_token_pair(user=operator.person)

    answer = change(operator)

    assert answer.status_code == 200
    assert Caller(token=answer.json()["access"]).get("/devices").status_code == 200
    problem_of(operator.get("/devices"), 401, "token_revoked")
    problem_of(anonymous.post("/auth/refresh", {"refresh": former.refresh}), 401)
    assert verbs()[-1] == "person.password-changed"


@pytest.mark.parametrize(
    ("current", "new", "code", "pointer"),
    [
        ("wrong", NEW, "wrong_password", "/currentPassword"),
        (PASSWORD, "short-one-7", "weak_password", "/newPassword"),
        (PASSWORD, "123456789012", "weak_password", "/newPassword"),
        (PASSWORD, PASSWORD, "weak_password", "/newPassword"),
    ],
)
def test_a_change_that_is_refused_changes_nothing(
    operator: PersonCaller, current: str, new: str, code: str, pointer: str
) -> None:
    problem = problem_of(change(operator, current, new), 400, code)

    assert pointers(problem) == {pointer: code}
    operator.person.refresh_from_db()
    assert operator.person.check_password(PASSWORD)
    assert operator.get("/devices").status_code == 200


def test_guesses_at_the_present_password_end(operator: PersonCaller) -> None:
    answers = [change(operator, "wrong").status_code for _ in range(21)]

    assert set(answers) == {400, 429}


@pytest.fixture
def held(admin: PersonCaller) -> PersonCaller:
    """An Operator whose password an Admin has set."""
    person = PersonFactory.create(operator=True)
    set_password(
        username=person.username,
        password="told-by-an-admin",
        actor=admin.person,
        must_change=True,
    )
    person.refresh_from_db()
    return PersonCaller(person)


@pytest.mark.parametrize("path", ["/devices", "/deployments", "/schema", "/docs"])
def test_whoever_must_change_the_password_can_do_nothing_else(
    held: PersonCaller, path: str
) -> None:
    problem_of(held.get(path), 403, "password_change_required")


def test_whoever_must_change_the_password_can_do_that(held: PersonCaller) -> None:
    changed = change(held, "told-by-an-admin").json()

    assert Caller(token=changed["access"]).get("/devices").status_code == 200


def test_logout_ends_the_family_of_a_refresh_token(anonymous: Caller, db: None) -> None:
    person = PersonFactory.create()
    pair, elsewhere = issue_token_pair(user=person), issue_token_pair(user=person)
    newer = anonymous.post("/auth/refresh", {"refresh": pair.refresh}).json()

    # With a token of the family that was used before, too.
    answer = anonymous.post("/auth/logout", {"refresh": pair.refresh})

    assert (answer.status_code, answer.content) == (204, b"")
    problem_of(anonymous.post("/auth/refresh", {"refresh": newer["refresh"]}), 401)
    other = anonymous.post("/auth/refresh", {"refresh": elsewhere.refresh})
    assert other.status_code == 200
    assert verbs()[-1] == "person.logged-out"


def test_logout_answers_alike_for_an_unknown_token(anonymous: Caller, db: None) -> None:
    answer = anonymous.post("/auth/logout", {"refresh": "hsr_unknown"})

    assert answer.status_code == 204
    assert verbs() == []


def test_logins_and_failures_are_in_the_trail_without_what_was_typed(
    anonymous: Caller, db: None
) -> None:
    person = PersonFactory.create()
    for name, password in (
        (person.username, PASSWORD),
        (person.username, "wrong-password"),
        ("my-password-by-mistake", "x"),
    ):
        anonymous.post("/auth/token", {"username": name, "password": password})

    rows = AuditEvent.objects.filter(verb__startswith="person.log").order_by("id")

    pseudonym = str(person.pseudonym)
    assert [(row.verb, row.object_id) for row in rows] == [
        ("person.logged-in", pseudonym),
        ("person.login-failed", pseudonym),
        ("person.login-failed", "unknown"),
    ]
    assert rows[0].actor == person.pseudonym
    assert rows[0].details == {"via": "api", "secondFactor": False}
    assert "mistake" not in str([vars(row) for row in rows])
    assert not ConsoleSession.objects.exists()
