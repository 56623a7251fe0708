"""The shipped nginx before two web servers, one of which fails.

It ends amid every request, or its host has vanished without a word.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.devices.pki import Authority
from tests.devices.proxy import Nginx

# nginx itself would wait for a minute for a host that does not answer.
PATIENCE_SECONDS = 45


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Write no line."""


class Ending(Answering):
    """Takes the request, and is gone before it has answered."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def before(
    folder: Path, *ports: int, base: str = "", timeout: float = 60
) -> Iterator[httpx.Client]:
    """Run nginx before the servers of some ports, and give a client of it."""
    # Its temporary folders are those of the worker, which is `nobody` under root.
    for part in (folder, *folder.parents[:2]):
        part.chmod(0o755)
    authority = Authority("servers")
    with (
        Nginx(
            folder,
            upstream_ports=ports,
            secret="between-the-two-of-them",
            server=authority.issue("localhost").write(folder, "server"),
        ) as nginx,
        httpx.Client(
            base_url=f"https://localhost:{nginx.port}{base}",
            verify=ssl.create_default_context(cadata=authority.root.pem),
            timeout=timeout,
        ) as client,
    ):
        yield client


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[httpx.Client]:
    with (
        serving(Answering) as answering,
        serving(Ending) as ending,
        before(tmp_path, ending, answering, base="/api/v1") as client,
    ):
        yield client


@pytest.fixture
def vanished() -> Iterator[int]:
    """A port whose system drops who wants to connect, as its queue is full."""
    with contextlib.ExitStack() as held, socket.socket() as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.listen(0)
        for _ in range(8):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(receiver.getsockname())
        yield receiver.getsockname()[1]


@pytest.mark.parametrize(
    "path",
    [
        "/devices/d-1/health",
        "/devices/d-1/updates/5b1f6d1e-8d0c-4a55-9d0f-6a3f4a0c9d11/reports",
    ],
)
def test_what_devices_may_send_twice_is_asked_of_the_next_server(
    proxy: httpx.Client, path: str
) -> None:
    assert proxy.post(path, json={}).status_code == 200


def test_other_requests_are_not_sent_twice(proxy: httpx.Client) -> None:
    assert proxy.post("/deployments", json={}).status_code == 502


def test_the_next_host_is_asked_in_time(tmp_path: Path, vanished: int) -> None:
    with (
        serving(Answering) as answering,
        before(tmp_path, vanished, answering, timeout=PATIENCE_SECONDS) as client,
    ):
        answers = [client.get("/health").status_code for _ in range(4)]

    assert answers == [200] * 4
