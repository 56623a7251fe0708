"""Real S3 servers on folders, which tests can end and start again."""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

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
        """Start it and wait until it listens."""
        assert self._process is None
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
