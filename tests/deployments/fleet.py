"""Devices at work in the background, and the faults that strike their server."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
import psutil
import psycopg
import redis

from tests.deployments.agents import QUICK_CRITERIA, new_model
from tests.deployments.live import LiveAdmin, LiveDevice, assert_right_history
from tests.live import PROJECT_DIR, LiveStack
from tests.waiting import wait_until

FINAL = ("Completed", "RolledBack", "Failed", "Cancelled")
WAIT_SECONDS = 2
STEP_SECONDS = 0.1
STOPPED_SECONDS = 3.0
# How long a case may take from its fault to its end.
PATIENCE_SECONDS = 120.0


@dataclass
class Ledger:
    """A deployment as its rows say it, read beside every server but PostgreSQL."""

    stack: LiveStack
    deployment: str

    def ask(self, query: str, *values: Any) -> Any:
        """Give the first column of the first row; None while PostgreSQL is away."""
        with contextlib.suppress(psycopg.Error):
            address = self.stack.state()["database_url"]
            with psycopg.connect(address, connect_timeout=2) as connection:
                row = connection.execute(query, values or None).fetchone()
                return row[0] if row else None
        return None

    def has(self, event: str, count: int = 1, *, stage: int | None = None) -> bool:
        """Say whether the log holds so many lines of an event."""
        found = self.ask(
            "SELECT count(*) FROM deployments_event WHERE deployment_id = %s"
            " AND event = %s AND (%s::int IS NULL OR stage_number = %s)",
            self.deployment,
            event,
            stage,
            stage,
        )
        return found is not None and found >= count

    def stages_moved(self) -> int:
        """Count how often a stage was opened, has settled or has passed."""
        return (
            self.ask(
                "SELECT count(*) FROM deployments_event WHERE deployment_id = %s"
                " AND event IN ('stage.opened', 'stage.settled', 'stage.passed')",
                self.deployment,
            )
            or 0
        )

    def lines(self) -> int:
        """Count the lines of the log; 0 while PostgreSQL is away."""
        return (
            self.ask(
                "SELECT count(*) FROM deployments_event WHERE deployment_id = %s",
                self.deployment,
            )
            or 0
        )

    def status(self) -> str | None:
        found: str | None = self.ask(
            "SELECT status FROM deployments_deployment WHERE id = %s", self.deployment
        )
        return found

    def next_check_is_near(self, seconds: float) -> bool:
        """Say whether the wait of a stage is as good as over."""
        return bool(
            self.ask(
                "SELECT next_check_at - now() < make_interval(secs => %s)"
                " FROM deployments_deployment WHERE id = %s",
                seconds,
                self.deployment,
            )
        )

    def last_tick(self) -> datetime | None:
        found: datetime | None = self.ask(
            "SELECT last_run_at FROM common_jobrun WHERE name = 'deployments-tick'"
        )
        return found


@dataclass
class Rollout:
    """A canary of 2.0.0 on devices that run 1.0.0, each at work by itself."""

    admin: LiveAdmin
    count: int = 5
    shares: tuple[int, ...] = (40, 100)
    devices: list[LiveDevice] = field(init=False)
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        model = new_model(self.admin)
        old = self.admin.upload(model, "1.0.0", b"old" * 1000)
        new = self.admin.upload(model, "2.0.0", b"new" * 1000)
        self.devices = self.admin.register(model, self.count, old)
        for device in self.devices:
            device.beat()
        launched = self.admin.post(
            "/deployments",
            {
                "firmwareId": new["id"],
                "strategy": "Canary",
                "targetDevices": [device.name for device in self.devices],
                "initialPercentage": self.shares[0],
                "increments": list(self.shares[1:]),
                "waitDuration": f"PT{WAIT_SECONDS}S",
                **QUICK_CRITERIA,
            },
        )
        self.ledger = Ledger(self.admin.stack, launched["id"])

    def end(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for the end, which must be the right one, reached the right way."""
        wait_until(
            lambda: self.ledger.status() in FINAL,
            seconds=seconds,
            what=f"the end of {self.ledger.deployment}",
        )
        assert self.ledger.status() == "Completed"
        assert self.ledger.has("device.updated", self.count)
        for device in self.devices:
            assert len(device.orders_seen) == 1, f"{device.name} had several orders"
        assert_right_history(self.admin.stack, self.ledger.deployment, self.devices)


@contextlib.contextmanager
def at_work(rollout: Rollout) -> Iterator[Rollout]:
    """Let each device take its steps, over and over, whatever the server does."""
    over = threading.Event()

    def live(device: LiveDevice) -> None:
        while not over.is_set():
            device.step_or_leave()
            over.wait(STEP_SECONDS)

    with ThreadPoolExecutor(len(rollout.devices)) as pool:
        lives = [pool.submit(live, device) for device in rollout.devices]
        try:
            yield rollout
        finally:
            over.set()
    for each in lives:
        each.result()


def is_up(stack: LiveStack) -> bool:
    """Say whether the server can serve requests."""
    try:
        return httpx.get(f"{stack.url}/health/ready", timeout=120).status_code == 200
    except httpx.HTTPError:
        return False


def wait_until_whole(stack: LiveStack, seconds: float = 60) -> None:
    """Wait until the server answers and a tick has run since now."""
    ledger = Ledger(stack, "")
    begun = ledger.ask("SELECT now()")
    wait_until(lambda: is_up(stack), seconds=seconds, what="the server answers")
    wait_until(
        lambda: _is_after(ledger.last_tick(), begun),
        seconds=seconds,
        what="ticks run again",
    )


def _is_after(moment: datetime | None, other: datetime | None) -> bool:
    return moment is not None and (other is None or moment > other)


# Faults

Strike = Callable[[LiveStack, str], None]


def kill(stack: LiveStack, name: str) -> None:
    """Kill one program; what it has started dies with it."""
    stack.kill(name)


def stop_awhile(stack: LiveStack, name: str, seconds: float = STOPPED_SECONDS) -> None:
    """Freeze one program and all it has started, and let them go on."""
    with frozen(stack.pid(name)):
        time.sleep(seconds)


@contextlib.contextmanager
def frozen(leader: int | None) -> Iterator[None]:
    """Freeze a process group; it need not exist any more at the end."""
    assert leader is not None
    os.killpg(leader, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGCONT)


STRIKES: dict[str, Strike] = {"kill": kill, "stop": stop_awhile}


def redis_of(stack: LiveStack) -> redis.Redis:
    return redis.Redis.from_url(stack.state()["redis_url"])


@contextlib.contextmanager
def another(
    stack: LiveStack, name: str, *arguments: str, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the same program of a stack a second time, under no supervision."""
    running = psutil.Process(stack.pid(name))
    variables: Mapping[str, str] = {**running.environ(), **environment}
    log = stack.data_dir / f"another-{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*running.cmdline(), *arguments],
            cwd=PROJECT_DIR,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
