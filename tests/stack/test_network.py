"""The database behind a network that goes away without a word."""

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import pytest

from hotswap.common.postgresql.network import NOTICED
from hotswap.settings.base import database_from_url
from hotswap.stack.folder import StackFolder, free_port
from hotswap.stack.postgres import USER, PostgresServer
from hotswap.stack.processes import Supervisor
from tests.live import PROJECT_DIR, clean_environment
from tests.waiting import wait_until

# What HotSwap allows itself is 7 s; a busy machine takes longer to start a program.
NOTICED_SECONDS = 120
ASKING = """
import django
django.setup()
from django.db import OperationalError, connection
with connection.cursor() as cursor:
    cursor.execute("SELECT 1")
    print("asks", flush=True)
    try:
        cursor.execute("SELECT pg_sleep(3600)")
    except OperationalError:
        print("noticed", flush=True)
"""


def test_every_connection_notices_that_its_other_end_has_gone() -> None:
    options = database_from_url("postgresql://u:p@db1,db2/hotswap")["OPTIONS"]

    assert options.items() >= NOTICED.items()


def test_limits_of_the_address_come_first() -> None:
    url = "postgresql://u:p@db/hotswap?connect_timeout=30&keepalives_idle=60"

    options = database_from_url(url)["OPTIONS"]

    assert (options["connect_timeout"], options["keepalives_idle"]) == ("30", "60")
    assert options["keepalives_count"] == NOTICED["keepalives_count"]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass(frozen=True)
class Network:
    """A namespace, and the network between it and this one."""

    name: str
    own: str

    def vanish(self) -> None:
        """Lose every packet from now on."""
        ip("link", "set", f"{self.name}-0", "down")


@pytest.fixture
def network() -> Iterator[Network]:
    name = f"hs{secrets.token_hex(3)}"
    third = secrets.randbelow(200)
    try:
        ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no network namespaces here")
    try:
        ip(
            *("link", "add", f"{name}-0", "type", "veth"),
            *("peer", "name", f"{name}-1", "netns", name),
        )
        ip("addr", "add", f"10.213.{third}.1/30", "dev", f"{name}-0")
        ip("link", "set", f"{name}-0", "up")
        within = ("-n", name)
        ip(*within, "addr", "add", f"10.213.{third}.2/30", "dev", f"{name}-1")
        ip(*within, "link", "set", f"{name}-1", "up")
        yield Network(name, f"10.213.{third}.1")
    finally:
        ip("netns", "delete", name)
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("link", "delete", f"{name}-0")


@contextlib.contextmanager
def postgres_at(folder: Path, address: str, port: int) -> Iterator[str]:
    """Run a PostgreSQL that listens at an address; give its own for clients."""
    stack = StackFolder(folder)
    stack.create()
    server = PostgresServer(stack, careless=True)
    server.prepare()
    with (server.data / "pg_hba.conf").open("a") as access:
        access.write("host all all 10.213.0.0/16 scram-sha-256\n")
    program = server.program()
    command = [
        f"listen_addresses={address}" if each == "listen_addresses=" else each
        for each in program.command
    ]
    supervisor = Supervisor(
        [replace(program, command=[*command, "-c", f"port={port}"])]
    )
    supervisor.start()
    try:
        wait_until(
            lambda: (server.sockets / f".s.PGSQL.{port}").exists(), what="PostgreSQL"
        )
        yield (
            f"postgresql://{USER}:{quote(server.password)}@{address}:{port}/postgres"
        )
    finally:
        supervisor.stop()


@pytest.mark.campaign
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make networks")
def test_statement_ends_soon_where_the_network_has_vanished(
    network: Network, tmp_path: Path
) -> None:
    with postgres_at(tmp_path / "server", network.own, free_port()) as url:
        with subprocess.Popen(
            ["ip", "netns", "exec", network.name, sys.executable, "-c", ASKING],
            cwd=PROJECT_DIR,
            env={
                **clean_environment(),
                "DJANGO_SETTINGS_MODULE": "hotswap.settings.local",
                "HOTSWAP_DATABASE_URL": url,
                "HOTSWAP_DATA_DIR": str(tmp_path / "data"),
            },
            stdout=subprocess.PIPE,
            text=True,
        ) as asking:
            try:
                assert asking.stdout is not None
                assert asking.stdout.readline() == "asks\n"

                network.vanish()

                assert asking.communicate(timeout=NOTICED_SECONDS)[0] == "noticed\n"
            finally:
                asking.kill()
