"""Programs that live and do no work are noticed and started again."""

import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from hotswap.stack.processes import Program, Supervisor
from hotswap.stack.ticks import StallDetector, TickWatch, last_tick
from tests.waiting import wait_until

LOOK_SECONDS = 0.05
STUCK_SECONDS = 0.5


@contextlib.contextmanager
def watching(folder: Path, read: Callable[[], Any]) -> Iterator[Supervisor]:
    """Run a worker and a beat that do nothing, and watch their ticks."""
    supervisor = Supervisor(
        [
            Program(
                name=name,
                command=[sys.executable, "-S", "-c", "import time; time.sleep(600)"],
                log=folder / f"{name}.log",
            )
            for name in ("worker", "beat")
        ]
    )
    supervisor.start()
    supervisor.wait_ready(60)
    watch = TickWatch(
        supervisor,
        read=read,
        look_seconds=LOOK_SECONDS,
        stuck_seconds=STUCK_SECONDS,
        start_seconds=0,
    )
    watch.start()
    try:
        yield supervisor
    finally:
        watch.stop()
        supervisor.stop()


def test_frozen_worker_and_beat_are_started_again(tmp_path):
    with watching(tmp_path, lambda: "always the same") as supervisor:
        frozen = supervisor.pid("worker")
        os.kill(frozen, signal.SIGSTOP)

        wait_until(
            lambda: (
                supervisor.restarts("worker") == 1 and supervisor.restarts("beat") == 1
            ),
            what="both are started again",
        )

        assert supervisor.pid("worker") != frozen


@pytest.mark.parametrize(
    "marks",
    [itertools.count(), itertools.repeat(None)],
    ids=["ticks go on", "it cannot be told"],
)
def test_nothing_is_started_again_as_long_as(marks, tmp_path):
    enough = 3 * int(STUCK_SECONDS / LOOK_SECONDS)
    seen: list[Any] = []

    def read() -> Any:
        seen.append(next(marks))
        return seen[-1]

    with watching(tmp_path, read) as supervisor:
        wait_until(lambda: len(seen) > enough, what="it has looked long enough")

        assert supervisor.restarts("worker") == 0


def looks_until_started_again(stall: StallDetector, tick: Any = "the last") -> int:
    """Count the looks, of one second each, until the programs are started again."""
    return 1 + sum(
        1
        for _ in itertools.takewhile(
            lambda _: not stall.is_too_long(tick, True, 1.0), itertools.count()
        )
    )


def test_start_of_the_programs_has_time_of_its_own():
    stall = StallDetector(stuck_seconds=30, start_seconds=60)

    # The first look alone tells nothing.
    assert looks_until_started_again(stall) == 1 + 90


def test_start_that_takes_longer_has_twice_the_time_from_then_on():
    stall = StallDetector(stuck_seconds=30, start_seconds=60)
    looks_until_started_again(stall)
    stall.is_too_long("the last", False, 1.0)

    assert looks_until_started_again(stall) == 1 + 150

    stall.is_too_long("a new one", True, 1.0)
    assert looks_until_started_again(stall, "a new one") == 30


def test_programs_that_came_back_by_themselves_have_the_time_of_a_start():
    stall = StallDetector(stuck_seconds=30, start_seconds=60)
    for tick in range(5):
        stall.is_too_long(tick, True, 1.0)
    stall.is_too_long(4, False, 1.0)

    assert looks_until_started_again(stall, 4) == 1 + 90


@pytest.mark.stack
def test_last_tick_is_read_from_the_database(live_stack):
    address = live_stack.state()["database_url"]
    first = wait_until(lambda: last_tick(address), what="a first tick")

    wait_until(lambda: last_tick(address) != first, what="another tick")


@pytest.mark.stack
def test_ticks_are_seen_while_the_clock_of_another_host_is_ahead(live_stack):
    address = live_stack.state()["database_url"]
    wait_until(lambda: last_tick(address), what="a first tick")
    to_time = (
        "UPDATE common_jobrun SET last_run_at = now() + make_interval(secs => %s)"
        " WHERE name = 'deployments-tick'"
    )

    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(to_time, [290])
        try:
            first = last_tick(address)
            wait_until(lambda: last_tick(address) != first, what="another tick")
        finally:
            connection.execute(to_time, [0])


@pytest.mark.stack
def test_ticks_that_are_switched_off_are_not_missed(live_stack):
    address = live_stack.state()["database_url"]
    wait_until(lambda: last_tick(address), what="a first tick")
    switch = (
        "UPDATE django_celery_beat_periodictask SET enabled = %s"
        " WHERE name = 'deployments-tick'"
    )

    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(switch, [False])
        try:
            assert last_tick(address) is None
        finally:
            connection.execute(switch, [True])


def test_database_that_is_away_tells_nothing():
    assert last_tick("postgresql://nobody@127.0.0.1:1/nothing") is None
