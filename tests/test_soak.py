"""When `make soak` says that something grows."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.load.devices import PROGRAMS
from tests.soak.__main__ import UPDATED, Minute, judge


def flat(number: int) -> Minute:
    """Return a minute of a run in which only what is stored grows."""
    return Minute(
        memory=dict.fromkeys(PROGRAMS, 100.0),
        connections=11,
        disk=500.0 + 20 * number,
        p99={"heartbeat": 20.0, "poll": 10.0},
        proved=UPDATED,
        wrong={},
    )


def run_of(change: Callable[[int, Minute], Minute]) -> list[str]:
    return list(judge([change(number, flat(number)) for number in range(30)]))


def test_what_is_flat_after_its_first_third_passes() -> None:
    def fills_once(number: int, each: Minute) -> Minute:
        memory = dict.fromkeys(PROGRAMS, min(100.0, 10.0 * number))
        return replace(each, memory=memory, disk=each.disk + 50 * min(number, 9))

    assert run_of(fills_once) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda n, each: replace(each, memory={**each.memory, "web": 100.0 + 3 * n}),
            "memory of web: 144 MiB, then 174",
        ),
        (
            lambda n, each: replace(each, connections=11 + n // 4),
            "connections: 14, then 17",
        ),
        (
            lambda n, each: replace(each, disk=float(n * n)),
            "data folder, MiB a minute: 29.0, then 49.0",
        ),
        (
            lambda n, each: replace(each, p99={"heartbeat": 20.0, "poll": 4.0**n}),
            None,
        ),
        (
            lambda n, each: replace(each, proved=49 if n == 2 else UPDATED),
            "minute 3: 49 of 50 were updated",
        ),
        (
            lambda n, each: replace(each, wrong={"poll 500": 1} if n == 1 else {}),
            "minute 2: unexpected answers {'poll 500': 1}",
        ),
    ],
)
def test_what_grows_or_goes_wrong_is_named(
    change: Callable[[int, Minute], Minute], said: str | None
) -> None:
    (found,) = run_of(change)

    assert found == said if said else found.startswith("p99 of a poll: ")
