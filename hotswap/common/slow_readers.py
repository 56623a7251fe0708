"""Ends the connections of clients that do not take what they asked for.

64 KiB must be taken within 30 s. A WSGI application is not told its connection, and is
not asked for more while its client takes nothing. A watchdog looks at what Linux tells
of the connections that the server has accepted; elsewhere nothing is watched.
"""

import contextlib
import fcntl
import socket
import struct
import termios
import threading
import time

from django.conf import settings

from hotswap.common.body_timeouts import accepted_connections, tcp_info

PIECE_BYTES = 64 * 1024
LOOK_EVERY_SECONDS = 5.0
# Within `struct tcp_info` of Linux: what the client's system has received.
BYTES_ACKNOWLEDGED_AT = 120


class SlowReaders:
    """Breaks off the connections whose clients take too little of what was sent."""

    def __init__(self, piece_seconds: float) -> None:
        self._piece_seconds = piece_seconds
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look at all connections from now on, every few seconds."""
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._run, name="slow-readers", daemon=True
                    )
                    self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(LOOK_EVERY_SECONDS)
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Note how far each connection is; break off those that do not get on."""
        seen: dict[tuple[str, int], tuple[float, int]] = {}
        for connection, peer in accepted_connections():
            is_waiting, taken = progress(connection)
            if not is_waiting:
                continue
            since, had_taken = self._seen.get(peer, (now, taken))
            if taken - had_taken >= PIECE_BYTES:
                since, had_taken = now, taken
            seen[peer] = since, had_taken
            if now - since >= self._piece_seconds:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._seen = seen


def progress(connection: socket.socket) -> tuple[bool, int]:
    """Tell whether the client has yet to take something, and what it has taken."""
    try:
        waiting = fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4))
        (taken,) = struct.unpack_from("Q", tcp_info(connection), BYTES_ACKNOWLEDGED_AT)
    except (OSError, struct.error):
        # It has just been closed, or the system tells less.
        return False, 0
    return struct.unpack("i", waiting)[0] > 0, taken


slow_readers = SlowReaders(settings.DOWNLOAD_STALL_SECONDS)
