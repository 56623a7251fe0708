"""A host behind the proxy that has vanished without a word."""

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

# nginx itself would wait for a minute for the host that does not answer.
PATIENCE_SECONDS = 45


class Answering(BaseHTTPRequestHandler):
    """A host that is there."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def answering() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


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


def test_the_next_host_is_asked_in_time(
    tmp_path: Path, answering: int, vanished: int
) -> None:
    authority = Authority("vanished")
    folder = tmp_path / "nginx"
    folder.mkdir()
    with (
        Nginx(
            folder,
            upstream_ports=[vanished, answering],
            secret="only-for-this-test",
            server=authority.issue("localhost").write(tmp_path, "server"),
        ) as nginx,
        httpx.Client(
            base_url=f"https://localhost:{nginx.port}",
            verify=ssl.create_default_context(cadata=authority.root.pem),
            timeout=PATIENCE_SECONDS,
        ) as client,
    ):
        answers = [client.get("/health").status_code for _ in range(4)]

    assert answers == [200] * 4
