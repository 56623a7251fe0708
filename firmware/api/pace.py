"""How many downloads run at a time, and how slowly each may.

A thread of the server is busy with a download until its client has taken it. Rules:

- A device has two at once, all together half of the threads of a process; one more is
  told to come again. So the other half is left for everything else.
- 64 KiB must be taken within 30 s, else the connection is broken off: the device goes
  on with a range where it stopped. A WSGI application is not told its connection, and
  is not asked for more while its client takes nothing. A watchdog looks at what Linux
  tells of the connections that the server has accepted; elsewhere nothing is watched.
"""

import contextlib
import fcntl
import socket
import struct
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from django.conf import settings
from rest_framework.exceptions import APIException, Throttled

from hotswap.common.patience import STUCK_SECONDS, accepted_connections, tcp_info

PER_DEVICE = 2
PIECE_BYTES = 64 * 1024
LOOK_EVERY_SECONDS = 5.0
COME_AGAIN_SECONDS = 5
# Within `struct tcp_info` of Linux: what the client's system has received.
BYTES_ACKNOWLEDGED_AT = 120


class DownloadsBusy(APIException):
    status_code = 503
    default_detail = "as many downloads run as the server takes; come again"
    default_code = "downloads_busy"
    wait = COME_AGAIN_SECONDS


class Downloads:
    """Counts the downloads of this process."""

    def __init__(self, most: int, watchdog: "SlowReaders") -> None:
        self._most = most
        self._watchdog = watchdog
        self._changed = threading.Condition()
        self._began_at: dict[object, float] = {}
        self._by_device: Counter[object] = Counter()

    def begin(self, device: object) -> Callable[[], None]:
        """Count one more; return what ends it, once, however often it is called.

        Raises:
            Throttled: the device has two (429).
            DownloadsBusy: all places are taken, and none will soon be free (503).
        """
        token = object()
        with self._changed:
            if self._by_device[device] >= PER_DEVICE:
                raise Throttled(
                    wait=COME_AGAIN_SECONDS,
                    detail=f"{PER_DEVICE} downloads of this device are under way.",
                )
            if not self._is_free() and not (
                self._may_soon_be_free()
                and self._changed.wait_for(self._is_free, STUCK_SECONDS)
            ):
                raise DownloadsBusy
            self._began_at[token] = time.monotonic()
            self._by_device[device] += 1
        self._watchdog.start()

        def end() -> None:
            with self._changed:
                if self._began_at.pop(token, None) is None:
                    return
                self._by_device[device] -= 1
                if not self._by_device[device]:
                    del self._by_device[device]
                self._changed.notify()

        return end

    def _is_free(self) -> bool:
        return len(self._began_at) < self._most

    def _may_soon_be_free(self) -> bool:
        before = time.monotonic() - STUCK_SECONDS
        return any(began_at > before for began_at in self._began_at.values())


class CountedPieces:
    """The pieces of a download, which ends with them, or when nobody has them."""

    def __init__(self, pieces: Iterator[bytes], end: Callable[[], None]) -> None:
        self._pieces = pieces
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except BaseException:
            self._end()
            raise

    def __del__(self) -> None:
        # Also where the client has gone before the first of them.
        self._end()


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
downloads = Downloads(max(1, settings.WEB_THREADS // 2), slow_readers)
