"""A PostgreSQL and its standby, which nobody starts again."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg

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
from tests.prepared import copy_prepared_database
from tests.waiting import wait_until


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


def acknowledge_together(primary: Server, standby: Server) -> None:
    """Let the primary acknowledge nothing before its standby has it.

    After the copy was taken: the standby waits for nobody when it is alone.
    """
    primary.run("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.run("SELECT pg_reload_conf()")
    wait_until(
        lambda: primary.run("SELECT sync_state FROM pg_stat_replication") == "sync",
        what=f"{standby.postgres.data} follows",
    )


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
