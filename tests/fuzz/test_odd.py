"""Odd requests: no 5xx, and problem documents below `/api/`."""

import random

from tests.api import PROBLEM
from tests.fuzz.application import send
from tests.fuzz.findings import FINDINGS, ODD, SEED
from tests.fuzz.ground import Ground, undone
from tests.fuzz.judge import Judge
from tests.fuzz.names import CALLERS
from tests.fuzz.odd import plain, twisted

PART = "odd"


def test_no_odd_request_makes_the_server_fail(ground: Ground, judge: Judge) -> None:
    chance = random.Random(SEED)

    for _ in range(ODD):
        route = chance.choice(judge.routes)
        caller = chance.choice(CALLERS)
        request = plain(chance, route, ground.names.of).by(ground.tokens[caller])
        request = twisted(chance, request)
        with undone():
            answer = send(request)
        FINDINGS.count(PART, answer.status)
        is_of_api = "/api/" in request.target.partition("?")[0]
        kind = answer.headers.get("Content-Type")
        if answer.status >= 500:
            FINDINGS.add(PART, judge.failure(answer), request)
        elif answer.status >= 400 and is_of_api and kind != PROBLEM:
            FINDINGS.add(PART, f"{answer.status} as {kind}", request)

    assert not FINDINGS.of(PART)
