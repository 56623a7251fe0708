"""HotSwap behind a real PgBouncer in transaction mode, by the shipped configuration."""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from hotswap.stack.folder import StackFolder, free_port
from hotswap.stack.postgres import DATABASE, PORT, USER, PostgresServer
from hotswap.stack.processes import Program, Supervisor
from tests.deployments.agents import (
    AgentDevice,
    direct,
    new_model,
    program,
    running_agents,
)
from tests.deployments.live import LiveAdmin
from tests.live import PROJECT_DIR, running_stack
from tests.pgbouncer import find_pgbouncer
from tests.waiting import wait_until

SHIPPED = PROJECT_DIR / "deploy" / "pgbouncer" / "pgbouncer.ini"
# Of both entries together.
MOST_CONNECTIONS = 20


@dataclass(frozen=True, slots=True)
class Pooler:
    """A PgBouncer before a PostgreSQL of its own."""

    port: int
    password: str
    database: PostgresServer

    def url(self, entry: str) -> str:
        return (
            f"postgresql://{USER}:{quote(self.password)}@127.0.0.1:{self.port}/{entry}"
        )


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def pooler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooler]:
    found = find_pgbouncer()
    assert found, "no PgBouncer: run `make proxy`"
    folder = StackFolder(tmp_path_factory.mktemp("pooler") / "servers")
    folder.create()
    postgres = PostgresServer(folder, careless=True)
    port = free_port()
    users = postgres.home / "userlist.txt"
    users.write_text(f'"{USER}" "{postgres.password}"\n')
    settings = postgres.home / "pgbouncer.ini"
    text = SHIPPED.read_text()
    for old, new in (
        ("host=db.example.com port=5432", f"host={postgres.sockets} port={PORT}"),
        ("dbname=hotswap ", f"dbname={DATABASE} "),
        ("listen_addr = 0.0.0.0", "listen_addr = 127.0.0.1"),
        ("listen_port = 6432", f"listen_port = {port}\nunix_socket_dir ="),
        ("/etc/pgbouncer/userlist.txt", str(users)),
    ):
        assert old in text
        text = text.replace(old, new)
    settings.write_text(text)
    if postgres.account is not None:
        for path in (users, settings):
            os.chown(path, postgres.account.user, postgres.account.group)
    servers = Supervisor(
        [
            postgres.program(),
            Program(
                name="pgbouncer",
                command=[found, str(settings)],
                log=folder.logs / "pgbouncer.log",
                environment={"PATH": "/usr/bin:/bin"},
                folder=Path("/"),
                account=postgres.account,
                is_ready=lambda: listens(port),
            ),
        ]
    )
    servers.start()
    try:
        servers.wait_ready(60)
        yield Pooler(port, postgres.password, postgres)
    finally:
        servers.stop()


def ask(url: str, statement: str) -> Any:
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        row = connection.execute(statement).fetchone()
    assert row is not None
    return row[0]


def test_the_entries_set_the_limits(pooler: Pooler) -> None:
    statements, idle = (
        "SHOW statement_timeout",
        "SHOW idle_in_transaction_session_timeout",
    )

    limits = {
        entry: (ask(pooler.url(entry), statements), ask(pooler.url(entry), idle))
        for entry in ("hotswap_web", "hotswap")
    }

    assert limits == {"hotswap_web": ("10s", "5s"), "hotswap": ("0", "5s")}


def wait_for_end(admin: LiveAdmin, deployment: str, ends: set[str]) -> None:
    def has_ended() -> bool:
        rows = admin.get(f"/deployments/{deployment}/devices")["results"]
        return {row["status"] for row in rows} <= ends

    wait_until(has_ended, what=f"the end of {deployment} as one of {ends}")


@pytest.mark.stack
def test_good_and_bad_updates_go_through_it(pooler: Pooler, tmp_path: Path) -> None:
    environment = {
        "HOTSWAP_DATABASE_URL": pooler.url("hotswap"),
        "HOTSWAP_DATABASE_POOLED": "1",
    }
    with (
        running_stack(
            tmp_path / "data", environment=environment, is_prepared=False
        ) as stack,
        running_agents() as agents,
    ):
        admin = LiveAdmin(stack)
        model = new_model(admin)
        good = admin.upload(model, "2.0.0", program("2.0.0", 20_000))
        bad = admin.upload(model, "3.0.0", b"raise SystemExit(1)\n" * 500)
        devices = [
            AgentDevice(tmp_path / name, admin, model, program("1.0.0", 20_000))
            for name in ("a", "b", "c")
        ]
        for device in devices:
            agents(device)

        for firmware, ends in ((good, "success"), (bad, "failed")):
            for deployment in [direct(admin, firmware, each.name) for each in devices]:
                wait_for_end(admin, deployment, {ends, "rolled_back"})
        used = ask(
            pooler.database.url,
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = "
            "'client backend' AND pid <> pg_backend_pid()",
        )
        running = {each.running_image() for each in devices}

    assert running == {program("2.0.0", 20_000)}
    assert 0 < used <= MOST_CONNECTIONS
