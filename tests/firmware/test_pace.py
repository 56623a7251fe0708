"""Downloads at once, and clients that do not take what they asked for."""

import gc
import socket
import threading
from collections.abc import Iterator

import pytest
from rest_framework.exceptions import Throttled

from firmware.api.pace import (
    PER_DEVICE,
    PIECE_BYTES,
    CountedPieces,
    Downloads,
    DownloadsBusy,
    SlowReaders,
    progress,
)
from tests.waiting import wait_until

PATIENCE = 30.0


class Resting(SlowReaders):
    """One that looks when it is told to."""

    def start(self) -> None:
        pass


@pytest.fixture
def watchdog() -> SlowReaders:
    return Resting(PATIENCE)


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


def test_a_device_has_two_downloads_at_once(watchdog: SlowReaders) -> None:
    downloads = Downloads(100, watchdog)
    end, _ = [downloads.begin("a") for _ in range(PER_DEVICE)]

    with pytest.raises(Throttled):
        downloads.begin("a")
    downloads.begin("b")
    end()
    end()
    downloads.begin("a")
    with pytest.raises(Throttled):
        downloads.begin("a")


def test_all_devices_have_so_many_at_once(
    watchdog: SlowReaders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firmware.api.pace.STUCK_SECONDS", 0.0)
    downloads = Downloads(2, watchdog)
    end, _ = downloads.begin("a"), downloads.begin("b")

    with pytest.raises(DownloadsBusy):
        downloads.begin("c")
    end()

    downloads.begin("c")


def test_a_place_that_is_soon_free_is_waited_for(
    watchdog: SlowReaders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firmware.api.pace.STUCK_SECONDS", 60.0)
    downloads = Downloads(1, watchdog)
    end = downloads.begin("a")
    thread = threading.Thread(target=lambda: downloads.begin("b"))
    thread.start()

    end()

    thread.join(60)
    assert not thread.is_alive()


def test_a_download_ends_with_its_pieces_or_without_its_receiver(
    watchdog: SlowReaders,
) -> None:
    downloads = Downloads(1, watchdog)

    def broken() -> Iterator[bytes]:
        yield b"a"
        raise LookupError

    assert list(CountedPieces(iter([b"a"]), downloads.begin("a"))) == [b"a"]
    pieces = CountedPieces(broken(), downloads.begin("a"))
    with pytest.raises(LookupError):
        list(pieces)
    abandoned = CountedPieces(iter([b"a"]), downloads.begin("a"))
    del abandoned
    gc.collect()

    downloads.begin("a")


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
