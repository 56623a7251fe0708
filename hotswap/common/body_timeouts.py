"""Reading bodies without waiting for ever for clients that send too slowly.

Rules:
- The whole of a body must arrive within a time, of an upload a piece of it within
  another. WSGI servers read with a call that blocks until the bytes are there and
  cannot be broken off, so that a client that stops would keep its thread. A watchdog
  ends such a read from the other side: it closes the reading half of the connection,
  upon which the read returns, and the answer still reaches the client.
- A few reads at a time wait for their clients (`slots.py`), so that threads are left
  for requests without a body. One more is refused.
- Behind a proxy nothing is closed, as its connections are those of all its clients: the
  proxy has to take a body in before it passes it on.

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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from django.conf import settings
from django.http import HttpRequest

from hotswap.common.api.proxy import comes_from_proxy
from hotswap.common.slots import Slots, share_of_threads

PIECE_BYTES = 64 * 1024
LOOK_EVERY_SECONDS = 1.0
OPEN_FILES = "/proc/self/fd"
# Within `struct tcp_info` of Linux: 8 single bytes, then numbers of 4, then of 8.
LAST_SENT_AT, LAST_RECEIVED_AT, BYTES_RECEIVED_AT = 44, 52, 128
TCP_INFO_BYTES = 136


class StalledBodyError(OSError):
    """The body came too slowly, or not to its end."""


class TooManyBodiesError(OSError):
    """Too many bodies are being waited for; this one was not read."""


class Body(Protocol):
    """What is read from; b"" is its end."""

    def read(self, size: int, /) -> bytes: ...


class TimedInput:
    """A body of which 64 KiB must arrive within each span, and all within another.

    Args:
        size: the bytes that it is said to have; no more are read.
        address: of the client whose connection may be closed, or "".

    Attributes:
        failure: why it could not be read to its end.
        since, timeout_seconds: of the read that has not returned yet.
        is_given_up: whether its connection was closed for reading.

    Raises (from `read`):
        StalledBodyError: they did not arrive.
        TooManyBodiesError: too many others are being waited for.
    """

    __slots__ = (
        *("failure", "address", "since", "timeout_seconds", "is_given_up"),
        *("_body", "_left", "_piece_seconds", "_total_seconds", "_ends_at", "_slots"),
    )

    def __init__(
        self,
        body: Body,
        *,
        address: str,
        size: int,
        piece_seconds: float,
        total_seconds: float,
        slots: Slots,
    ) -> None:
        self.failure: OSError | None = None
        self.address = address
        self.since = self.timeout_seconds = 0.0
        self.is_given_up = False
        self._body = body
        self._left = size
        self._piece_seconds = piece_seconds
        self._total_seconds = total_seconds
        self._ends_at: float | None = None
        self._slots = slots

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes, fewer at the end; all that are left if negative."""
        wanted = self._left if size < 0 else min(size, self._left)
        pieces = []
        while wanted > 0:
            piece = self._read_piece(min(wanted, PIECE_BYTES))
            if not piece:
                break
            pieces.append(piece)
            wanted -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readline(self, size: int = -1) -> bytes:
        """Return what `read` does: nobody reads bodies by lines."""
        return self.read(size)

    def _read_piece(self, size: int) -> bytes:
        now = self.since = time.monotonic()
        if self._ends_at is None:
            self._ends_at = now + self._total_seconds
        self.timeout_seconds = min(self._piece_seconds, self._ends_at - now)
        if self.timeout_seconds <= 0:
            raise self._stalled()
        give_back = self._slots.take()
        if give_back is None:
            self.failure = TooManyBodiesError("too many bodies are being waited for")
            raise self.failure
        watchdog.watch(self)
        try:
            piece = self._body.read(size)
        finally:
            watchdog.leave(self)
            give_back()
        self._left -= len(piece)
        if self.is_given_up and not piece and self._left > 0:
            raise self._stalled()
        return piece

    def _stalled(self) -> StalledBodyError:
        self.failure = StalledBodyError(
            f"the body came too slowly: {PIECE_BYTES // 1024} KiB must arrive every "
            f"{self._piece_seconds:g} s, and all of it within {self._total_seconds:g} s"
        )
        return self.failure


def body_failure(request: HttpRequest) -> OSError | None:
    """Return why the body of a request could not be read; None if it could so far."""
    return getattr(request.META.get("wsgi.input"), "failure", None)


def content_length(variables: Mapping[str, Any]) -> int:
    """Return how many bytes a body is said to have; 0 where that is no number.

    Args:
        variables: those of the server, under CGI's names.
    """
    text = str(variables.get("CONTENT_LENGTH", ""))
    return int(text[:18]) if text.isascii() and text.isdigit() else 0


def timed_input(environ: dict[str, Any]) -> TimedInput:
    """Return the body of a request, to be read with the time-outs of its route."""
    path = environ.get("PATH_INFO", "")
    if path in settings.UPLOAD_ADDRESSES:
        slots = uploads
        piece_seconds = settings.UPLOAD_STALL_SECONDS
        total_seconds = settings.UPLOAD_MAX_SECONDS
    else:
        is_stranger = path.startswith(settings.STRANGERS_ADDRESSES)
        slots = strangers if is_stranger else others
        piece_seconds = total_seconds = settings.BODY_SECONDS
    return TimedInput(
        environ["wsgi.input"],
        address="" if comes_from_proxy(environ) else environ.get("REMOTE_ADDR", ""),
        size=content_length(environ),
        piece_seconds=piece_seconds,
        total_seconds=total_seconds,
        slots=slots,
    )


class Watchdog:
    """Looks once a second at the reads that wait; rests while none does.

    Dictionaries are changed and copied in one step each, so that no lock is needed.
    """

    def __init__(self) -> None:
        self._reading: dict[int, TimedInput] = {}
        self._is_resting = False
        self._wake = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}

    def watch(self, body: TimedInput) -> None:
        """Watch a read that is about to begin, unless its connection is a proxy's."""
        if not body.address:
            return
        self._reading[id(body)] = body
        if self._thread is None:
            self._start()
        if self._is_resting:
            self._wake.set()

    def leave(self, body: TimedInput) -> None:
        """Forget a read that has returned."""
        self._reading.pop(id(body), None)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="body-watchdog", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._is_resting = True
            # Whoever came before this was said has not woken anybody.
            if not self._reading:
                self._wake.wait()
            self._is_resting = False
            self._wake.clear()
            time.sleep(LOOK_EVERY_SECONDS)
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """End the reads that have waited too long."""
        reading = list(self._reading.values())
        silent: dict[str, float] = {}
        for body in reading:
            if now - body.since >= body.timeout_seconds:
                known = silent.get(body.address, body.timeout_seconds)
                silent[body.address] = min(known, body.timeout_seconds)
        if not silent:
            self._seen.clear()
            return
        for body in reading:
            # Before any of them returns. Whose connection is closed is not known:
            # those that are not simply go on.
            body.is_given_up |= body.address in silent
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
    address: str | None = None,
) -> Iterator[tuple[socket.socket, tuple[str, int]]]:
    """Give the connections that this process has accepted, all or from an address.

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
                is_wanted = address is None or peer[0] == address
                if is_wanted and each.getsockname()[1] in listening:
                    yield each, peer


def _open_files() -> list[str]:
    try:
        return [path.name for path in Path(OPEN_FILES).iterdir()]
    except OSError:
        return []


def tcp_info(connection: socket.socket) -> bytes:
    """Return what Linux tells of a connection, as far as it is read here.

    Raises:
        OSError: it has just been closed.
    """
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)


def traffic(connection: socket.socket) -> tuple[float, float, int]:
    """Return the seconds since it sent and received data, and the bytes received."""
    try:
        found = tcp_info(connection)
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
strangers = Slots(share_of_threads("strangers"))
uploads = Slots(share_of_threads("uploads"))
others = Slots(share_of_threads("others"))
