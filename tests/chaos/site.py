"""Two whole hosts behind a proxy, the servers that they share, and links between all.

    devices - link - nginx - link - host a (web, worker, beat) - links - database
                           - link - host b                               standby
                                                                         Redis, bucket

Each host has links of its own to PostgreSQL, its standby, Redis and the bucket. The
database lies in files of a small size of its own, as does the bucket, where root may
mount them; host b runs with a clock of its own, where there is a compiler of C.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psutil

from hotswap.stack.folder import StackFolder
from hotswap.stack.postgres import APPLICATION, DATABASE, PORT, USER
from hotswap.stack.processes import Supervisor
from hotswap.stack.redis import RedisServer
from tests.chaos.clock import Clock, find_compiler
from tests.chaos.links import Link
from tests.deployments.fleet import wait_until_whole
from tests.devices.pki import Authority
from tests.devices.proxy import Nginx
from tests.live import LiveStack
from tests.s3 import S3Server, serving_s3
from tests.standby import Server, acknowledge_together, follow, server_in

PROGRAMS = ("web", "worker", "beat")
DATABASE_DISK = "700m"
BUCKET_DISK = "64m"
WHOLE_SECONDS = 240


@dataclass
class Host:
    """One host, and the links that lead to it and from it."""

    name: str
    stack: LiveStack
    web: Link
    databases: tuple[Link, Link]
    redis: Link
    bucket: Link
    clock: Clock | None = None

    def links(self) -> tuple[Link, ...]:
        return (self.web, *self.databases, self.redis, self.bucket)

    def kill(self) -> None:
        """End everything on it at once, as a power cut would."""
        assert self.stack.process is not None
        for group in (self.stack.process.pid, *map(self.stack.pid, PROGRAMS)):
            if group is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
        self.stack.process.wait()


@dataclass(slots=True, kw_only=True)
class Entrance(LiveStack):
    """The site as devices and people see it; its rows are read beside all links."""

    site: "Site"

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def state(self) -> dict[str, Any]:
        return {"database_url": self.site.direct_url, "redis_url": self.site.redis.url}


@dataclass
class Site:
    """All of it.

    Attributes:
        servers: PostgreSQL, the primary first, and its standby.
    """

    folder: Path
    servers: list[Server]
    redis: RedisServer
    supervisor: Supervisor
    bucket: S3Server
    nginx: Nginx
    authority: Authority
    devices: Link
    proxy_secret: str
    hosts: dict[str, Host] = field(default_factory=dict)
    repairs: list[Callable[[], None]] = field(default_factory=list)

    @property
    def primary(self) -> Server:
        return self.servers[0]

    @property
    def standby(self) -> Server:
        return self.servers[1]

    @property
    def direct_url(self) -> str:
        places = [str(each.postgres.sockets) for each in self.servers]
        return self._database_url(places, USER, self.primary.postgres.password)

    @property
    def entrance(self) -> Entrance:
        return Entrance(
            site=self, data_dir=self.folder / "entrance", port=self.devices.port
        )

    def _database_url(self, places: list[str], user: str, password: str) -> str:
        hosts = ",".join(quote(each, safe="") for each in places)
        return (
            f"postgresql://{user}:{password}@/{DATABASE}"
            f"?host={hosts}&port={PORT}&target_session_attrs=read-write"
        )

    # Hosts

    def add_host(self, name: str) -> None:
        """Start a host for the first time, with the keys of the others."""
        data_dir = self.folder / name
        if self.hosts:
            keys = next(iter(self.hosts.values())).stack.data_dir / "keys"
            shutil.copytree(keys, data_dir / "keys")
        databases = []
        for number, server in enumerate(self.servers):
            place = self.folder / f"{name}{number}"
            place.mkdir()
            socket_name = f".s.PGSQL.{PORT}"
            databases.append(
                Link(place / socket_name, server.postgres.sockets / socket_name)
            )
        redis, bucket = Link.to_port(self.redis.port), Link.to_port(self.bucket.port)
        places = [str(self.folder / f"{name}{number}") for number in (0, 1)]
        postgres = self.primary.postgres
        redis_url = urlsplit(self.redis.url)
        environment = {
            "HOTSWAP_HOST_NAME": name,
            "HOTSWAP_DATABASE_URL": self._database_url(
                places, APPLICATION, postgres.application_password
            ),
            "HOTSWAP_DATABASE_OWNER_URL": self._database_url(
                places, USER, postgres.password
            ),
            "HOTSWAP_REDIS_URL": redis_url._replace(
                netloc=f":{self.redis.password}@127.0.0.1:{redis.port}"
            ).geturl(),
            "HOTSWAP_S3_BUCKET": "images",
            "HOTSWAP_S3_ENDPOINT": f"http://127.0.0.1:{bucket.port}",
            "HOTSWAP_S3_REGION": "us-east-1",
            "HOTSWAP_S3_ACCESS_KEY": self.bucket.access_key,
            "HOTSWAP_S3_SECRET_KEY": self.bucket.secret_key,
            "HOTSWAP_S3_CHECKSUMS": "when_required",
            "HOTSWAP_PROXY_SECRET": self.proxy_secret,
            "HOTSWAP_LOGIN_FAILURES_PER_MINUTE": "1000000",
        }
        clock = None
        if self.hosts and find_compiler():
            clock = Clock.make(self.folder, name)
            environment |= clock.environment
        stack = LiveStack(data_dir=data_dir, environment=environment, is_prepared=False)
        web = Link.to_port(stack.port)
        self.hosts[name] = Host(
            name, stack, web, (databases[0], databases[1]), redis, bucket, clock
        )
        stack.start()
        stack.wait_ready()
        self.nginx.name_upstreams([each.web.port for each in self.hosts.values()])

    def be_whole(self) -> None:
        """Mend what the last fault has left behind, and wait until all is well."""
        while self.repairs:
            self.repairs.pop()()
        for host in self.hosts.values():
            if host.stack.has_ended():
                host.stack.start()
                host.stack.wait_ready()
            wait_until_whole(host.stack, seconds=WHOLE_SECONDS)
        wait_until_whole(self.entrance, seconds=WHOLE_SECONDS)

    # Servers

    def fail_over(self) -> None:
        """Lose the primary, promote the standby, and have a new standby afterwards."""
        lost, promoted = self.servers
        lost.kill()
        promoted.run("SELECT pg_promote()")
        self.servers.reverse()
        self.repairs.append(self._follow)

    def _follow(self) -> None:
        follow(self.primary, self.standby)
        self.standby.start()
        acknowledge_together(self.primary, self.standby)

    def certify(self, ends_in: timedelta) -> None:
        """Give the proxy a certificate that ends then, or has ended."""
        new = self.authority.issue("localhost", ends_in=ends_in)
        new.write(self.folder / "nginx" / "own", "server")
        os.kill(self.nginx.pid, signal.SIGHUP)

    def close(self) -> None:
        for host in self.hosts.values():
            if not host.stack.has_ended():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    host.stack.stop()
            for link in host.links():
                link.close()
        self.devices.close()


def processes_of(leader: int) -> list[int]:
    """Return a process and all that it has started, in whatever groups."""
    process = psutil.Process(leader)
    return [leader, *(each.pid for each in process.children(recursive=True))]


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[bool]:
    """Give a folder a disk of its own, where root may; say whether it has one."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)],
        capture_output=True,
        check=False,
    )
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", str(place)], check=False)


@contextlib.contextmanager
def running_site() -> Iterator[Site]:
    """Run all of it on a folder of its own."""
    with contextlib.ExitStack() as ending:
        # The addresses of Unix sockets are short.
        folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        # PostgreSQL runs as an ordinary user, who must come in.
        folder.chmod(0o755)
        for name in ("db0", "db1"):
            ending.enter_context(small_disk(folder / name, DATABASE_DISK))
        servers = [server_in(folder / name) for name in ("db0", "db1")]
        for server in servers:
            ending.callback(server.kill)
        primary, standby = servers
        primary.start()
        # A slow disk is one that PostgreSQL waits for.
        for setting in ("fsync = on", "max_wal_size = '160MB'"):
            primary.run(f"ALTER SYSTEM SET {setting}")
        primary.run("SELECT pg_reload_conf()")
        follow(primary, standby)
        standby.start()
        acknowledge_together(primary, standby)
        shared = StackFolder(folder / "shared")
        shared.create()
        redis = RedisServer(shared)
        supervisor = Supervisor([redis.program()])
        supervisor.start()
        ending.callback(supervisor.stop)
        supervisor.wait_ready(120)
        ending.enter_context(small_disk(folder / "store", BUCKET_DISK))
        bucket = ending.enter_context(serving_s3(folder / "store" / "buckets"))
        bucket.make_bucket("images")
        authority = Authority("chaos")
        (folder / "nginx").mkdir()
        proxy_secret = secrets.token_hex(16)
        nginx = ending.enter_context(
            Nginx(
                folder / "nginx",
                upstream_ports=[9],
                secret=proxy_secret,
                server=authority.issue("localhost").write(folder, "server"),
            )
        )
        ca = folder / "ca.pem"
        ca.write_text(authority.root.pem)
        # Everybody here trusts this authority alone: devices, agents, people.
        before = os.environ.get("SSL_CERT_FILE")
        os.environ["SSL_CERT_FILE"] = str(ca)
        ending.callback(_put_back, "SSL_CERT_FILE", before)
        site = Site(
            *(folder, servers, redis, supervisor, bucket, nginx, authority),
            *(Link.to_port(nginx.port), proxy_secret),
        )
        ending.callback(site.close)
        for name in ("a", "b"):
            site.add_host(name)
        yield site


def _put_back(name: str, value: str | None) -> None:
    os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
