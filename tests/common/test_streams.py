"""Answers that are streamed: short ones are made whole, long ones have few slots."""

import gc
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.http import HttpResponse, StreamingHttpResponse
from django.test import Client, RequestFactory

from hotswap.common.slots import Slots
from hotswap.common.streams import WHOLE_BYTES, CountedPieces, StreamMiddleware
from tests.api import PROBLEM
from tests.common.watchdogs import Resting

PIECE = b"x" * 4096
LONG = WHOLE_BYTES // len(PIECE) + 1
LONG_FILE = "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"


@pytest.fixture(autouse=True)
def watchdog(monkeypatch: pytest.MonkeyPatch) -> Resting:
    resting = Resting(30.0)
    monkeypatch.setattr("hotswap.common.streams.slow_readers", resting)
    return resting


@pytest.fixture
def slots(monkeypatch: pytest.MonkeyPatch) -> Slots:
    """One slot, for which nobody waits."""
    made = Slots(1)
    monkeypatch.setattr("hotswap.common.streams.streams", made)
    monkeypatch.setattr("hotswap.common.slots.STUCK_SECONDS", 0.0)
    return made


def answer(pieces: int, path: str = "/admin/", **headers: str) -> Any:
    """Return what comes out of an answer of so many pieces."""

    def view(_: object) -> StreamingHttpResponse:
        return StreamingHttpResponse(
            (PIECE for _ in range(pieces)), status=206, headers=headers
        )

    return StreamMiddleware(view)(RequestFactory().get(path))


def test_a_short_answer_is_made_whole_and_takes_no_slot(slots: Slots) -> None:
    held = slots.take()

    response = answer(LONG - 1, **{"Content-Disposition": "attachment"})

    assert held is not None
    assert type(response) is HttpResponse
    assert response.content == PIECE * (LONG - 1)
    assert response.status_code == 206
    assert response["Content-Disposition"] == "attachment"


@pytest.mark.parametrize("pieces", [1, LONG])
def test_the_clients_of_each_are_watched(
    slots: Slots, watchdog: Resting, pieces: int
) -> None:
    answer(pieces)

    assert watchdog.is_asked


def test_a_long_answer_has_a_slot_until_its_end(slots: Slots) -> None:
    first = answer(LONG)
    refused = answer(LONG)
    content = b"".join(first.streaming_content)
    after = answer(LONG)

    assert content == PIECE * LONG
    assert refused.status_code == 503
    assert refused["Retry-After"] == "1"
    assert after.streaming


def test_a_program_is_refused_by_a_problem_document(slots: Slots) -> None:
    held = answer(LONG, "/api/v1/devices/export")

    refused = answer(LONG, "/api/v1/devices/export")

    assert held.streaming
    assert (refused.status_code, refused["Content-Type"]) == (503, PROBLEM)
    assert json.loads(refused.content)["code"] == "busy"
    assert refused["Retry-After"] == "1"


def test_long_static_files_are_counted_and_short_ones_are_not(
    client: Client, slots: Slots
) -> None:
    first, second = client.get(LONG_FILE), client.get(LONG_FILE)
    style = client.get("/static/unfold/css/styles.css")

    assert [each.status_code for each in (first, second, style)] == [200, 503, 200]
    assert not style.streaming


def test_an_answer_that_is_counted_elsewhere_takes_no_slot(
    slots: Slots,
) -> None:
    response = StreamingHttpResponse([PIECE] * LONG)
    response.is_counted = True  # type: ignore[attr-defined]

    StreamMiddleware(lambda _: response)(RequestFactory().get("/"))

    assert slots.take() is not None


def test_an_answer_ends_with_its_pieces_or_without_its_receiver(
    slots: Slots,
) -> None:
    def counted(pieces: Iterator[bytes]) -> CountedPieces:
        give_back = slots.take()
        assert give_back is not None
        return CountedPieces(pieces, give_back)

    def broken() -> Iterator[bytes]:
        yield b"a"
        raise LookupError

    assert list(counted(iter([b"a"]))) == [b"a"]
    with pytest.raises(LookupError):
        list(counted(broken()))
    abandoned = counted(iter([b"a"]))
    del abandoned
    gc.collect()

    assert slots.take() is not None
