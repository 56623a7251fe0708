"""Reading a body without waiting for ever for a client that sends too slowly.

WSGI servers read with a call that blocks until the bytes are there and cannot be
broken off, so that a client that stops would keep its thread. A watchdog ends such a
read from the other side: it closes the reading half of the connection, upon which the
read returns, and the answer still reaches the client.

A WSGI application is not told its connection. The watchdog takes those that the server
accepted from the client's address and that have long been silent both ways; one that
merely idles between two requests may be closed with them, as a server always may.
Linux alone tells how long a connection has been silent: elsewhere nothing is watched,
and the proxy in front has to.
"""

import contextlib
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from firmware.exceptions import UploadStalledError

PIECE_BYTES = 64 * 1024
LOOK_EVERY_SECONDS = 1.0
OPEN_FILES = "/proc/self/fd"
# Within `struct tcp_info` of Linux: 8 single bytes, then numbers of 4, then of 8.
LAST_SENT_AT, LAST_RECEIVED_AT, BYTES_RECEIVED_AT = 44, 52, 128
TCP_INFO_BYTES = 136


class Body(Protocol):
    """What is read from; b"" is its end."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(slots=True)
class _Wait:
    """One read that has not returned yet."""

    address: str
    since: float
    patience_seconds: float
    is_given_up: bool = False


class PatientBody:
    """A body of which 64 KiB must arrive within each span, and all within another.

    Args:
        size: the bytes that it is said to have.

    Raises (from `read`):
        UploadStalledError: they did not.
    """

    def __init__(
        self,
        body: Body,
        *,
        address: str,
        size: int,
        piece_seconds: float,
        total_seconds: float,
    ) -> None:
        self._body = body
        self._address = address
        self._left = size
        self._is_given_up = False
        self._piece_seconds = piece_seconds
        self._ends_at = time.monotonic() + total_seconds

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, 64 KiB at most; b"" at the end."""
        now = time.monotonic()
        patience = min(self._piece_seconds, self._ends_at - now)
        if patience <= 0:
            raise self._stalled()
        wait = _Wait(self._address, now, patience)
        with watchdog.watching(wait):
            piece = self._body.read(min(size, PIECE_BYTES))
        self._left -= len(piece)
        self._is_given_up |= wait.is_given_up
        if self._is_given_up and not piece and self._left > 0:
            raise self._stalled()
        return piece

    def _stalled(self) -> UploadStalledError:
        return UploadStalledError(
            f"the body came too slowly: {PIECE_BYTES // 1024} KiB must arrive every "
            f"{self._piece_seconds:g} s; nothing of it was kept"
        )


class Watchdog:
    """Looks once a second at the reads that wait; rests while none does."""

    def __init__(self) -> None:
        self._by_id: dict[int, _Wait] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}

    @contextlib.contextmanager
    def watching(self, wait: _Wait) -> Iterator[None]:
        """Watch a read for as long as the block runs."""
        with self._changed:
            self._by_id[id(wait)] = wait
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="upload-watchdog", daemon=True
                )
                self._thread.start()
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                del self._by_id[id(wait)]

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._by_id))
            time.sleep(LOOK_EVERY_SECONDS)
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """End the reads that have waited too long."""
        with self._changed:
            overdue = [
                wait
                for wait in self._by_id.values()
                if now - wait.since >= wait.patience_seconds
            ]
            if not overdue:
                self._seen.clear()
                return
            silent: dict[str, float] = {}
            for wait in overdue:
                known = silent.get(wait.address, wait.patience_seconds)
                silent[wait.address] = min(known, wait.patience_seconds)
            for wait in self._by_id.values():
                # Before any of them returns. Whose connection is closed is not known:
                # those that are not simply go on.
                wait.is_given_up |= wait.address in silent
            for address, seconds in silent.items():
                self._close_silent(address, seconds, now)

    def _close_silent(self, address: str, seconds: float, now: float) -> None:
        """Close the reading half of connections that bring (almost) nothing."""
        for connection, peer in accepted_connections(address):
            sent_ago, received_ago, received = traffic(connection)
            if sent_ago < seconds:
                continue
            # A trickle is known by how little has come since an earlier look.
            seen_at, had_received = self._seen.setdefault(peer, (now, received))
            is_trickle = (
                now - seen_at >= seconds and received - had_received < PIECE_BYTES
            )
            if received_ago >= seconds or is_trickle:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)


def accepted_connections(
    address: str,
) -> Iterator[tuple[socket.socket, tuple[str, int]]]:
    """Give the connections that this process has accepted from an address.

    Those that it has opened itself, to its database for example, are not among them:
    their own port is none that it listens on.
    """
    with contextlib.ExitStack() as opened:
        sockets = []
        for name in _open_files():
            with contextlib.suppress(OSError):
                number = int(name)
                if stat.S_ISSOCK(os.fstat(number).st_mode):
                    copy = socket.socket(fileno=os.dup(number))
                    sockets.append(opened.enter_context(copy))
        sockets = [s for s in sockets if s.family in (socket.AF_INET, socket.AF_INET6)]
        listening = {
            s.getsockname()[1]
            for s in sockets
            if s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        }
        for each in sockets:
            with contextlib.suppress(OSError):
                peer = each.getpeername()[:2]
                if peer[0] == address and each.getsockname()[1] in listening:
                    yield each, peer


def _open_files() -> list[str]:
    try:
        return [path.name for path in Path(OPEN_FILES).iterdir()]
    except OSError:
        return []


def traffic(connection: socket.socket) -> tuple[float, float, int]:
    """Return the seconds since it sent and received data, and the bytes received."""
    try:
        found = connection.getsockopt(
            socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES
        )
        sent_ms, received_ms = (
            struct.unpack_from("I", found, at)[0]
            for at in (LAST_SENT_AT, LAST_RECEIVED_AT)
        )
        (received,) = struct.unpack_from("Q", found, BYTES_RECEIVED_AT)
    except (OSError, struct.error):
        # It has just been closed, or an old kernel tells less.
        return 0.0, 0.0, 0
    return sent_ms / 1000, received_ms / 1000, received


watchdog = Watchdog()
