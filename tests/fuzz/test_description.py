"""Requests drawn from the description: no 5xx, and every answer as it promises."""

from django.db import connection

from tests.fuzz.application import send
from tests.fuzz.drawing import drawn
from tests.fuzz.findings import DRAWN, FINDINGS, SEED
from tests.fuzz.ground import Ground, undone
from tests.fuzz.judge import Judge
from tests.fuzz.names import CALLERS
from tests.fuzz.requests import Drawn, Order, Request

PART = "described"
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


def test_every_answer_is_as_the_description_has_it(
    ground: Ground, judge: Judge
) -> None:
    order = Order(names=ground.names, requests=DRAWN, seed=SEED)

    for case in drawn(order):
        with undone():
            for caller in case.callers:
                request = case.request.by(ground.tokens[caller])
                try_out(judge, case, request, is_first=caller == case.callers[0])

    assert FINDINGS.sent(PART) >= order.requests - len(CALLERS)
    assert FINDINGS.taken(PART) > FINDINGS.sent(PART) // 20
    assert not FINDINGS.of(PART)
