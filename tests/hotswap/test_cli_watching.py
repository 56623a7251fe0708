"""Watching a deployment from a pipeline: lines, exit codes, a server that comes back.

The server is a small one of these tests, so that it can be away, and its tokens end,
at the right moment.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deployments.choices import DeploymentStatus
from hotswap.cli.watching import EXIT_CODES
from tests.live import PROJECT_DIR, clean_environment

ID = "0b0f0c9e-5d0f-4a57-9a43-0f6f3c1f2a10"
COUNTS = dict.fromkeys(
    (
        *("pending", "notified", "downloading", "verifying", "installing"),
        *("rebooting", "confirming", "success", "failed", "rollingBack"),
        *("rolledBack", "skipped", "cancelled"),
    ),
    0,
)


def status(name: str, **changes: Any) -> dict[str, Any]:
    """Return an answer of the status route: a deployment of four devices."""
    done = changes.pop("success", 0)
    progress = COUNTS | {"total": 4, "pending": 4 - done, "success": done}
    stage = {"number": 1, "name": "100 %", "status": "open", "size": 4}
    return {
        "id": ID,
        "name": "nightly",
        "status": name,
        "waitingFor": None,
        "rollbackReason": "",
        "failureReason": "",
        "estimatedCompletionAt": None,
        "stage": stage | {"of": 1},
        "stages": [stage | progress],
        "progress": progress,
    } | changes


@dataclass
class Server:
    """Answers the status route with each of the answers, the last one for ever."""

    answers: list[Any]
    logins: int = 0
    asked: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str) -> tuple[int, Any]:
        if path.endswith("/auth/token"):
            self.logins += 1
            tokens = {"access": f"token-{self.logins}", "refresh": "r"}
            return 200, tokens | {"expiresIn": 900, "role": "Viewer"}
        self.asked.append(path)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return found if isinstance(found, tuple) else (200, found)


@pytest.fixture
def serving() -> Iterator[Any]:
    started = []

    def serve(*answers: Any) -> tuple[Server, str]:
        server = Server(list(answers))

        class Handler(BaseHTTPRequestHandler):
            def respond(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                self.rfile.read(length)
                code, document = server.answer(self.command, self.path)
                body = json.dumps(document).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = respond

            def log_message(self, *args: Any) -> None:
                pass

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=http.serve_forever, daemon=True).start()
        started.append(http)
        return server, f"http://127.0.0.1:{http.server_address[1]}"

    yield serve
    for http in started:
        http.shutdown()
        http.server_close()


def watch(
    address: str, tmp_path: Path, *words: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    login = {"HOTSWAP_USERNAME": "ci", "HOTSWAP_PASSWORD": "x"}
    return subprocess.run(
        [
            *(sys.executable, "-m", "hotswap.cli.main", "deployment", "watch", ID),
            *("--interval", "0.1", *words),
        ],
        cwd=PROJECT_DIR,
        env={
            **clean_environment(),
            "HOTSWAP_SERVER": address,
            "HOTSWAP_CONFIG_DIR": str(tmp_path),
            **(variables or login),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_end_of_a_deployment_has_an_exit_code_of_its_own() -> None:
    ends = {
        each.value
        for each in DeploymentStatus
        if each
        not in (
            DeploymentStatus.SCHEDULED,
            DeploymentStatus.PREPARING,
            DeploymentStatus.RUNNING,
            DeploymentStatus.PAUSED,
            DeploymentStatus.ROLLING_BACK,
        )
    }

    assert set(EXIT_CODES) == ends
    assert len(set(EXIT_CODES.values())) == len(ends)


def test_a_pipe_gets_a_line_for_each_change(serving: Any, tmp_path: Path) -> None:
    running = status("Running", waitingFor="4 devices to finish")
    _, address = serving(
        running, running, status("Running", success=2), status("Completed", success=4)
    )

    done = watch(address, tmp_path)

    assert done.returncode == 0, done.stderr
    lines = [line.split(" ", 1)[1] for line in done.stdout.splitlines()]
    assert lines == [
        "Running, stage 1 of 1 (100 %), 0 of 4 devices finished: 4 devices to finish",
        "Running, stage 1 of 1 (100 %), 2 of 4 devices finished, 2 proved",
        "Completed, stage 1 of 1 (100 %), 4 of 4 devices finished, 4 proved",
    ]
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("name", "code"), [("RolledBack", 10), ("Failed", 11), ("Cancelled", 12)]
)
def test_the_exit_code_says_how_it_ended(
    serving: Any, tmp_path: Path, name: str, code: int
) -> None:
    _, address = serving(status(name, failureReason="it could not be"))

    done = watch(address, tmp_path, "--json")

    assert done.returncode == code
    assert json.loads(done.stdout)["status"] == name
    assert "it could not be" in done.stderr


def test_watching_ends_in_time_and_says_that_the_deployment_goes_on(
    serving: Any, tmp_path: Path
) -> None:
    _, address = serving(status("Paused", waitingFor="an approval"))

    done = watch(address, tmp_path, "--timeout", "0.5")

    assert done.returncode == 13
    assert "Paused, not over; it goes on" in done.stderr


def test_a_server_that_is_away_is_asked_again(serving: Any, tmp_path: Path) -> None:
    away = (503, {"code": "unavailable", "detail": "restarting", "status": 503})
    server, address = serving(
        status("Running"), away, away, status("Completed", success=4)
    )

    done = watch(address, tmp_path)

    assert done.returncode == 0, done.stderr
    assert len(server.asked) == 4
    assert done.stderr.count("it is asked again") == 1
    assert "the server is back" in done.stderr


def test_a_server_that_stays_away_ends_it_at_last(tmp_path: Path) -> None:
    done = watch("http://127.0.0.1:9", tmp_path, "--timeout", "0.5", HOTSWAP_TOKEN="t")

    assert done.returncode == 3
    assert "does not answer" in done.stderr


def test_a_token_that_ends_meanwhile_is_renewed(serving: Any, tmp_path: Path) -> None:
    ended = (401, {"code": "token_expired", "detail": "expired", "status": 401})
    server, address = serving(status("Running"), ended, status("Completed", success=4))

    done = watch(address, tmp_path)

    assert done.returncode == 0, done.stderr
    assert server.logins == 2


def test_a_token_that_was_given_cannot_be_renewed(serving: Any, tmp_path: Path) -> None:
    ended = (401, {"code": "token_expired", "detail": "expired", "status": 401})
    server, address = serving(status("Running"), ended)

    done = watch(address, tmp_path, HOTSWAP_TOKEN="t")

    assert done.returncode == 4
    assert server.logins == 0


def test_a_terminal_is_drawn_on(serving: Any, tmp_path: Path) -> None:
    _, address = serving(status("Running"), status("Completed", success=4))
    reader, writer = os.openpty()
    variables = {"HOTSWAP_USERNAME": "ci", "HOTSWAP_PASSWORD": "x", "TERM": "xterm"}

    with subprocess.Popen(
        [
            *(sys.executable, "-m", "hotswap.cli.main", "deployment", "watch", ID),
            *("--interval", "0.1"),
        ],
        cwd=PROJECT_DIR,
        env={
            **clean_environment(),
            "HOTSWAP_SERVER": address,
            "HOTSWAP_CONFIG_DIR": str(tmp_path),
            **variables,
        },
        stdout=writer,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    ) as process:
        _, complaints = process.communicate(timeout=120)
    os.close(writer)
    drawn = os.read(reader, 1 << 16).decode()
    os.close(reader)

    assert process.returncode == 0, complaints
    assert "nightly" in drawn
    assert "4 of 4" in drawn
    assert "\x1b[" in drawn
