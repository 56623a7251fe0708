"""Clients that do not take what they asked for, over real sockets."""

import socket
from collections.abc import Iterator

import pytest

from hotswap.common.slow_readers import PIECE_BYTES, SlowReaders, progress
from tests.waiting import wait_until

PATIENCE = 30.0


@pytest.fixture
def watchdog() -> SlowReaders:
    """One that looks when it is told to."""
    return SlowReaders(PATIENCE)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client with little room, and the connection that was accepted from it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(60)
        client.connect(server.getsockname())
        accepted, _ = server.accept()
        accepted.setblocking(False)
        with client, accepted:
            yield client, accepted


def fill(accepted: socket.socket) -> None:
    """Send until nothing more goes."""
    try:
        while True:
            accepted.send(bytes(PIECE_BYTES))
    except BlockingIOError:
        pass


def is_open(accepted: socket.socket) -> bool:
    try:
        accepted.send(b"x")
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def test_a_client_that_takes_nothing_is_broken_off(
    ends: tuple[socket.socket, socket.socket], watchdog: SlowReaders
) -> None:
    _, accepted = ends
    fill(accepted)

    watchdog.look(0.0)
    watchdog.look(PATIENCE - 1)
    before = is_open(accepted)
    watchdog.look(PATIENCE)

    assert (before, is_open(accepted)) == (True, False)


def test_a_client_that_takes_a_little_is_broken_off(
    ends: tuple[socket.socket, socket.socket], watchdog: SlowReaders
) -> None:
    client, accepted = ends
    fill(accepted)

    watchdog.look(0.0)
    for second in range(1, 31):
        client.recv(100)
        watchdog.look(float(second))

    assert not is_open(accepted)


def test_a_client_that_goes_on_keeps_its_connection(
    ends: tuple[socket.socket, socket.socket], watchdog: SlowReaders
) -> None:
    client, accepted = ends
    fill(accepted)
    for span in range(5):
        watchdog.look(span * PATIENCE)
        _, taken = progress(accepted)
        wanted = taken + 2 * PIECE_BYTES
        while progress(accepted)[1] < wanted:
            client.recv(PIECE_BYTES)
            fill(accepted)

    watchdog.look(5 * PATIENCE)

    assert is_open(accepted)


def test_a_connection_that_owes_nothing_is_left_alone(
    ends: tuple[socket.socket, socket.socket], watchdog: SlowReaders
) -> None:
    client, accepted = ends
    accepted.send(b"all of it")
    assert client.recv(100) == b"all of it"
    wait_until(lambda: not progress(accepted)[0], what="all is acknowledged")

    for span in range(5):
        watchdog.look(span * PATIENCE)

    assert is_open(accepted)
