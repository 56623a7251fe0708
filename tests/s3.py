"""Real S3 servers on folders, which tests can end and start again."""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hotswap.stack.folder import free_port
from hotswap.stack.processes import kill_group
from tests.waiting import wait_until

RCLONE = Path(sys.executable).with_name("rclone")


@dataclass(slots=True)
class S3Server:
    """Where an S3 server answers, and the keys that it takes.

    It is signed and ranged, and takes uploads in parts.
    """

    folder: Path
    port: int = field(default_factory=free_port)
    # Shorter keys are refused by the server.
    access_key: str = field(default_factory=lambda: secrets.token_hex(10))
    secret_key: str = field(default_factory=lambda: secrets.token_hex(20))
    _process: subprocess.Popen[bytes] | None = field(init=False, default=None)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def make_bucket(self, name: str) -> str:
        """Make a bucket and return its name."""
        (self.folder / name).mkdir()
        return name

    def start(self) -> None:
        """Start it and wait until it listens; harmless if it runs."""
        if self._process is not None:
            return
        log = self.folder.with_name(f"{self.folder.name}.log")
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *(str(RCLONE), "serve", "s3", str(self.folder)),
                    *("--addr", f"127.0.0.1:{self.port}", "--config", os.devnull),
                    # Tests change the folder behind its back; at 0 it spins for ever.
                    *("--dir-cache-time", "5ms"),
                    *("--auth-key", f"{self.access_key},{self.secret_key}"),
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(self._listens, what="the S3 server listens")

    def kill(self) -> None:
        """End it at once, as a power cut would; harmless if it has ended."""
        if self._process is not None:
            kill_group(self._process.pid)
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


@contextlib.contextmanager
def serving_s3(folder: Path) -> Iterator[S3Server]:
    """Run an S3 server on a new folder for the length of a block."""
    folder.mkdir()
    server = S3Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def use_bucket(settings: Any, server: S3Server, bucket: str) -> None:
    """Have HotSwap keep its images in a bucket, as it is by default: frames."""
    settings.S3_BUCKET = bucket
    settings.S3_ENDPOINT = server.endpoint
    settings.S3_REGION = "us-east-1"
    settings.S3_ACCESS_KEY = server.access_key
    settings.S3_SECRET_KEY = server.secret_key
    settings.S3_CHECKSUMS = "when_required"


class TrippingProxy:
    """Passes bytes between clients and a server until something is to happen."""

    def __init__(self, port: int) -> None:
        self._target_port = port
        self._lock = threading.Lock()
        self._left: int | None = None
        self.passed_bytes = 0
        self._action: Callable[[], None] = lambda: None
        self._receiver = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._receiver.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, after_bytes: int, action: Callable[[], None]) -> None:
        """Do something when so many more bytes have passed, both ways together."""
        with self._lock:
            self._left, self._action = after_bytes, action

    @property
    def has_tripped(self) -> bool:
        return self._left is not None and self._left < 0

    def close(self) -> None:
        self._receiver.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._receiver.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                client.close()
                continue
            for source, target in ((client, server), (server, client)):
                threading.Thread(
                    target=self._pass_on, args=(source, target), daemon=True
                ).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(64 * 1024):
                self._count(len(data))
                target.sendall(data)
        # Both ends of the pair: a half that is cut is a whole that is cut.
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _count(self, length: int) -> None:
        with self._lock:
            self.passed_bytes += length
            if self._left is None or self._left < 0:
                return
            self._left -= length
            if self._left < 0:
                self._action()
