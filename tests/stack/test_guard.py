"""One program that is run, and ended once it does no work."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hotswap.stack.guard import Health
from hotswap.stack.healthcheck import is_healthy
from tests.live import PROJECT_DIR
from tests.waiting import wait_until

WAITS = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(7)); "
SAYS = "print('up', flush=True); time.sleep(600)"


class Address(ThreadingHTTPServer):
    """Answers with a status that a test sets."""

    status = 200
    asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/health"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Address)
        self.server.asked += 1
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def address() -> Iterator[Address]:
    server = Address(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def guard(
    address: Address, source: str, output: Path, seconds: float = 60
) -> "subprocess.Popen[bytes]":
    with output.open("wb") as log:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "hotswap.stack.guard"),
                *("--health", address.url, "--seconds", str(seconds), "--"),
                *(sys.executable, "-c", source),
            ],
            cwd=PROJECT_DIR,
            stdout=log,
            stderr=log,
        )


def test_it_ends_as_the_program_ends(address: Address, tmp_path: Path) -> None:
    ended = guard(address, "raise SystemExit(5)", tmp_path / "a").wait(60)
    killed = guard(address, "import os; os.kill(os.getpid(), 9)", tmp_path / "b").wait(
        60
    )

    assert (ended, killed) == (5, 128 + signal.SIGKILL)


def test_it_hands_signals_on(address: Address, tmp_path: Path) -> None:
    output = tmp_path / "output"
    process = guard(address, WAITS + SAYS, output)
    wait_until(lambda: "up" in output.read_text(), what="it runs")

    process.terminate()

    assert process.wait(60) == 7


def test_a_program_that_stops_to_work_is_killed(
    address: Address, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    process = guard(
        address,
        "import os, time; print(os.getpid(), flush=True); time.sleep(600)",
        output,
        seconds=0.1,
    )
    wait_until(lambda: address.asked > 0, what="it was healthy once")
    pid = int(output.read_text())
    assert process.poll() is None
    os.kill(pid, signal.SIGSTOP)

    address.status = 503

    assert process.wait(60) == 1
    said = json.loads(output.read_text().splitlines()[1])
    assert said["level"] == "CRITICAL"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_only_who_was_healthy_can_become_unhealthy() -> None:
    health = Health(limit_seconds=90)

    assert not any(health.is_over(False, now) for now in range(0, 1000, 5))
    assert not health.is_over(True, 1000)
    looks = {now: health.is_over(False, now) for now in range(1005, 1105, 5)}
    assert [now for now, is_over in looks.items() if is_over] == [1095, 1100]


def test_the_guards_own_sleep_does_not_count() -> None:
    health = Health(limit_seconds=90)
    assert not health.is_over(True, 0)
    assert not health.is_over(False, 5)

    assert not health.is_over(False, 500)
    assert not health.is_over(False, 505)


def test_an_address_is_asked_once(address: Address) -> None:
    assert is_healthy(address.url)
    address.status = 503
    assert not is_healthy(address.url)
    assert not is_healthy("http://127.0.0.1:1/")
    assert not is_healthy("nonsense")
