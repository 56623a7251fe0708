"""The shipped nginx before two web servers, one of which ends amid every request."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.devices.pki import Authority
from tests.devices.proxy import Nginx


class Answering(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

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


@pytest.fixture
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("nginx")
    # Its temporary folders are those of the worker, which is `nobody` under root.
    for part in (folder, *folder.parents[:2]):
        part.chmod(0o755)
    authority = Authority("servers")
    context = ssl.create_default_context(cadata=authority.root.pem)
    with (
        serving(Answering) as answering,
        serving(Ending) as ending,
        Nginx(
            folder,
            upstream_ports=[ending, answering],
            secret="between-the-two-of-them",
            server=authority.issue("localhost").write(folder, "server"),
        ) as nginx,
        httpx.Client(
            base_url=f"https://localhost:{nginx.port}/api/v1",
            verify=context,
            timeout=60,
        ) as client,
    ):
        yield client


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
