"""Servers that live and answer nobody are noticed and started again."""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from hotswap.monitoring.processes import program_restarts
from hotswap.stack.answers import (
    IDLE_SECONDS,
    AnswerWatch,
    FreezeDetector,
    redis_answers,
    web_answers,
)
from hotswap.stack.processes import Program, Supervisor
from tests.deployments.live import LiveAdmin
from tests.live import LiveStack
from tests.waiting import wait_until

LOOK_SECONDS = 0.05
FROZEN_SECONDS = 0.5
IDLE = "import time; time.sleep(600)"


@contextlib.contextmanager
def watching(folder: Path) -> Iterator[Supervisor]:
    """Run a program that answers nobody, and ask it."""
    supervisor = Supervisor(
        [
            Program(
                name="web",
                command=[sys.executable, "-S", "-c", IDLE],
                log=folder / "web.log",
            )
        ]
    )
    supervisor.start()
    supervisor.wait_ready(60)

    watch = AnswerWatch(
        supervisor,
        {"web": lambda: False},
        look_seconds=LOOK_SECONDS,
        frozen_seconds=FROZEN_SECONDS,
    )
    watch.start()
    try:
        yield supervisor
    finally:
        watch.stop()
        supervisor.stop()


def test_who_answers_nobody_is_started_again(tmp_path: Path) -> None:
    with watching(tmp_path) as supervisor:
        before = supervisor.pid("web")
        assert before is not None
        os.kill(before, signal.SIGSTOP)

        wait_until(lambda: supervisor.restarts("web") >= 1, what="a new start")

        assert supervisor.pid("web") != before
        assert supervisor.restarts_by_reason()["web"]["frozen"] >= 1


def test_silence_counts_from_the_last_answer_and_the_last_work() -> None:
    detector = FreezeDetector(frozen_seconds=20)

    assert not detector.is_frozen(7, 1.0, 100)
    assert not detector.is_frozen(7, 1.0, 119)
    assert detector.is_frozen(7, 1.0, 120)
    detector.has_answered()
    assert not detector.is_frozen(7, 1.0, 121)
    # It works, or is another process.
    assert not detector.is_frozen(7, 1.1 + IDLE_SECONDS, 141)
    assert not detector.is_frozen(8, 0.0, 161)
    assert detector.is_frozen(8, 0.0, 181)


def test_a_port_that_takes_connections_alone_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        assert not web_answers(port)
        assert not redis_answers(f"redis://:x@127.0.0.1:{port}/0")
    assert not web_answers(port)


@pytest.mark.stack
def test_frozen_servers_of_a_stack_are_started_again(
    live_stack: LiveStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("web", "redis", "postgres")
    admin = LiveAdmin(live_stack)
    before = {name: live_stack.pid(name) for name in names}
    for pid in before.values():
        leader = psutil.Process(pid)
        for process in (leader, *leader.children(recursive=True)):
            process.suspend()

    wait_until(
        lambda: not set(before.values()) & {live_stack.pid(name) for name in names},
        seconds=300,
        what="all three are started again",
    )

    def is_ready() -> bool:
        with contextlib.suppress(httpx.TransportError, AssertionError):
            return isinstance(admin.get("/device-models"), list | dict)
        return False

    wait_until(is_ready, seconds=300, what="it serves again")
    monkeypatch.setenv("HOTSWAP_SUPERVISED", "1")
    counted = {
        (program, reason): number
        for program, reason, number in program_restarts(live_stack.data_dir)
    }
    for name in names:
        assert counted[name, "frozen"] >= 1
