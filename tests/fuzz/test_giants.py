"""Bodies with one value that is far too long: refused soon, and never a 5xx."""

import random
import time

from tests.fuzz.application import send
from tests.fuzz.findings import FINDINGS, SEED
from tests.fuzz.giants import giants
from tests.fuzz.ground import Ground, undone
from tests.fuzz.judge import Judge

PART = "giants"
# Of one core. A usual one takes 10 ms; work that grows with the square takes hours.
MOST_SECONDS = 20.0


def test_no_giant_is_worked_on_for_long(ground: Ground, judge: Judge) -> None:
    for giant in giants(ground.names, random.Random(SEED)):
        request = giant.request.by(ground.tokens[giant.caller])
        route = f"{PART} {request.method} {giant.path}"
        began_at = time.thread_time()
        with undone():
            answer = send(request)
        seconds = time.thread_time() - began_at
        FINDINGS.count(PART, answer.status)
        for fault in judge.complaints(giant.path, request.method, answer):
            FINDINGS.add(route, f"{giant.place}: {fault}", request)
        if seconds > MOST_SECONDS:
            FINDINGS.add(route, f"{giant.place}: {seconds:.0f} s of CPU", request)

    assert FINDINGS.sent(PART) > 100
    assert not FINDINGS.of(PART)
