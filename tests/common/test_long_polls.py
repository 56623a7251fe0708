"""Requests that wait for news hold few threads, and not for long."""

import time

import pytest
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from hotswap.common.api.long_polls import LongPolls, wished_seconds


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=5", 5),
        ("respond-async, wait=7", 7),
        ("Wait = 9; strict", 9),
        ("wait=3600", 30),
        ("wait=999999999999", 0),
        ("wait=-1", 0),
        ("wait=soon", 0),
        ("await=5", 0),
        ("", 0),
    ],
)
def test_the_wish_is_read_leniently_and_bounded(header: str, seconds: int) -> None:
    request = Request(APIRequestFactory().get("/", HTTP_PREFER=header))

    assert wished_seconds(request) == seconds


def test_it_looks_until_there_is_news() -> None:
    looks = iter([False, False, True])
    pauses: list[float] = []

    waited = LongPolls(1).wait(lambda: next(looks), 30, pause=pauses.append)

    assert waited
    assert pauses == [1.0, 1.0, 1.0]
    assert next(looks, None) is None


def test_it_ends_with_its_time() -> None:
    began = time.monotonic()

    waited = LongPolls(1).wait(lambda: False, 0.05)

    assert waited
    assert time.monotonic() - began >= 0.05


def test_without_a_place_nobody_waits() -> None:
    polls = LongPolls(1)
    inner: list[bool] = []

    def is_news() -> bool:
        inner.append(polls.wait(lambda: True, 30))
        return True

    assert polls.wait(is_news, 30, pause=lambda _: None)
    assert inner == [False]
    # The place is free again, also after a look that failed.
    with pytest.raises(ZeroDivisionError):
        polls.wait(lambda: bool(1 / 0), 30, pause=lambda _: None)
    assert polls.wait(lambda: True, 30, pause=lambda _: None)


def test_without_time_nobody_looks() -> None:
    assert not LongPolls(1).wait(lambda: bool(1 / 0), 0)
