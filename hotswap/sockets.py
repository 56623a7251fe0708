"""Keep little of an answer in the kernel, so that one that is broken off ends soon.

A socket takes in megabytes that a slow client has yet to fetch. What lies there is out
of reach: a device that is revoked in the middle of a download would go on receiving it
for minutes. With a low mark for unsent bytes the server stays only a little ahead of
the client, and is as fast as before with a quick one.
"""

import contextlib
import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

UNSENT_BYTES = 64 * 1024
TCP_NOTSENT_LOWAT = 25
OWN_FILES = Path("/proc/self/fd")


def limit_unsent() -> int:
    """Set the mark on each listening TCP socket; what it accepts inherits it.

    Returns:
        On how many sockets; 0 where the system is not Linux.
    """
    if sys.platform != "linux":
        return 0
    found = 0
    for file in OWN_FILES.iterdir():
        # A file that is no socket, or that another thread has closed meanwhile.
        with (
            contextlib.suppress(OSError),
            socket.socket(fileno=os.dup(int(file.name))) as each,
        ):
            if each.family in (socket.AF_INET, socket.AF_INET6) and each.getsockopt(
                socket.SOL_SOCKET, socket.SO_ACCEPTCONN
            ):
                each.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES)
                found += 1
    return found


class WithLittleUnsent:
    """Sets the mark at the first request: before it, the server may not listen yet."""

    def __init__(self, application: "WSGIApplication") -> None:
        self.application = application
        self.is_set = False

    def __call__(
        self, environ: dict[str, Any], start_response: "StartResponse"
    ) -> Iterable[bytes]:
        if not self.is_set:
            self.is_set = True
            limit_unsent()
        return self.application(environ, start_response)
