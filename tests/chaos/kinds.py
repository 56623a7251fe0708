"""The faults: each strikes, lasts a while, and is over when its function returns.

Whom it strikes and for how long is up to the chance of its scene. What takes longer to
be whole again is left to the site (`Site.repairs`).
"""

import contextlib
import os
import random
import shutil
import signal
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import psutil

from tests.chaos.clock import find_compiler
from tests.chaos.fleet import ChaosAdmin, ChaosDevice
from tests.chaos.links import Link
from tests.chaos.site import Host, Site, processes_of
from tests.deployments.agents import AgentDevice, direct, program, running_agents
from tests.deployments.fleet import Ledger, Rollout, frozen, redis_of
from tests.history import faults_in, read_history
from tests.waiting import wait_until

SHORTEST_SECONDS, LONGEST_SECONDS = 2.0, 7.0
# How far the clock of a host is set: no further than the checker of histories allows
# two clocks to differ.
STEPS_SECONDS = (-25, -10, 10, 25)
SLOW_LINK_SECONDS = 0.3
SLOW_DISK_MICROSECONDS = 100_000
KEPT_BYTES = 8192
BALLAST_BYTES = 1024 * 1024


@dataclass
class Scene:
    """What a fault strikes, and the chance that steers it."""

    site: Site
    admin: ChaosAdmin
    rollout: Rollout
    chance: random.Random
    folder: Path

    def host(self) -> Host:
        return self.chance.choice(list(self.site.hosts.values()))

    def last(self) -> None:
        """Let the fault last."""
        time.sleep(self.chance.uniform(SHORTEST_SECONDS, LONGEST_SECONDS))

    def devices(self) -> list[ChaosDevice]:
        return [each for each in self.rollout.devices if isinstance(each, ChaosDevice)]


Strike = Callable[[Scene], None]


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        is_shared: both hosts are without something while it lasts, so that the next
            tick is awaited from its end on.
        may_look_damaged: the images of the deployment may be taken for damaged.
        missing: why it cannot be tried here; empty if it can.
    """

    strike: Strike
    is_shared: bool = False
    may_look_damaged: bool = False
    missing: str = ""


# Programs and hosts


def _killed(name: str) -> Strike:
    def strike(scene: Scene) -> None:
        stack = scene.host().stack
        wait_until(lambda: stack.pid(name) is not None, what=name)
        with contextlib.suppress(ProcessLookupError):
            stack.kill(name)

    return strike


def _frozen(name: str) -> Strike:
    def strike(scene: Scene) -> None:
        stack = scene.host().stack
        wait_until(lambda: stack.pid(name) is not None, what=name)
        with frozen(stack.pid(name)):
            scene.last()

    return strike


def _lose_host(scene: Scene) -> None:
    scene.host().kill()
    scene.last()


def _step_clock(scene: Scene) -> None:
    host = next(each for each in scene.site.hosts.values() if each.clock)
    assert host.clock is not None
    host.clock.step(scene.chance.choice(STEPS_SECONDS))
    scene.last()
    host.clock.step(0)


# PostgreSQL, its standby, and their disks


@contextlib.contextmanager
def all_frozen(leader: int) -> Iterator[None]:
    """Freeze a process and all its children, which may be in groups of their own."""
    pids = processes_of(leader)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _kill_database(scene: Scene) -> None:
    scene.site.primary.kill()
    scene.last()
    scene.site.primary.start()


def _freeze_database(scene: Scene) -> None:
    process = scene.site.primary.process
    assert process is not None
    with all_frozen(process.pid):
        scene.last()


def _fail_over(scene: Scene) -> None:
    scene.site.fail_over()


def _kill_standby(scene: Scene) -> None:
    scene.site.standby.kill()
    scene.last()
    scene.site.standby.start()


@contextlib.contextmanager
def full_disk(place: Path) -> Iterator[None]:
    """Leave next to nothing free on the disk of a folder."""
    ballast = place / "ballast"
    with ballast.open("wb") as file:
        with contextlib.suppress(OSError):
            while shutil.disk_usage(place).free > KEPT_BYTES:
                left = shutil.disk_usage(place).free - KEPT_BYTES
                file.write(b"\0" * max(1, min(BALLAST_BYTES, left)))
                file.flush()
    try:
        yield
    finally:
        ballast.unlink()


def _fill_database_disk(scene: Scene) -> None:
    server = scene.site.primary
    with full_disk(server.postgres.folder.path):
        scene.last()
    if server.process is not None and server.process.poll() is not None:
        # It has given up, as PostgreSQL does without room for its log.
        server.kill()
        server.start()
    wait_until(server.postgres.is_ready, what="PostgreSQL after its disk was full")


def _slow_database_disk(scene: Scene) -> None:
    """Let each flush of the log take a tenth of a second longer."""
    server = scene.site.primary
    server.run(f"ALTER SYSTEM SET commit_delay = {SLOW_DISK_MICROSECONDS}")
    server.run("ALTER SYSTEM SET commit_siblings = 0")
    server.run("SELECT pg_reload_conf()")
    scene.last()
    server.run("ALTER SYSTEM RESET commit_delay")
    server.run("ALTER SYSTEM RESET commit_siblings")
    server.run("SELECT pg_reload_conf()")


# Redis and tasks


def _kill_redis(scene: Scene) -> None:
    pid = scene.site.supervisor.pid("redis")
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _freeze_redis(scene: Scene) -> None:
    with frozen(scene.site.supervisor.pid("redis")):
        scene.last()


def _empty_redis(scene: Scene) -> None:
    redis_of(scene.admin.stack).flushall()


# The bucket


def _lose_store(scene: Scene) -> None:
    scene.site.bucket.kill()
    scene.last()
    scene.site.bucket.start()


def _freeze_store(scene: Scene) -> None:
    process = next(
        each
        for each in psutil.Process().children()
        if "serve" in each.cmdline() and "s3" in each.cmdline()
    )
    with all_frozen(process.pid):
        scene.last()


def _slow_store(scene: Scene) -> None:
    with contextlib.ExitStack() as slowing:
        for host in scene.site.hosts.values():
            slowing.enter_context(host.bucket.slow(SLOW_LINK_SECONDS))
        scene.last()


def _lying_store(scene: Scene) -> None:
    """What was taken for damaged is whole again afterwards, once an Admin looks."""
    with contextlib.ExitStack() as lying:
        for host in scene.site.hosts.values():
            lying.enter_context(host.bucket.lying(scene.chance))
        scene.last()


def _fill_store(scene: Scene) -> None:
    """An upload meanwhile is refused, or its image is whole."""
    content = scene.chance.randbytes(2 * 1024 * 1024)
    with full_disk(scene.site.folder / "store"):
        model = scene.rollout.ledger.ask(
            "SELECT m.name FROM firmware_devicemodel m"
            " JOIN firmware_firmware f ON f.model_id = m.id"
            " JOIN deployments_deployment d ON d.firmware_id = f.id WHERE d.id = %s",
            scene.rollout.ledger.deployment,
        )
        answer = scene.admin.client.post(
            "/firmware",
            files={"file": ("image", content)},
            data={"model": model, "version": "9.0.0"},
        )
        scene.last()
    if answer.is_success:
        checked = scene.admin.post(f"/firmware/{answer.json()['id']}/verify", {}, 200)
        assert checked["damagedAt"] is None, "an image that was taken is not whole"
    else:
        assert answer.status_code in (503, 507), answer.text


# The network


def _some_link(scene: Scene, names: tuple[str, ...]) -> list[Link]:
    """Return the links from or to one host of the kind that chance draws."""
    host = scene.host()
    match scene.chance.choice(names):
        case "devices":
            return [scene.site.devices]
        case "web":
            return [host.web]
        case "database":
            return list(host.databases)
        case "redis":
            return [host.redis]
        case _:
            return [host.bucket]


def _on_link(
    name: str, fault: Callable[[Link], AbstractContextManager[None]]
) -> Strike:
    def strike(scene: Scene) -> None:
        with contextlib.ExitStack() as lasting:
            for link in _some_link(scene, (name,)):
                lasting.enter_context(fault(link))
            scene.last()

    return strike


def _expire_certificate(scene: Scene) -> None:
    """Devices refuse the proxy until it has a new one."""
    scene.site.certify(timedelta(seconds=-1))
    address = scene.admin.stack.url

    def is_refused() -> bool:
        try:
            httpx.get(f"{address}/health", timeout=20)
        except httpx.ConnectError as error:
            return "certificate" in str(error)
        except (httpx.HTTPError, ssl.SSLError):
            return False
        return False

    wait_until(is_refused, what="the expired certificate is refused")
    scene.last()
    scene.site.certify(timedelta(days=20))


# Messages and agents


def _mix_messages(scene: Scene) -> None:
    for device in scene.devices():
        device.mixes = random.Random(scene.chance.random())
    scene.last()


def _mix_tasks(scene: Scene) -> None:
    import celery
    from django.conf import settings

    names = [str(entry["task"]) for entry in settings.CELERY_BEAT_SCHEDULE.values()]
    with celery.Celery(broker=scene.site.redis.url) as sender:
        for _ in range(5):
            tasks = names * 3
            scene.chance.shuffle(tasks)
            for name in tasks:
                sender.send_task(name, expires=30)
            time.sleep(1)


def _agent(manner: Callable[[Scene, int], None]) -> Strike:
    """A real agent in a deployment of its own is struck until it has proved itself."""

    def strike(scene: Scene) -> None:
        admin = scene.admin
        name = f"agents-{scene.chance.randrange(16**8):08x}"
        admin.post("/device-models", {"name": name})
        old, new = program("1.0.0", 20_000), program("2.0.0", 300_000)
        admin.upload(name, "1.0.0", old)
        firmware = admin.upload(name, "2.0.0", new)
        device = AgentDevice(scene.folder / name, admin, name, old)
        with running_agents() as start:
            start(device)
            own = direct(admin, firmware, device.name)
            ledger = Ledger(admin.stack, own)
            for _ in range(scene.chance.randint(1, 3)):
                lines = ledger.lines() + scene.chance.randint(1, 3)
                wait_until(
                    lambda: ledger.lines() >= lines or ledger.status() == "Completed",  # noqa: B023
                    what="the moment of the next strike",
                )
                manner(scene, start.pid_of(device))
                if start.running[device.name].poll() is not None:
                    start(device)
            wait_until(
                lambda: ledger.status() == "Completed", what="the agent has proved it"
            )
            assert device.running_image() == new
        assert faults_in(read_history(scene.site.direct_url, own), {}) == []

    return strike


def _kill_agent(scene: Scene, group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    wait_until(lambda: not _lives(group), what="the agent is dead")


def _freeze_agent(scene: Scene, group: int) -> None:
    with contextlib.suppress(ProcessLookupError), frozen(group):
        scene.last()


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


NO_CLOCK = "" if find_compiler() else "no compiler of C: install `gcc`"
NO_DISK = "" if os.geteuid() == 0 else "only root may mount a small disk"
KINDS: dict[str, Kind] = {
    "web.killed": Kind(_killed("web")),
    "web.frozen": Kind(_frozen("web")),
    "worker.killed": Kind(_killed("worker")),
    "worker.frozen": Kind(_frozen("worker")),
    "beat.killed": Kind(_killed("beat")),
    "beat.frozen": Kind(_frozen("beat")),
    "host.lost": Kind(_lose_host),
    "host.clock_stepped": Kind(_step_clock, missing=NO_CLOCK),
    "database.killed": Kind(_kill_database, is_shared=True),
    "database.frozen": Kind(_freeze_database, is_shared=True),
    "database.failed_over": Kind(_fail_over, is_shared=True),
    "database.disk_full": Kind(_fill_database_disk, is_shared=True, missing=NO_DISK),
    "database.disk_slow": Kind(_slow_database_disk, is_shared=True),
    "standby.killed": Kind(_kill_standby, is_shared=True),
    "redis.killed": Kind(_kill_redis, is_shared=True),
    "redis.frozen": Kind(_freeze_redis, is_shared=True),
    "redis.emptied": Kind(_empty_redis, is_shared=True),
    "store.down": Kind(_lose_store),
    "store.frozen": Kind(_freeze_store),
    "store.slow": Kind(_slow_store),
    "store.lying": Kind(_lying_store, may_look_damaged=True),
    "store.disk_full": Kind(_fill_store, missing=NO_DISK),
    "cut.devices": Kind(_on_link("devices", Link.cut)),
    "cut.web": Kind(_on_link("web", Link.cut)),
    "cut.database": Kind(_on_link("database", Link.cut)),
    "cut.redis": Kind(_on_link("redis", Link.cut)),
    "cut.store": Kind(_on_link("store", Link.cut)),
    "silent.devices": Kind(_on_link("devices", Link.silent)),
    "silent.web": Kind(_on_link("web", Link.silent)),
    "silent.database": Kind(_on_link("database", Link.silent)),
    "silent.redis": Kind(_on_link("redis", Link.silent)),
    "half_open.web": Kind(_on_link("web", Link.half_open)),
    "half_open.database": Kind(_on_link("database", Link.half_open)),
    "half_open.redis": Kind(_on_link("redis", Link.half_open)),
    "certificate.expired": Kind(_expire_certificate),
    "messages.mixed": Kind(_mix_messages),
    "tasks.mixed": Kind(_mix_tasks),
    "agent.killed": Kind(_agent(_kill_agent)),
    "agent.frozen": Kind(_agent(_freeze_agent)),
}


def draw(seed: int, count: int) -> list[str]:
    """Draw so many kinds, each as often as the others, in an order of chance."""
    chance = random.Random(f"{seed}-kinds")
    drawn: list[str] = []
    while len(drawn) < count:
        deck = list(KINDS)
        chance.shuffle(deck)
        drawn += deck
    return drawn[:count]
