"""People at the API: made, invited, changed, shut out, erased."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from django.core import mail
from django.db import connection
from django.test import Client
from django.utils import timezone

from hotswap.common import people
from hotswap.common.errors import ConflictError, ForbiddenError
from hotswap.common.models import AuditEvent, PersonalToken, RefreshToken, User
from hotswap.common.personal_tokens import create_token
from hotswap.common.roles import Role
from hotswap.common.tokens import issue_token_pair
from tests.api import Caller, pointers, problem_of
from tests.callers import PersonCaller
from tests.common.factories import PASSWORD, PersonFactory
from tests.factors import add_app
from tests.words import says

NEW = "another-horse-and-battery"


def create(admin: Caller, **given: Any) -> Any:
    body = {"username": f"new-{uuid4().hex[:8]}", "role": "Operator", **given}
    return admin.post("/people", body)


def log_in(username: str, password: str) -> Any:
    return Caller().post("/auth/token", {"username": username, "password": password})


def address(person: User) -> str:
    return f"/people/{person.pseudonym}"


def test_a_new_person_logs_in_once_with_the_password_and_changes_it(
    admin: PersonCaller,
) -> None:
    made = create(admin, email="ada@example.com")

    person = made.json()
    assert made.status_code == 201
    assert made["Cache-Control"] == "no-store"
    shown = admin.get(made["Location"]).json()
    assert shown == {name: person[name] for name in shown}
    assert "password" not in shown
    assert shown["mustChangePassword"] is True
    token = log_in(person["username"], person["password"]).json()["access"]
    caller = Caller(token=token)
    problem_of(caller.get("/devices"), 403, "password_change_required")
    changed = caller.post(
        "/auth/password", {"currentPassword": person["password"], "newPassword": NEW}
    )
    caller = Caller(token=changed.json()["access"])
    assert caller.get("/devices").status_code == 200


def test_a_login_of_the_api_is_the_last_login(admin: PersonCaller) -> None:
    person = PersonFactory.create()
    path = f"/people/{person.pseudonym}"
    before = admin.get(path).json()["lastLoginAt"]

    Caller().post("/auth/token", {"username": person.username, "password": PASSWORD})

    assert before is None
    assert admin.get(path).json()["lastLoginAt"] is not None


def test_a_repeated_answer_does_not_show_the_password_again(
    admin: PersonCaller,
) -> None:
    body = {"username": "once", "role": "Viewer"}
    headers = {"Idempotency-Key": uuid4().hex}

    first = admin.post("/people", body, headers=headers).json()
    again = admin.post("/people", body, headers=headers).json()

    assert again == {**first, "password": None}
    assert User.objects.filter(username="once").count() == 1


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"username": ""}, "/username"),
        ({"username": "no spaces"}, "/username"),
        ({"username": "x" * 151}, "/username"),
        ({"role": "Device"}, "/role"),
        ({"role": "Root"}, "/role"),
        ({"email": "nobody"}, "/email"),
        ({"email": 7}, "/email"),
        ({"password": "mine"}, "/password"),
    ],
)
def test_a_person_is_made_of_what_is_valid(
    admin: PersonCaller, given: dict[str, Any], pointer: str
) -> None:
    before = User.objects.count()

    problem = problem_of(create(admin, **given), 400)

    assert set(pointers(problem)) == {pointer}
    assert User.objects.count() == before


def test_a_name_is_given_once_in_whatever_case(admin: PersonCaller) -> None:
    name = create(admin).json()["username"]

    problem_of(create(admin, username=name.upper()), 409, "name_taken")


def test_people_are_listed_and_found(admin: PersonCaller) -> None:
    operator = PersonFactory.create(operator=True, email="op@example.com")
    add_app(operator)
    off = PersonFactory.create()
    people.set_person_active(actor=admin.person, user_id=off.pk, is_active=False)

    def names(query: str) -> set[str]:
        page = admin.get(f"/people?{query}").json()
        return {each["username"] for each in page["results"]}

    assert names("") == {admin.person.username, operator.username, off.username}
    assert names("role=Operator") == {operator.username}
    assert names("enabled=false") == {off.username}
    assert names("search=OP@example") == {operator.username}
    shown = admin.get(address(operator)).json()
    assert shown["secondFactor"] is True
    problem_of(admin.get("/people?role=Device"), 400)


def test_role_and_address_are_changed_each_alone(admin: PersonCaller) -> None:
    person = PersonFactory.create(email="before@example.com")

    role = admin.patch(address(person), {"role": "Admin"}).json()
    email = admin.patch(address(person), {"email": ""}).json()

    assert (role["role"], role["email"]) == ("Admin", "before@example.com")
    assert (email["role"], email["email"]) == ("Admin", "")
    rows = AuditEvent.objects.filter(verb="person.changed").order_by("id")
    assert [row.details for row in rows] == [
        {"role": {"from": "Viewer", "to": "Admin"}},
        {"email": "removed"},
    ]


def test_disabled_people_are_out_and_enabled_ones_in_again(admin: PersonCaller) -> None:
    person = PersonFactory.create()
    pair = issue_token_pair(user=person)

    off = admin.post(f"{address(person)}/disable")

    assert off.json()["enabled"] is False
    problem_of(Caller(token=pair.access).get("/devices"), 401, "token_revoked")
    problem_of(log_in(person.username, PASSWORD), 401)
    assert admin.post(f"{address(person)}/enable").json()["enabled"] is True
    assert log_in(person.username, PASSWORD).status_code == 200


def test_a_reset_password_is_for_one_login(admin: PersonCaller) -> None:
    person = PersonFactory.create()
    pair = issue_token_pair(user=person)

    answer = admin.post(f"{address(person)}/reset-password")

    problem_of(Caller(token=pair.access).get("/devices"), 401)
    problem_of(log_in(person.username, PASSWORD), 401)
    token = log_in(person.username, answer.json()["password"]).json()["access"]
    problem_of(Caller(token=token).get("/devices"), 403, "password_change_required")


def test_lost_second_factors_are_reset(admin: PersonCaller) -> None:
    person = PersonFactory.create()
    add_app(person)
    pair = issue_token_pair(user=person)

    answer = admin.post(f"{address(person)}/reset-second-factors")

    assert answer.json()["secondFactor"] is False
    assert log_in(person.username, PASSWORD).status_code == 200
    problem_of(Caller().post("/auth/refresh", {"refresh": pair.refresh}), 401)
    verbs = AuditEvent.objects.values_list("verb", flat=True)
    assert "person.second-factors-reset" in verbs


@pytest.mark.parametrize(
    "deed", ["disable", "enable", "reset-password", "reset-second-factors"]
)
def test_nobody_acts_on_themselves(admin: PersonCaller, deed: str) -> None:
    problem_of(admin.post(f"{address(admin.person)}/{deed}"), 409, "own_account")


def test_nobody_changes_or_erases_themselves(admin: PersonCaller) -> None:
    own = address(admin.person)

    problem_of(admin.patch(own, {"role": "Viewer"}), 409, "own_account")
    problem_of(admin.delete(own), 409, "own_account")


def link_in(message: Any) -> str:
    found = re.search(r"http://testserver(/\S+)", message.body)
    assert found, message.body
    return found[1]


def choose(link: str, password: str = NEW) -> Any:
    client = Client()
    page = client.get(link, follow=True)
    where = page.redirect_chain[-1][0] if page.redirect_chain else link
    return client.post(where, {"password1": password, "password2": password})


def test_an_invitation_lets_a_person_choose_a_password_once(
    admin: PersonCaller,
) -> None:
    person = create(admin, email="ada@example.com").json()

    answer = admin.post(f"/people/{person['id']}/invite")

    assert answer.status_code == 204
    (message,) = mail.outbox
    assert message.to == ["ada@example.com"]
    assert person["password"] not in message.body
    link = link_in(message)
    assert b"too short" in choose(link, "short").content
    assert choose(link).status_code == 302
    token = log_in(person["username"], NEW).json()["access"]
    assert Caller(token=token).get("/devices").status_code == 200
    choose(link, "yet-another-horse-9")
    assert log_in(person["username"], NEW).status_code == 200
    verbs = list(AuditEvent.objects.order_by("id").values_list("verb", flat=True))
    assert verbs.count("person.invited") == 1
    assert verbs.count("person.password-changed") == 1


def test_an_invitation_goes_to_whoever_has_an_address_and_may_log_in(
    admin: PersonCaller,
) -> None:
    nowhere = PersonFactory.create()
    off = PersonFactory.create(email="off@example.com")
    people.set_person_active(actor=admin.person, user_id=off.pk, is_active=False)

    problem_of(admin.post(f"{address(nowhere)}/invite"), 409, "no_address")
    problem_of(admin.post(f"{address(off)}/invite"), 409, "disabled")

    assert mail.outbox == []


def test_a_mail_server_that_is_away_is_said(admin: PersonCaller, settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    person = PersonFactory.create(email="ada@example.com")

    problem_of(admin.post(f"{address(person)}/invite"), 503, "mail_unavailable")

    verbs = AuditEvent.objects.values_list("verb", flat=True)
    assert "person.invited" not in verbs


def test_an_erased_person_leaves_a_pseudonym(admin: PersonCaller) -> None:
    person = PersonFactory.create(
        operator=True, username="ada.lovelace", email="ada@example.com"
    )
    pair = issue_token_pair(user=person)
    _, text = create_token(
        user=person,
        name="ci",
        role=Role.VIEWER,
        lifetime=timedelta(days=1),
        now=timezone.now(),
    )
    add_app(person)
    Caller(token=pair.access).post(
        "/device-groups", {"name": "of ada", "description": ""}
    )
    before = AuditEvent.objects.filter(actor=person.pseudonym).count()

    answer = admin.delete(address(person))

    assert answer.status_code == 204
    for token in (pair.access, text):
        problem_of(Caller(token=token).get("/devices"), 401)
    problem_of(log_in("ada.lovelace", PASSWORD), 401)
    problem_of(admin.get(address(person)), 404)
    problem_of(admin.delete(address(person)), 404)
    assert not RefreshToken.objects.filter(user=person).exists()
    assert not PersonalToken.objects.exists()
    row = User.objects.values().get(pk=person.pk)
    assert not says(str({**row, "password": ""}), "ada")
    assert "lovelace" not in str(row)
    # The trail reads on, by the pseudonym.
    events = admin.get(f"/audit-events?actor={person.pseudonym}").json()["results"]
    assert len(events) == before > 0
    assert {each["actorName"] for each in events} == {
        f"erased-{str(person.pseudonym)[:8]}"
    }
    assert "lovelace" not in str(list(AuditEvent.objects.values()))
    # The name is free again.
    assert create(admin, username="ada.lovelace").status_code == 201


DEEDS = {
    "disable": lambda actor, other: people.set_person_active(
        actor=actor, user_id=other.pk, is_active=False
    ),
    "demote": lambda actor, other: people.change_person(
        actor=actor, user_id=other.pk, role=Role.VIEWER, email=""
    ),
    "erase": lambda actor, other: people.erase_person(actor=actor, user_id=other.pk),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("deed", DEEDS)
def test_three_admins_who_shut_each_other_out_at_once_leave_one(deed: str) -> None:
    admins = [PersonFactory.create(admin=True) for _ in range(3)]
    pairs = [(a, b) for a in admins for b in admins if a.pk != b.pk]
    barrier = Barrier(len(pairs))

    def act(pair: tuple[User, User]) -> None:
        try:
            barrier.wait(60)
            DEEDS[deed](*pair)
        except (ForbiddenError, ConflictError, people.NotFoundError):
            pass
        finally:
            connection.close()

    with ThreadPoolExecutor(len(pairs)) as pool:
        list(pool.map(act, pairs))

    left = [User.objects.get(pk=each.pk).role for each in admins]
    assert left.count(Role.ADMIN) == 1


def test_the_provider_cannot_take_the_role_of_the_last_admin(
    admin: PersonCaller,
) -> None:
    with pytest.raises(people.LastAdminError):
        people.give_role_of_provider(user=admin.person, role=Role.VIEWER)

    assert User.objects.get(pk=admin.person.pk).role is Role.ADMIN
