"""PostgreSQL with a standby, which is promoted when the primary dies."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from hotswap.stack.folder import StackFolder
from hotswap.stack.postgres import (
    DATABASE,
    PORT,
    USER,
    PostgresServer,
    find_client,
    plain_environment,
)
from hotswap.stack.processes import Program, kill_group, start_process
from tests.deployments.fleet import Rollout, at_work
from tests.deployments.live import LiveAdmin
from tests.live import running_stack
from tests.prepared import copy_prepared_database
from tests.waiting import wait_until

pytestmark = pytest.mark.stack


@dataclass
class Server:
    """A PostgreSQL that nobody starts again."""

    postgres: PostgresServer
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = start_process(self.postgres.program())
        wait_until(
            self.postgres.is_ready, what=f"{self.postgres.data} takes statements"
        )

    def kill(self) -> None:
        if self.process is not None:
            kill_group(self.process.pid)
            self.process.wait()
            self.process = None

    def run(self, statement: str) -> object:
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def server_in(folder: Path) -> Server:
    """Return a server, not running, with a migrated database."""
    copy_prepared_database(folder)
    stack_folder = StackFolder(folder)
    stack_folder.create()
    return Server(PostgresServer(stack_folder))


def follow(primary: Server, standby: Server) -> None:
    """Make the standby a copy of the primary that takes what happens there."""
    target = standby.postgres.data
    shutil.rmtree(target)
    copying = start_process(
        Program(
            name="pg_basebackup",
            command=[
                str(find_client("pg_basebackup")),
                f"--dbname={primary.postgres.url}",
                f"--pgdata={target}",
                "--write-recovery-conf",
                "--checkpoint=fast",
                "--no-sync",
            ],
            log=standby.postgres.log,
            environment=plain_environment(),
            folder=Path("/"),
            account=standby.postgres.account,
        )
    )
    assert copying.wait(120) == 0, standby.postgres.log.read_text()


@dataclass(frozen=True)
class Pair:
    primary: Server
    standby: Server

    @property
    def url(self) -> str:
        """As docs/operate/regions.md has it: whichever of both is the primary."""
        hosts = ",".join(
            quote(str(each.postgres.sockets), safe="")
            for each in (self.primary, self.standby)
        )
        return (
            f"postgresql://{USER}:{self.primary.postgres.password}@/{DATABASE}"
            f"?host={hosts}&port={PORT}&target_session_attrs=read-write"
        )


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """A primary that acknowledges nothing before its standby has it."""
    primary, standby = (server_in(tmp_path / name) for name in ("first", "second"))
    try:
        primary.start()
        follow(primary, standby)
        standby.start()
        # After the copy was taken: the standby waits for nobody when it is alone.
        primary.run("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.run("SELECT pg_reload_conf()")
        wait_until(
            lambda: primary.run("SELECT sync_state FROM pg_stat_replication") == "sync",
            what="the standby follows",
        )
        yield Pair(primary, standby)
    finally:
        primary.kill()
        standby.kill()


def test_a_promoted_standby_goes_on_and_nothing_acknowledged_is_lost(
    pair: Pair, tmp_path: Path
) -> None:
    with running_stack(
        tmp_path / "data",
        environment={"HOTSWAP_DATABASE_URL": pair.url},
        is_prepared=False,
    ) as stack:
        admin = LiveAdmin(stack)
        with at_work(Rollout(admin, 5)) as rollout:
            wait_until(
                lambda: rollout.ledger.has("device.installing", stage=1),
                what="the first reports",
            )
            known = rollout.ledger.lines()
            pair.primary.kill()
            pair.standby.run("SELECT pg_promote()")

            wait_until(
                lambda: rollout.ledger.lines() >= known, what="the standby has it all"
            )
            rollout.end()
