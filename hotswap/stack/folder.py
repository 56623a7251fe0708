"""The data folder of one stack: lock, secrets, ports, addresses, logs.

Rules:
- One stack a folder: a lock that the kernel drops when its holder dies.
- What a restarted program must find again (ports, passwords) is written once and kept.
- Everything secret is readable by its owner only.
- `stack.json` tells other programs where the running stack answers; it may be stale.
"""

import fcntl
import hashlib
import json
import os
import random
import socket
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from hotswap.common.secret_files import read_or_create_secret
from hotswap.stack.errors import StackError

# A socket's address holds 107 bytes; the longest name within the folder is
# `/.s.PGSQL.5432.lock`.
LONGEST_SOCKET_FOLDER = 107 - len("/.s.PGSQL.5432.lock")
# Below the range from which systems take ports for outgoing connections, which could
# otherwise occupy the port of a program between its end and its restart.
INTERNAL_PORTS = range(20000, 32000)
LOG_GENERATIONS = 3


class StackFolder:
    """The files of one stack below one folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.logs = self.path / "logs"
        self.secrets = self.path / "keys"
        self.state_file = self.path / "stack.json"
        self.targets_file = self.path / "prometheus-targets.json"
        self._lock_file: TextIO | None = None

    def create(self) -> None:
        """Make the folder and its parts.

        Raises:
            StackError: the folder cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            (self.path / "static").mkdir(exist_ok=True)
            self.secrets.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StackError(
                f"cannot use {self.path} as data folder: {error.strerror}; choose "
                "another with HOTSWAP_DATA_DIR"
            ) from error

    def lock(self) -> None:
        """Claim the folder until this process ends.

        Raises:
            StackError: another stack runs on it.
        """
        self._lock_file = (self.path / "lock").open("a+")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock_file.seek(0)
            holder = self._lock_file.read().strip() or "unknown"
            self._lock_file.close()
            self._lock_file = None
            raise StackError(
                f"another stack (process {holder}) runs on {self.path}; stop it, or "
                "choose another folder with HOTSWAP_DATA_DIR"
            ) from error
        self._lock_file.truncate(0)
        self._lock_file.write(f"{os.getpid()}\n")
        self._lock_file.flush()

    def unlock(self) -> None:
        """Let another stack have the folder."""
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def secret(self, name: str) -> str:
        """Return a password of an embedded server, made up at the first call."""
        return read_or_create_secret(self.secrets / f"{name}.password")

    def port(self, name: str) -> int:
        """Return a loopback port for a server: the one it had, if it is still free."""
        path = self.path / f"{name}.port"
        try:
            port = int(path.read_text())
        except (OSError, ValueError):
            port = 0
        if not port or not is_port_free(port):
            port = free_port()
            path.write_text(f"{port}\n")
        return port

    def socket_folder(self) -> Path:
        """Return a private folder whose name is short enough for a Unix socket.

        Raises:
            StackError: a folder of that name is there and open to others.
        """
        path = self.path / "run"
        if len(os.fsencode(path)) > LONGEST_SOCKET_FOLDER:
            digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
            path = Path(tempfile.gettempdir()) / f"hotswap-{os.getuid()}-{digest}"
        if len(os.fsencode(path)) > LONGEST_SOCKET_FOLDER:
            path = Path("/tmp") / path.name  # noqa: S108
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode) or stat.S_IMODE(status.st_mode) & 0o077:
                raise StackError(
                    f"{path} is open to others; remove it, or choose a data folder "
                    "with a shorter name"
                ) from None
        return path

    def rotate_log(self, name: str) -> Path:
        """Put the last run's log of a program aside and return the new one's path."""
        path = self.logs / f"{name}.log"
        if path.exists() and path.stat().st_size:
            for generation in range(LOG_GENERATIONS - 1, 0, -1):
                older = self.logs / f"{name}.log.{generation}"
                if older.exists():
                    older.replace(self.logs / f"{name}.log.{generation + 1}")
            path.replace(self.logs / f"{name}.log.1")
        return path

    def write_state(self, state: dict[str, Any]) -> None:
        """Write `stack.json` at once, readable by its owner only."""
        draft = self.state_file.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            json.dump(state, file, indent=2)
        draft.replace(self.state_file)

    def write_targets(self, addresses: Mapping[str, str]) -> None:
        """Write where Prometheus finds this stack, in the form of its `file_sd`.

        Args:
            addresses: host and port, by the name of the job.
        """
        targets = [
            {"targets": [address], "labels": {"job": job}}
            for job, address in addresses.items()
        ]
        draft = self.targets_file.with_suffix(".draft")
        draft.write_text(json.dumps(targets, indent=2))
        draft.replace(self.targets_file)

    def read_state(self) -> dict[str, Any]:
        """Return what `stack.json` says; empty where there is none."""
        try:
            state = json.loads(self.state_file.read_text())
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def forget_state(self) -> None:
        self.state_file.unlink(missing_ok=True)


def is_port_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a loopback port that no server uses at this moment."""
    chooser = random.SystemRandom()
    for _ in range(200):
        port = chooser.choice(INTERNAL_PORTS)
        if is_port_free(port):
            return port
    raise StackError("no free port between 20000 and 32000")


def may_enter(path: Path, user: int) -> bool:
    """Tell whether a user without special rights gets to a path through its parents."""
    for folder in path.parents:
        status = folder.stat()
        owns = status.st_uid == user
        if not status.st_mode & (stat.S_IXUSR if owns else stat.S_IXOTH):
            return False
    return True
