"""Bodies that come slowly, or not at all, over real sockets."""

import socket
import threading
from collections.abc import Iterator

import pytest

from firmware.api.patience import PIECE_BYTES, PatientBody, accepted_connections
from firmware.exceptions import UploadStalledError

LONG = 600.0


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client and the connection that this process accepted from it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname(), timeout=60)
        accepted, _ = server.accept()
        with client, accepted:
            yield client, accepted


def patient(
    accepted: socket.socket, piece_seconds: float = LONG, total: float = LONG
) -> PatientBody:
    return PatientBody(
        accepted.makefile("rb"),
        address="127.0.0.1",
        size=10 * PIECE_BYTES,
        piece_seconds=piece_seconds,
        total_seconds=total,
    )


def read_all(body: PatientBody) -> bytes:
    found = b""
    while piece := body.read(PIECE_BYTES):
        found += piece
    return found


def test_a_whole_body_comes_through(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    client, accepted = ends
    sent = bytes(range(256)) * 1300

    def write() -> None:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=write)
    thread.start()

    found = read_all(patient(accepted))
    thread.join()

    assert found == sent


@pytest.mark.parametrize("sent", [b"", b"the beginning"])
def test_a_body_that_stops_is_given_up_and_can_still_be_answered(
    ends: tuple[socket.socket, socket.socket], sent: bytes
) -> None:
    client, accepted = ends
    client.sendall(sent)

    with pytest.raises(UploadStalledError):
        read_all(patient(accepted, piece_seconds=0.2))

    accepted.sendall(b"too slow")
    assert client.recv(100) == b"too slow"


def test_a_trickle_is_given_up(ends: tuple[socket.socket, socket.socket]) -> None:
    client, accepted = ends
    ended = threading.Event()

    def trickle() -> None:
        while not ended.wait(0.05):
            client.sendall(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        with pytest.raises(UploadStalledError):
            read_all(patient(accepted, piece_seconds=0.5))
    finally:
        ended.set()
        thread.join()


def test_a_body_that_took_too_long_as_a_whole_is_given_up(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    client, accepted = ends
    client.sendall(b"x" * 10)
    body = patient(accepted, total=0.0)

    with pytest.raises(UploadStalledError):
        body.read(10)


def test_connections_that_this_process_opened_are_left_alone(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    client, accepted = ends

    peers = [peer for _, peer in accepted_connections("127.0.0.1")]

    assert client.getsockname() in peers
    assert accepted.getsockname() not in peers
