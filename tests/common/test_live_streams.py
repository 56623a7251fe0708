"""Clients that do not read, and others that do not say anything, at a live server."""

import contextlib
import resource
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.common.test_streams import LONG_FILE
from tests.live import LiveStack

pytestmark = pytest.mark.stack
# Several times the threads of the embedded stack.
CLIENTS = 48
LITTLE_BYTES = 2048
# More than the server took in by its own default: 1,024 for each process.
SILENT = 1500


def ask(port: int) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LITTLE_BYTES)
    client.settimeout(120)
    client.connect(("127.0.0.1", port))
    client.sendall(f"GET {LONG_FILE} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return client


def test_clients_that_do_not_read_hold_up_nobody(live_stack: LiveStack) -> None:
    clients = [ask(live_stack.port) for _ in range(CLIENTS)]

    # Each is answered, though none of those before it has gone.
    statuses = [client.recv(12)[-3:] for client in clients]
    others = [
        httpx.get(live_stack.url + path, timeout=120).status_code
        for path in ("/health", "/health/ready", "/admin/login/")
    ]

    assert set(statuses) == {b"200", b"503"}
    assert others == [200, 200, 200]
    for client in clients:
        client.close()


@pytest.fixture
def open_files() -> Iterator[None]:
    """Let this process have many connections."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * SILENT
    if limits[1] != resource.RLIM_INFINITY and limits[1] < wanted:
        pytest.skip("this user may not have so many files open")
    if resource.RLIM_INFINITY != limits[0] < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def is_open(client: socket.socket) -> bool:
    """Tell whether the server has neither answered nor closed."""
    client.setblocking(False)
    try:
        client.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def test_silent_connections_keep_nobody_out(
    live_stack: LiveStack, open_files: None
) -> None:
    with contextlib.ExitStack() as clients:
        address = ("127.0.0.1", live_stack.port)
        silent = [
            clients.enter_context(socket.create_connection(address, timeout=120))
            for _ in range(SILENT)
        ]

        answer = httpx.get(f"{live_stack.url}/health", timeout=120)

        # It came while they were there: the server closes them after half a minute.
        still = sum(is_open(client) for client in silent)
    assert answer.status_code == 200
    assert still > SILENT // 2
