"""Passwords: how they are kept, changed, and when they must be."""

from datetime import timedelta
from itertools import pairwise
from typing import Any, ClassVar

import pytest
from django.conf import settings as project
from django.contrib.auth.hashers import MD5PasswordHasher, identify_hasher
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from hotswap.common.models import AuditEvent, ConsoleSession, User
from hotswap.common.people import (
    PasswordChangedError,
    WeakPasswordError,
    change_own_password,
    set_own_password,
    set_password,
)
from hotswap.common.personal_tokens import create_token
from hotswap.common.roles import Role
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
    # A guess costs the server a tenth of a second of one core.
    assert "$argon2id$" in person.password
    assert "$m=47104,t=1,p=1$" in person.password
    assert person.check_password(PASSWORD)


class RecordingHasher(MD5PasswordHasher):
    """Notes whether each hash was made within a transaction."""

    was_in_transaction: ClassVar[list[bool]] = []

    def encode(self, password: str, salt: str) -> str:
        self.was_in_transaction.append(connection.in_atomic_block)
        return super().encode(password, salt)


@pytest.mark.django_db(transaction=True)
def test_nothing_is_hashed_while_a_person_is_locked(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PASSWORD_HISTORY = 2
    person = PersonFactory.create()
    settings.PASSWORD_HASHERS = [f"{__name__}.RecordingHasher"]
    monkeypatch.setattr(RecordingHasher, "was_in_transaction", [])

    change_own_password(user=person, current=PASSWORD, new=NEW)
    set_password(
        username=person.username, password=f"{NEW}-2", actor=None, must_change=True
    )
    set_own_password(user=person, password=f"{NEW}-3")

    assert set(RecordingHasher.was_in_transaction) == {False}
    person.refresh_from_db()
    assert person.check_password(f"{NEW}-3")


@pytest.mark.django_db
def test_a_password_that_was_changed_meanwhile_is_not_overwritten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    person = PersonFactory.create()
    another = PersonFactory.create().password

    encode = MD5PasswordHasher.encode

    def overtaken(hasher: MD5PasswordHasher, password: str, salt: str) -> str:
        User.objects.filter(pk=person.pk).update(password=another)
        return encode(hasher, password, salt)

    monkeypatch.setattr(MD5PasswordHasher, "encode", overtaken)
    with pytest.raises(PasswordChangedError):
        set_password(
            username=person.username, password=NEW, actor=None, must_change=True
        )

    person.refresh_from_db()
    assert (person.password, person.must_change_password) == (another, False)


def test_twelve_characters_are_needed() -> None:
    assert project.PASSWORD_MIN_LENGTH == 12


@pytest.mark.parametrize("password", ["admin", "adminadminadmin", "123456789012"])
def test_the_first_admin_gets_no_weak_password_either(
    password: str, monkeypatch: pytest.MonkeyPatch, db: None
) -> None:
    monkeypatch.setenv("HOTSWAP_ADMIN_PASSWORD", password)
    monkeypatch.setenv("HOTSWAP_ADMIN_USERNAME", "adminadminadmin")

    with pytest.raises(CommandError, match=r"HOTSWAP_ADMIN_PASSWORD: .*password"):
        call_command("prepare")

    assert not User.objects.exists()


@pytest.mark.parametrize(
    "password",
    [
        *("passwordpassword", "Password12345", "qwertyqwerty!", "!!Dragon2026!!"),
        *("hotswap-2026-11", "HotSwapHotSwap", "abababababab", "admin123admin123"),
    ],
)
def test_a_common_password_that_was_made_longer_is_refused(password: str) -> None:
    with pytest.raises(ValidationError):
        validate_password(password, User(username="somebody"))


@pytest.mark.parametrize(
    "password",
    [
        "correct-horse-battery-staple",
        "Harmless-Winter-71",
        "kT7-xq9LpZab",
        "ütf-8-ist-ok",
    ],
)
def test_other_passwords_are_taken(password: str) -> None:
    validate_password(password, User(username="somebody"))


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


# --- Age and history ----------------------------------------------------------------


def aged(person: User, days: int) -> None:
    User.objects.filter(pk=person.pk).update(
        password_set_at=timezone.now() - timedelta(days=days)
    )
    person.refresh_from_db()


def test_passwords_grow_as_old_as_they_like_unless_told(operator: PersonCaller) -> None:
    aged(operator.person, 4000)

    assert operator.get("/devices").status_code == 200


def test_a_password_that_has_aged_is_changed_first(
    operator: PersonCaller, settings: Any
) -> None:
    settings.PASSWORD_MAX_AGE = timedelta(days=90)
    aged(operator.person, 89)
    assert operator.get("/devices").status_code == 200

    aged(operator.person, 91)

    problem_of(operator.get("/devices"), 403, "password_change_required")
    changed = change(operator).json()
    assert Caller(token=changed["access"]).get("/devices").status_code == 200


@pytest.mark.django_db
def test_the_age_of_a_password_holds_up_no_program(settings: Any) -> None:
    settings.PASSWORD_MAX_AGE = timedelta(days=90)
    person = PersonFactory.create(operator=True)
    aged(person, 91)
    _, text = create_token(
        user=person,
        name="pipeline",
        role=Role.OPERATOR,
        lifetime=timedelta(days=1),
        now=timezone.now(),
    )

    assert Caller(token=text).get("/devices").status_code == 200


@pytest.mark.django_db
def test_whoever_signs_on_elsewhere_has_no_password_to_age(settings: Any) -> None:
    settings.PASSWORD_MAX_AGE = timedelta(days=90)
    person = PersonFactory.create(operator=True)
    person.set_unusable_password()
    person.save(update_fields=["password"])
    aged(person, 91)

    assert not person.has_aged_password(timezone.now())


@pytest.mark.django_db
def test_former_passwords_are_not_taken_again(settings: Any) -> None:
    settings.PASSWORD_HISTORY = 3
    person = PersonFactory.create(operator=True)
    used = [PASSWORD, *(f"another-horse-and-{number}" for number in range(3))]
    for before, after in pairwise(used):
        change_own_password(user=person, current=before, new=after)

    for former in used[1:]:
        with pytest.raises(WeakPasswordError):
            change_own_password(user=person, current=used[-1], new=former)
    # The fourth last may be used again.
    change_own_password(user=person, current=used[-1], new=used[0])
    assert person.former_passwords.count() == 2


@pytest.mark.django_db
def test_an_admin_gives_no_former_password_either(settings: Any) -> None:
    settings.PASSWORD_HISTORY = 2
    person, admin = PersonFactory.create(), PersonFactory.create(admin=True)

    with pytest.raises(WeakPasswordError):
        set_password(
            username=person.username, password=PASSWORD, actor=admin, must_change=True
        )


@pytest.mark.django_db
def test_without_a_history_nothing_of_a_former_password_is_kept(settings: Any) -> None:
    settings.PASSWORD_HISTORY = 3
    person = PersonFactory.create()
    change_own_password(user=person, current=PASSWORD, new=NEW)
    assert person.former_passwords.count() == 1

    settings.PASSWORD_HISTORY = 0
    change_own_password(user=person, current=NEW, new=PASSWORD)

    assert not person.former_passwords.exists()
