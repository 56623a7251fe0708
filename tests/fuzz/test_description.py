"""Requests drawn from the description: no 5xx, and every answer as it promises."""

import pytest
from django.db import connection

from tests.fuzz.application import send
from tests.fuzz.drawing import drawn
from tests.fuzz.findings import DRAWN, FINDINGS, SEED
from tests.fuzz.ground import Ground, undone
from tests.fuzz.judge import Judge
from tests.fuzz.names import CALLERS
from tests.fuzz.requests import Drawn, Order, Request

PART = "described"
# A round lays the ground anew: rows that were undone stay in the tables until the
# transaction ends, and every statement would walk over them.
ROUND = 12_500
ROUNDS = -(-DRAWN // ROUND)
CHECKS = "SET CONSTRAINTS ALL {}"


def try_out(judge: Judge, case: Drawn, request: Request, *, is_first: bool) -> None:
    """Send a request and note what is wrong with its answer."""
    route = f"{PART} {request.method} {case.path}"
    answer = send(request)
    FINDINGS.count(PART, answer.status)
    for fault in judge.complaints(case.path, request.method, answer):
        FINDINGS.add(route, fault, request)
    is_taken = answer.status < 400
    if is_taken and request.method != "GET":
        with connection.cursor() as cursor:
            # What would be refused at the commit only.
            cursor.execute(CHECKS.format("IMMEDIATE"))
            cursor.execute(CHECKS.format("DEFERRED"))
    if is_taken and (forbidden := judge.forbidden(case.path, request)):
        FINDINGS.add(route, f"takes {forbidden}", request)
    if is_first and case.is_valid and answer.status == 400:
        FINDINGS.refused[route, answer.body.decode()[80:300]] += 1


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_every_answer_is_as_the_description_has_it(
    ground: Ground, judge: Judge, round_: int
) -> None:
    share = min(ROUND, DRAWN - round_ * ROUND)
    # A seed has other rounds than the next seed.
    order = Order(names=ground.names, requests=share, seed=SEED + round_ * 1_000_003)
    sent, taken = FINDINGS.sent(PART), FINDINGS.taken(PART)
    earlier = FINDINGS.of(PART)

    for case in drawn(order):
        with undone():
            for caller in case.callers:
                request = case.request.by(ground.tokens[caller])
                try_out(judge, case, request, is_first=caller == case.callers[0])

    sent, taken = FINDINGS.sent(PART) - sent, FINDINGS.taken(PART) - taken
    assert sent >= order.requests - len(CALLERS)
    assert taken > sent // 20
    assert FINDINGS.of(PART) == earlier
