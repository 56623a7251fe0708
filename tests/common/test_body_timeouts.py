"""Bodies that come slowly, or not at all, over real sockets."""

import io
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from hotswap.common.body_timeouts import (
    PIECE_BYTES,
    StalledBodyError,
    TimedInput,
    TooManyBodiesError,
    accepted_connections,
    timed_input,
)
from hotswap.common.slots import Slots

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
) -> TimedInput:
    return TimedInput(
        accepted.makefile("rb"),
        address="127.0.0.1",
        size=10 * PIECE_BYTES,
        piece_seconds=piece_seconds,
        total_seconds=total,
        slots=Slots(4),
    )


def read_all(body: TimedInput) -> bytes:
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

    with pytest.raises(StalledBodyError):
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
        with pytest.raises(StalledBodyError):
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

    with pytest.raises(StalledBodyError):
        body.read(10)


def test_connections_that_this_process_opened_are_left_alone(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    client, accepted = ends

    peers = [peer for _, peer in accepted_connections("127.0.0.1")]

    assert client.getsockname() in peers
    assert accepted.getsockname() not in peers


def test_a_body_is_read_to_its_length_and_no_further() -> None:
    body = TimedInput(
        io.BytesIO(b"0123456789"),
        address="",
        size=6,
        piece_seconds=LONG,
        total_seconds=LONG,
        slots=Slots(1),
    )

    assert [body.read(4), body.read(), body.read(4)] == [b"0123", b"45", b""]


def test_one_more_than_may_wait_is_refused_and_later_ones_are_not(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    client, accepted = ends
    slots = Slots(1)
    begun, found = threading.Event(), []

    class Announced:
        def read(self, size: int, /) -> bytes:
            begun.set()
            return accepted.makefile("rb").read(1)

    def body(source: Any) -> TimedInput:
        return TimedInput(
            source,
            address="",
            size=1,
            piece_seconds=LONG,
            total_seconds=LONG,
            slots=slots,
        )

    thread = threading.Thread(target=lambda: found.append(body(Announced()).read()))
    thread.start()
    try:
        assert begun.wait(60)
        refused = body(io.BytesIO(b"y"))
        with pytest.raises(TooManyBodiesError):
            refused.read()
        assert isinstance(refused.failure, TooManyBodiesError)
    finally:
        client.sendall(b"x")
        thread.join()

    assert found == [b"x"]
    assert body(io.BytesIO(b"y")).read() == b"y"


def test_connections_of_a_proxy_are_left_alone(settings: Any) -> None:
    settings.PROXY_SECRET = "known to the proxy alone"
    environ = {
        "PATH_INFO": "/api/v1/devices",
        "CONTENT_LENGTH": "5",
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.input": io.BytesIO(b"12345"),
    }

    direct = timed_input(environ)
    proxied = timed_input(
        environ | {"HTTP_X_HOTSWAP_PROXY": f"{settings.PROXY_SECRET};192.0.2.7;NONE;"}
    )

    assert (direct.address, proxied.address) == ("192.0.2.1", "")


@pytest.mark.parametrize("length", ["", "-5", "five", "5, 6", "\xb2", "9" * 5000])
def test_an_odd_length_breaks_nothing(length: str) -> None:
    body = timed_input({"CONTENT_LENGTH": length, "wsgi.input": io.BytesIO(b"12345")})

    assert body.read() in (b"", b"12345")
