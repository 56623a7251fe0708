"""Clients that ask for a long file and do not read it, at a live server."""

import socket

import httpx
import pytest

from tests.common.test_streams import LONG_FILE
from tests.live import LiveStack

pytestmark = pytest.mark.stack
# Several times the threads of the embedded stack.
CLIENTS = 48
LITTLE_BYTES = 2048


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
