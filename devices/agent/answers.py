"""Answers that have to come within a time, however they trickle.

The time-out of a socket begins anew with each byte. A host that sends one byte of a
header now and then, interim answers (100) or trailers without end would hold the agent
in one call for as long as it likes, without a heartbeat.
"""

import http.client
import io
import socket
import time
from typing import Any


class TimedFile(io.RawIOBase):
    """What comes from a socket, until a moment that `begin` sets.

    The time is the socket's own time-out; without one there is no end.
    """

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection
        self._seconds = connection.gettimeout()
        self._file = connection.makefile("rb", buffering=0)
        self._ends_at = 0.0
        self.begin()

    def begin(self) -> None:
        """Allow as much time as a call may take from now on."""
        self._ends_at = time.monotonic() + (self._seconds or 0.0)

    def readable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        """See `io.RawIOBase`.

        Raises:
            TimeoutError: the time is over.
        """
        if self._seconds is not None:
            left = self._ends_at - time.monotonic()
            if left <= 0:
                raise TimeoutError("the answer takes too long")
            self._connection.settimeout(left)
        return self._file.readinto(buffer)

    def close(self) -> None:
        """See `io.IOBase`."""
        self._file.close()
        super().close()


class TimedResponse(http.client.HTTPResponse):
    """An answer whose head, and then each piece of its body, has a time-out's time."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self._timed = TimedFile(sock)
        self.fp = io.BufferedReader(self._timed)

    def begin(self) -> None:
        """See `HTTPResponse`."""
        self._timed.begin()
        super().begin()

    def read1(self, n: int = -1) -> bytes:
        """See `HTTPResponse`."""
        self._timed.begin()
        return super().read1(n)
