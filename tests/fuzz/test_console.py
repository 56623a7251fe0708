"""Odd requests to the pages of the console, in three roles: no 5xx."""

import os
import random

from django.test import Client

from hotswap.common.roles import Role
from tests.common.factories import PersonFactory
from tests.factors import log_in_by_password
from tests.fuzz import console
from tests.fuzz.application import send
from tests.fuzz.findings import FINDINGS, SEED
from tests.fuzz.ground import Ground, undone
from tests.fuzz.judge import Judge
from tests.fuzz.requests import Request

PART = "console"
REQUESTS = int(os.environ.get("CONSOLE_REQUESTS") or 300)


def session(role: Role) -> str:
    """Log a person of a role in; return what the cookie holds."""
    client = Client()
    log_in_by_password(client, PersonFactory.create(role=role))
    return client.cookies["sessionid"].value


def test_no_odd_request_makes_a_page_fail(ground: Ground, judge: Judge) -> None:
    chance = random.Random(SEED)
    keys = console.known_keys()
    people = [session(role) for role in (Role.ADMIN, Role.OPERATOR, Role.VIEWER)]
    fields: dict[str, list[tuple[str, str]]] = {}
    places = console.addresses()

    for number in range(REQUESTS):
        place = places[number % len(places)]
        path = console.filled(chance, place, keys)
        who = chance.choices(people, (8, 1, 1))[0]
        headers = chance.choice(({}, console.HTMX))
        if chance.random() < 0.3 or path in console.lists():
            request = Request("GET", f"{path}?{console.query(chance, path)}", headers)
        else:
            if path not in fields:
                with undone():
                    page = send(console.with_login(Request("GET", path), people[0]))
                fields[path] = console.fields_of(page.body.decode(errors="replace"))
            body = console.form(chance, fields[path])
            request = Request(
                "POST", path, {**headers, "Content-Type": console.FORM}, body
            )
        with undone():
            answer = send(console.with_login(request, who))
        FINDINGS.count(PART, answer.status)
        if answer.status >= 500:
            FINDINGS.add(f"{PART} {place}", judge.failure(answer), request)

    assert FINDINGS.taken(PART) > REQUESTS // 10
    assert not FINDINGS.of(PART)
