"""A real HotSwap in processes of its own, for tests that look from outside."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from hotswap.stack.folder import StackFolder, free_port
from hotswap.stack.postgres import USER
from tests.prepared import copy_prepared_database
from tests.waiting import wait_until

PROJECT_DIR = Path(__file__).resolve().parent.parent
# On a machine with much else to do a first start takes a minute and more.
READY_SECONDS = 300
ADMIN_USERNAME = "admin"
METRICS_TOKEN = "only-for-the-scrapes-of-tests"
ADMIN_PASSWORD = "correct-horse-battery-staple"
# Of the surroundings, only what does not steer HotSwap.
FOREIGN_PREFIXES = ("HOTSWAP_", "DJANGO_", "OTEL_", "PYTEST_")
QUICK = {
    "HOTSWAP_POLL_SECONDS": "1",
    "HOTSWAP_POLL_SECONDS_DEPLOYING": "1",
    "HOTSWAP_HEARTBEAT_SECONDS": "1",
    "HOTSWAP_HEARTBEAT_SECONDS_DEPLOYING": "1",
    "HOTSWAP_HEARTBEAT_SECONDS_AFTER": "1",
    "HOTSWAP_UPLOAD_STALL_SECONDS": "5",
}


def clean_environment() -> dict[str, str]:
    """Return this process's environment without what steers HotSwap."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(FOREIGN_PREFIXES)
    }


def superuser_url(data_dir: Path) -> str:
    """Return the address of an embedded database for whom nothing is forbidden there.

    HotSwap itself runs as a role that owns nothing.
    """
    state = json.loads((data_dir / "stack.json").read_text())
    password = StackFolder(data_dir).secret("postgres")
    address = urlsplit(state["database_url"])
    return address._replace(netloc=f"{USER}:{password}@").geturl()


@dataclass(slots=True, kw_only=True)
class LiveStack:
    """One `hotswap serve`, started by `start()` and ended by `stop()`.

    Attributes:
        environment: variables over the cleaned ones of this process.
        prefix: words before the command, to run it as another user.
        is_prepared: a new data folder begins with a copy of a migrated database, made
            once for all tests, rather than with an empty folder.
        project: folder of the source that is run.
    """

    data_dir: Path
    port: int = field(default_factory=free_port)
    environment: Mapping[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    is_prepared: bool = True
    project: Path = PROJECT_DIR
    output: Path = field(init=False)
    process: subprocess.Popen[bytes] | None = None

    admin_username: str = ADMIN_USERNAME
    admin_password: str = ADMIN_PASSWORD

    def __post_init__(self) -> None:
        self.output = self.data_dir.with_name(f"{self.data_dir.name}-output.txt")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it without waiting for anything."""
        environment = {
            **clean_environment(),
            # Of two cores, one is the tests'. Faults strike the default.
            "HOTSWAP_WEB_WORKERS": "1",
            "HOTSWAP_ADMIN_USERNAME": ADMIN_USERNAME,
            "HOTSWAP_ADMIN_PASSWORD": ADMIN_PASSWORD,
            "HOTSWAP_METRICS_TOKEN": METRICS_TOKEN,
            **QUICK,
            **self.environment,
        }
        if self.is_prepared and not self.prefix and not self.data_dir.exists():
            copy_prepared_database(self.data_dir)
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *self.prefix,
                    *(sys.executable, "-m", "hotswap.cli.main", "serve"),
                    *("--port", str(self.port), "--data-dir", str(self.data_dir)),
                ],
                cwd=self.project,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait until it says that it is ready."""
        wait_until(
            lambda: self.has_logged("HotSwap ready at") or self.has_ended(),
            seconds=READY_SECONDS,
            what=f"ready; see {self.output} and {self.data_dir / 'logs'}",
        )
        assert not self.has_ended(), self.said()

    def said(self) -> str:
        """Return what it has printed so far."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def has_logged(self, text: str) -> bool:
        return text in self.said()

    def has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def state(self) -> dict[str, Any]:
        """Return what `stack.json` says, with addresses and process ids."""
        with contextlib.suppress(OSError, ValueError):
            state = json.loads((self.data_dir / "stack.json").read_text())
            return dict(state)
        return {}

    def pid(self, name: str) -> int | None:
        """Return the process id of `web`, `worker`, `beat`, `redis`, `postgres`."""
        return self.state().get("programs", {}).get(name)

    def process_ids(self) -> set[int]:
        """Return the ids of all its processes, its own included."""
        assert self.process is not None
        supervisor = psutil.Process(self.process.pid)
        return {supervisor.pid} | {c.pid for c in supervisor.children(recursive=True)}

    def kill(self, name: str) -> int:
        """Kill one program at once and return its id."""
        pid = self.pid(name)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_ended(self, seconds: float = 180) -> int:
        """Wait until it has ended by itself, and return its exit code."""
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(
        self, number: signal.Signals = signal.SIGTERM, seconds: float = 180
    ) -> int:
        """Ask it to stop, wait, and return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def alive(pids: set[int]) -> set[int]:
    """Return those that still run; what only waits to be collected does not."""
    left = set()
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                left.add(pid)
    return left


@contextlib.contextmanager
def running_stack(
    data_dir: Path,
    *,
    environment: Mapping[str, str] | None = None,
    prefix: tuple[str, ...] = (),
    is_prepared: bool = True,
) -> Iterator[LiveStack]:
    """Start a stack, wait until it is ready, and stop it afterwards."""
    stack = LiveStack(
        data_dir=data_dir,
        environment=environment or {},
        prefix=prefix,
        is_prepared=is_prepared,
    )
    stack.start()
    try:
        stack.wait_ready()
        yield stack
    finally:
        stack.stop()
