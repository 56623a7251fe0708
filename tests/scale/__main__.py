"""Run one to three whole hosts behind a real nginx, and let them come and go.

Each host is a `hotswap serve` with its own web server, worker, beat, ports and data
folder; PostgreSQL, Redis and a bucket are shared. The devices are the program of
`tests.load`, which repeats what is refused and counts it. In this order:

1. `upgrade`: the hosts run an earlier revision and are replaced one by one;
2. `3 hosts`, `2 hosts`, `1 host`: devices through one deployment, for the figures;
3. `lost`: amid a deployment one of three hosts is killed, and another one added.

All of it shares the cores of this machine with the devices, so that more hosts are not
faster here: what counts is the CPU of each part for a device, and the errors.

Exit code 1: a device was not proved, or saw an error other than that a web server takes
no more downloads at this moment; or no tick began for ten seconds.
"""

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg

from hotswap.stack.folder import StackFolder
from hotswap.stack.postgres import PostgresServer
from hotswap.stack.processes import Supervisor
from hotswap.stack.redis import RedisServer
from tests.devices.pki import Authority
from tests.devices.proxy import Nginx
from tests.earlier import NoHistoryError, find_earlier, put_earlier
from tests.live import ADMIN_PASSWORD, ADMIN_USERNAME, PROJECT_DIR, LiveStack
from tests.load.__main__ import IMAGE_BYTES, say
from tests.load.devices import build, send_devices
from tests.s3 import S3Server, serving_s3
from tests.waiting import wait_until

MODEL = "scale"
TAKEOVER_SECONDS = 10.0
CONFIRMATION_SECONDS = 1.0
# More downloads at once than the threads of a web server take: come again, in 5 s. That
# is no error, but is counted.
BUSY = "503 downloads_busy"
ENDS = ("Completed", "Failed", "RolledBack", "Paused")
LAST_TICK = """
    SELECT extract(epoch FROM clock_timestamp() - last_run_at)::float
    FROM common_jobrun WHERE name = 'deployments-tick'
"""
HOST_PROGRAMS = ("web", "worker", "beat")
SERVER_ENVIRONMENT = {
    # All devices call from one address.
    "HOTSWAP_LOGIN_FAILURES_PER_MINUTE": "1000000",
    # Devices are silent before their turn and after it; nobody is to be missed.
    "HOTSWAP_ONLINE_FLOOR_SECONDS": str(24 * 3600),
}


def cpu_of(pid: int | None) -> float:
    """Return the CPU seconds of a process and its children; 0 if it is gone."""
    total = 0.0
    with contextlib.suppress(psutil.Error, TypeError):
        leader = psutil.Process(pid)
        for process in (leader, *leader.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += sum(times[:4]) if process == leader else sum(times[:2])
    return total


class TickWatch:
    """Looks all the time how long ago the last tick began."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._over = threading.Event()
        self.longest = 0.0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "TickWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._over.wait(0.1):
                row = connection.execute(LAST_TICK).fetchone()
                if row is not None:
                    self.longest = max(self.longest, float(row[0]))


@dataclass
class Site:
    """The shared servers, the proxy, and the hosts behind it."""

    folder: Path
    postgres: PostgresServer
    redis: RedisServer
    servers: Supervisor
    bucket: S3Server
    nginx: Nginx
    authority: str
    proxy_secret: str
    hosts: dict[str, LiveStack] = field(default_factory=dict)
    client: httpx.Client = field(init=False)
    versions: int = 0

    @property
    def url(self) -> str:
        return f"https://localhost:{self.nginx.port}"

    def start_host(self, name: str, project: Path = PROJECT_DIR) -> LiveStack:
        """Start a host and give it work once it is ready."""
        data_dir = self.folder / f"host-{name}-{len(list(self.folder.iterdir()))}"
        known = self.folder / "keys"
        if known.exists():
            shutil.copytree(known, data_dir / "keys")
        stack = LiveStack(
            data_dir=data_dir,
            project=project,
            is_prepared=False,
            environment={
                **SERVER_ENVIRONMENT,
                "HOTSWAP_HOST_NAME": name,
                "HOTSWAP_DATABASE_URL": self.postgres.application_url,
                "HOTSWAP_DATABASE_OWNER_URL": self.postgres.url,
                "HOTSWAP_REDIS_URL": self.redis.url,
                "HOTSWAP_S3_BUCKET": "images",
                "HOTSWAP_S3_ENDPOINT": self.bucket.endpoint,
                "HOTSWAP_S3_REGION": "us-east-1",
                "HOTSWAP_S3_ACCESS_KEY": self.bucket.access_key,
                "HOTSWAP_S3_SECRET_KEY": self.bucket.secret_key,
                "HOTSWAP_S3_CHECKSUMS": "when_required",
                "HOTSWAP_PROXY_SECRET": self.proxy_secret,
            },
        )
        stack.start()
        stack.wait_ready()
        if not known.exists():
            shutil.copytree(data_dir / "keys", known)
        self.hosts[name] = stack
        self.name_hosts()
        return stack

    def stop_host(self, name: str) -> None:
        """Take a host out of the proxy, then end it in order."""
        stack = self.hosts.pop(name)
        self.name_hosts()
        stack.stop()

    def kill_host(self, name: str) -> None:
        """End a host at once, with all it has started, as a power cut would."""
        stack = self.hosts.pop(name)
        assert stack.process is not None
        for group in (stack.process.pid, *map(stack.pid, HOST_PROGRAMS)):
            if group is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
        stack.process.wait()

    def name_hosts(self) -> None:
        """Tell the proxy who is there."""
        if self.hosts:
            self.nginx.name_upstreams([each.port for each in list(self.hosts.values())])

    def log_in(self) -> None:
        self.client = httpx.Client(
            base_url=f"{self.url}/api/v1",
            verify=ssl.create_default_context(cadata=self.authority),
            timeout=120,
        )
        answer = self.client.post(
            "/auth/token",
            json={"username": ADMIN_USERNAME, "password": ADMIN_PASSWORD},
        )
        self.client.headers["Authorization"] = f"Bearer {answer.json()['access']}"

    def send(self, method: str, path: str, **more: Any) -> Any:
        """Send a request of the Admin, which must be granted."""
        answer = self.client.request(method, path, **more)
        if not answer.is_success:
            raise SystemExit(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def image(self) -> dict[str, Any]:
        self.versions += 1
        uploaded = self.send(
            "POST",
            "/firmware",
            files={"file": ("image", secrets.token_bytes(IMAGE_BYTES))},
            data={"model": MODEL, "version": f"{self.versions}.0.0"},
        )
        path = f"/firmware/{uploaded['id']}/approve"
        found: dict[str, Any] = self.send("POST", path, json={"comment": "scale"})
        return found

    def cpu_seconds(self) -> dict[str, float]:
        """Return what each part has used so far, of all hosts together."""
        found = {
            name: sum(cpu_of(host.pid(name)) for host in list(self.hosts.values()))
            for name in HOST_PROGRAMS
        }
        return found | {
            "postgres": cpu_of(self.servers.pid("postgres")),
            "redis": cpu_of(self.servers.pid("redis")),
            "proxy": cpu_of(self.nginx.pid),
        }


@contextlib.contextmanager
def site_in(folder: Path) -> Iterator[Site]:
    """Run the shared servers and the proxy; the hosts that are left end with them."""
    shared = StackFolder(folder / "servers")
    shared.create()
    postgres, redis = PostgresServer(shared), RedisServer(shared)
    servers = Supervisor([postgres.program(), redis.program()])
    servers.start()
    try:
        servers.wait_ready(120)
        authority = Authority("servers")
        (folder / "nginx").mkdir()
        secret = secrets.token_hex(16)
        with (
            serving_s3(folder / "buckets") as bucket,
            Nginx(
                folder / "nginx",
                upstream_ports=[9],
                secret=secret,
                server=authority.issue("localhost").write(folder, "server"),
            ) as nginx,
        ):
            bucket.make_bucket("images")
            site = Site(
                *(folder, postgres, redis, servers, bucket, nginx),
                *(authority.root.pem, secret),
            )
            try:
                yield site
            finally:
                for stack in site.hosts.values():
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        stack.stop()
    finally:
        servers.stop()


@dataclass
class Fleet:
    """The devices, and what they run."""

    site: Site
    program: Path
    devices: list[dict[str, str]]
    runs: dict[str, Any]

    def job(self, phase: str, at_once: int) -> dict[str, Any]:
        return {
            "url": self.site.url,
            "authority": self.site.authority,
            "devices": self.devices,
            "version": self.runs["version"],
            "checksum": self.runs["checksum"],
            "connections": 32,
            "atOnce": at_once,
            "pollSeconds": 1.0,
            "confirmationSeconds": CONFIRMATION_SECONDS + 0.05,
            "giveUpSeconds": 600,
            "phase": phase,
        }

    def prepare(self) -> None:
        self.devices = send_devices(self.program, self.job("prepare", 16))["devices"]

    def update(self, at_once: int = 64) -> dict[str, Any]:
        """Take all devices through one deployment of a new image."""
        site = self.site
        # Of a device, for a quarter of an hour.
        site.log_in()
        self.prepare()
        new = site.image()
        before, started = site.cpu_seconds(), time.perf_counter()
        deployment = site.send(
            "POST",
            "/deployments",
            json={
                "firmwareId": new["id"],
                "strategy": "Rolling",
                "targetAll": True,
                "batchSize": len(self.devices),
                "batchWaitDuration": "PT0S",
                "healthCriteria": {
                    "confirmationDuration": f"PT{CONFIRMATION_SECONDS:.0f}S",
                    "heartbeatsRequired": 1,
                },
                "acknowledge": ["whole_fleet", "no_previous_image"],
            },
        )
        seen = send_devices(self.program, self.job("update", at_once))
        self.runs = new
        wait_until(
            lambda: self.status(deployment["id"]) in ENDS,
            seconds=120,
            what="the end of the deployment",
        )
        seconds = time.perf_counter() - started
        used = {
            name: max(0.0, after - before[name])
            for name, after in site.cpu_seconds().items()
        }
        return {
            "status": self.status(deployment["id"]),
            "proved": seen["proved"],
            "seconds": round(seconds, 1),
            "devicesPerMinute": round(60 * len(self.devices) / seconds),
            "cpuMilliseconds": {
                name: round(1000 * each / len(self.devices), 2)
                for name, each in used.items()
            },
            "errors": seen["wrong"],
        }

    def status(self, deployment_id: str) -> str:
        """Read it beside the hosts, which come and go."""
        with psycopg.connect(self.site.postgres.url) as connection:
            row = connection.execute(
                "SELECT status FROM deployments_deployment WHERE id = %s",
                [deployment_id],
            ).fetchone()
        return str(row[0]) if row else ""

    def update_during(self, change: Callable[[], None]) -> dict[str, Any]:
        """Update the devices again and again until a change of the hosts is over."""
        found: dict[str, Any] = {"rounds": 0, "errors": {}, "proved": 0}
        failures: list[BaseException] = []

        def work() -> None:
            try:
                change()
            except BaseException as error:  # noqa: BLE001 - raised below
                failures.append(error)

        changing = threading.Thread(target=work)
        with TickWatch(self.site.postgres.url) as ticks:
            changing.start()
            try:
                while found["rounds"] == 0 or changing.is_alive():
                    seen = self.update(at_once=16)
                    found["rounds"] += 1
                    found["proved"] += seen["proved"]
                    found["status"] = seen["status"]
                    for kind, number in seen["errors"].items():
                        found["errors"][kind] = found["errors"].get(kind, 0) + number
            finally:
                # No host that it has begun to start is left running.
                changing.join()
        if failures:
            raise failures[0]
        found["longestWithoutTick"] = round(ticks.longest, 1)
        found["wanted"] = found["rounds"] * len(self.devices)
        return found


def run(count: int, hosts: int, folder: Path) -> dict[str, Any]:
    """Do all of it, and return the figures by phase."""
    program = build()
    names = ["a", "b", "c"][:hosts]
    found: dict[str, Any] = {"devices": count, "load": os.getloadavg()[0]}
    earlier = folder / "earlier"
    try:
        put_earlier(find_earlier(), earlier)
    except NoHistoryError as error:
        say(f"No earlier revision here, the present one is restarted: {error}")
        earlier = PROJECT_DIR
    with site_in(folder) as site:
        say(f"{hosts} hosts of an earlier revision start ...")
        for name in names:
            site.start_host(name, earlier)
        site.log_in()
        site.send("POST", "/device-models", json={"name": MODEL})
        first = site.image()
        devices = []
        for number in range(count):
            body = {"deviceId": f"scale-{number}", "model": MODEL}
            answer = site.send("POST", "/devices", json=body)
            devices.append(
                {"name": body["deviceId"], "key": answer["apiKey"], "token": ""}
            )
        fleet = Fleet(site, program, devices, first)
        fleet.prepare()

        def replace_all() -> None:
            for name in names:
                if len(site.hosts) > 1:
                    site.stop_host(name)
                    site.start_host(name)

        say("they are replaced one by one ...")
        found["upgrade"] = fleet.update_during(replace_all)
        say(json.dumps(found["upgrade"]))

        def lose_and_add() -> None:
            time.sleep(3)
            site.kill_host(names[-1])
            site.start_host("d")

        say("one is killed, and another one added ...")
        found["lost"] = fleet.update_during(lose_and_add)
        say(json.dumps(found["lost"]))
        while site.hosts:
            name = f"{len(site.hosts)} hosts"
            say(f"{name} ...")
            found[name] = fleet.update()
            say(json.dumps(found[name]))
            if len(site.hosts) == 1:
                break
            site.stop_host(next(iter(reversed(site.hosts))))
    return found


def faults_in(found: dict[str, Any]) -> Iterator[str]:
    """Say what is not as it must be."""
    for phase, seen in found.items():
        if not isinstance(seen, dict):
            continue
        wanted = seen.get("wanted", found["devices"])
        if seen["status"] != "Completed" or seen["proved"] != wanted:
            yield f"{phase}: {seen['proved']} of {wanted} proved, {seen['status']}"
        errors = {
            kind: number
            for kind, number in seen["errors"].items()
            if not kind.endswith(BUSY)
        }
        if errors:
            yield f"{phase}: devices saw {errors}"
        if seen.get("longestWithoutTick", 0.0) > TAKEOVER_SECONDS:
            yield f"{phase}: no tick for {seen['longestWithoutTick']} s"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--hosts", type=int, choices=(2, 3), default=3)
    parser.add_argument("--report", type=Path, default=Path("build/scale-report.json"))
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hotswap-scale-"))
    try:
        found = run(given.devices, given.hosts, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    given.report.parent.mkdir(parents=True, exist_ok=True)
    given.report.write_text(json.dumps(found, indent=2))
    faults = list(faults_in(found))
    for fault in faults:
        say(fault)
    say(f"All of it: {given.report}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
