"""Personal access tokens: what they open, for how long, and who ends them."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from hotswap.common.errors import ForbiddenError, InvalidInputError, NotFoundError
from hotswap.common.models import AuditEvent, PersonalToken, User
from hotswap.common.people import set_password, set_person_active
from hotswap.common.personal_tokens import (
    MAX_TOKENS,
    TooManyTokensError,
    create_token,
    revoke_token,
    token_of,
)
from hotswap.common.roles import PEOPLE, Role
from hotswap.retention import enforce_policies
from tests.api import Caller, problem_of
from tests.callers import PersonCaller
from tests.common.factories import PersonFactory
from tests.factors import add_app

pytestmark = pytest.mark.django_db
MONTH = timedelta(days=30)


def make(
    user: User, role: Role = Role.VIEWER, lifetime: timedelta = MONTH, name: str = "ci"
) -> tuple[PersonalToken, str]:
    return create_token(
        user=user, name=name, role=role, lifetime=lifetime, now=timezone.now()
    )


def test_a_token_acts_for_its_person() -> None:
    person = PersonFactory.create(operator=True)
    token, text = make(person, Role.OPERATOR)

    answer = Caller(token=text).post("/device-groups", {})

    assert text.startswith("hst_")
    problem_of(answer, 400)
    token.refresh_from_db()
    assert token.last_used_at is not None


@pytest.mark.parametrize("role", PEOPLE)
@pytest.mark.parametrize("scope", PEOPLE)
def test_a_token_does_what_its_role_allows(role: Role, scope: Role) -> None:
    person = PersonFactory.create(role=role)
    if PEOPLE.index(scope) < PEOPLE.index(role):
        with pytest.raises(ForbiddenError):
            make(person, scope)
        return
    _, text = make(person, scope)
    caller = Caller(token=text)

    found = [
        caller.get("/devices").status_code,
        caller.post("/device-groups", {}).status_code,
        caller.get("/audit-events").status_code,
    ]

    allowed = {
        Role.VIEWER: [200, 403, 403],
        Role.OPERATOR: [200, 400, 403],
        Role.ADMIN: [200, 400, 200],
    }
    assert found == allowed[scope]


def test_a_token_falls_with_the_role_of_its_person() -> None:
    person = PersonFactory.create(admin=True)
    _, text = make(person, Role.ADMIN)
    viewer = PersonFactory.create()

    person.groups.set(viewer.groups.all())

    problem_of(Caller(token=text).get("/audit-events"), 403)
    assert Caller(token=text).get("/devices").status_code == 200


def test_only_the_digest_is_kept() -> None:
    token, text = make(PersonFactory.create())

    assert text not in str(PersonalToken.objects.values().get())
    assert text.startswith(token.hint)
    assert len(token.hint) == 8


@pytest.mark.parametrize("text", ["hst_", "hst_x", "hst_" + "é" * 3, "hst_\x00"])
def test_an_unknown_token_is_401(text: str) -> None:
    problem_of(Caller(token=text).get("/devices"), 401, "token_invalid")


def test_a_token_ends() -> None:
    token, text = make(PersonFactory.create(), lifetime=timedelta(days=1))

    assert token_of(text, timezone.now())
    assert token_of(text, token.expires_at) is None


@pytest.mark.parametrize("days", [0, 367])
def test_a_token_without_a_sensible_end_is_refused(days: int) -> None:
    with pytest.raises(InvalidInputError):
        make(PersonFactory.create(), lifetime=timedelta(days=days))


def test_a_revoked_token_is_refused_at_once() -> None:
    person = PersonFactory.create()
    token, text = make(person)

    revoke_token(actor=person, user=person, token_id=token.pk, now=timezone.now())

    problem_of(Caller(token=text).get("/devices"), 401, "token_invalid")
    with pytest.raises(NotFoundError):
        revoke_token(actor=person, user=person, token_id=token.pk, now=timezone.now())
    verbs = AuditEvent.objects.order_by("id").values_list("verb", flat=True)
    assert list(verbs)[-2:] == ["person.token-created", "person.token-revoked"]


def test_tokens_end_with_their_person(admin: PersonCaller) -> None:
    disabled, reset = PersonFactory.create(), PersonFactory.create()
    texts = [make(each)[1] for each in (disabled, reset)]

    set_person_active(actor=admin.person, user_id=disabled.pk, is_active=False)
    set_person_active(actor=admin.person, user_id=disabled.pk, is_active=True)
    set_password(
        username=reset.username,
        password="told-by-an-admin",
        actor=admin.person,
        must_change=False,
    )

    for text in texts:
        problem_of(Caller(token=text).get("/devices"), 401, "token_invalid")


def test_there_are_fifty_at_most() -> None:
    person = PersonFactory.create()
    for number in range(MAX_TOKENS):
        make(person, name=str(number))

    with pytest.raises(TooManyTokensError):
        make(person)


def test_a_token_needs_no_code_but_its_person_a_second_factor(settings: Any) -> None:
    person = PersonFactory.create(admin=True)
    _, text = make(person, Role.ADMIN)
    settings.REQUIRE_MFA = "admins"

    problem_of(Caller(token=text).get("/devices"), 403, "second_factor_setup_required")
    add_app(person)

    assert Caller(token=text).get("/devices").status_code == 200


def test_tokens_that_ended_long_ago_are_tidied_away() -> None:
    token, _ = make(PersonFactory.create())

    enforce_policies(
        now=token.expires_at + timedelta(days=29), names=["personal-tokens"]
    )
    assert PersonalToken.objects.exists()
    enforce_policies(
        now=token.expires_at + timedelta(days=31), names=["personal-tokens"]
    )

    assert not PersonalToken.objects.exists()
