"""Second factors at the API: who needs one, and the code at the login."""

from typing import Any

import pytest

from hotswap.common.models import AuditEvent, User
from hotswap.common.second_factors import take_code
from hotswap.common.tokens import issue_token_pair, person_access_token
from tests.api import Caller, problem_of
from tests.common.factories import PASSWORD, PersonFactory
from tests.factors import (
    add_app,
    add_recovery_codes,
    code_of,
    opened,
    stored_secret,
)

pytestmark = pytest.mark.django_db


def log_in(user: User, **more: str) -> Any:
    body = {"username": user.username, "password": PASSWORD, **more}
    return Caller().post("/auth/token", body)


def test_a_code_is_needed_beside_the_password() -> None:
    person = PersonFactory.create()
    secret = add_app(person)

    problem_of(log_in(person), 401, "second_factor_required")
    problem_of(log_in(person, code="000000"), 401, "second_factor_wrong")
    answer = log_in(person, code=code_of(secret))

    assert answer.status_code == 200
    event = AuditEvent.objects.filter(verb="person.logged-in").latest("id")
    assert event.details == {"via": "api", "secondFactor": True}
    failed = AuditEvent.objects.filter(verb="person.login-failed")
    assert failed.get().object_id == str(person.pseudonym)


def test_a_wrong_password_says_nothing_of_a_second_factor() -> None:
    person = PersonFactory.create()
    add_app(person)
    body = {"username": person.username, "password": "wrong", "code": "000000"}

    problem_of(Caller().post("/auth/token", body), 401, "login_failed")


def test_a_code_of_the_app_works_once_and_no_earlier_one_after_it() -> None:
    person = PersonFactory.create()
    secret = add_app(person)
    now, next_one = code_of(secret), code_of(secret, later=1)

    assert take_code(person, next_one)
    assert not take_code(person, next_one)
    assert not take_code(person, now)


def test_a_recovery_code_works_once() -> None:
    person = PersonFactory.create()
    add_app(person)
    code = add_recovery_codes(person)[3]

    assert log_in(person, code=code).status_code == 200
    problem_of(log_in(person, code=code), 401, "second_factor_wrong")


def test_guesses_at_codes_end(settings: Any) -> None:
    settings.LOGIN_FAILURES_PER_MINUTE = 5
    person = PersonFactory.create()
    add_app(person)

    answers = [log_in(person, code="000000").status_code for _ in range(12)]

    assert set(answers) == {401, 429}


def test_secrets_are_sealed_in_the_database() -> None:
    person = PersonFactory.create()
    secret = add_app(person)

    stored = stored_secret(person)

    assert secret not in stored
    assert opened(stored) == secret


@pytest.mark.parametrize(
    ("required", "role", "is_held"),
    [
        ("none", "admin", False),
        ("admins", "admin", True),
        ("admins", "operator", False),
        ("all", "operator", True),
        ("all", "viewer", True),
    ],
)
def test_whoever_must_have_a_second_factor_can_do_nothing_without(
    settings: Any, required: str, role: str, is_held: bool
) -> None:
    settings.REQUIRE_MFA = required
    person = PersonFactory.create(**({} if role == "viewer" else {role: True}))
    token = log_in(person).json()["access"]

    for path in ("/devices", "/schema"):
        answer = Caller(token=token).get(path)

        if is_held:
            problem_of(answer, 403, "second_factor_setup_required")
        else:
            assert answer.status_code == 200


def test_a_token_of_one_factor_is_not_enough_once_there_are_two(settings: Any) -> None:
    settings.REQUIRE_MFA = "admins"
    person = PersonFactory.create(admin=True)
    early = Caller(token=person_access_token(person))
    pair = issue_token_pair(user=person)
    secret = add_app(person)

    problem_of(early.get("/devices"), 403, "second_factor_required")
    renewed = Caller().post("/auth/refresh", {"refresh": pair.refresh}).json()
    renewed_caller = Caller(token=renewed["access"])
    problem_of(renewed_caller.get("/devices"), 403, "second_factor_required")
    both = log_in(person, code=code_of(secret)).json()
    assert Caller(token=both["access"]).get("/devices").status_code == 200
    again = Caller().post("/auth/refresh", {"refresh": both["refresh"]}).json()
    assert Caller(token=again["access"]).get("/devices").status_code == 200
