"""Two roles in a real database: `prepare` makes them and bounds the application."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from hotswap.common.postgresql.roles import AUDIT_TABLES
from tests.live import PROJECT_DIR, LiveStack, clean_environment

PASSWORD = "of-this-test-alone-1234567890"
OWNERS = """
    SELECT DISTINCT relowner::regrole::text FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S')
    UNION SELECT DISTINCT proowner::regrole::text FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace
    UNION SELECT datdba::regrole::text FROM pg_database
    WHERE datname = current_database()
"""
DIGEST = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname LIKE 'roles_%'"
# As the application, each is refused: SQLSTATE 42501, insufficient privilege.
FORBIDDEN = (
    "UPDATE common_auditevent SET verb = 'other'",
    "UPDATE common_auditevent SET verb = 'other' WHERE false",
    "DELETE FROM common_auditevent",
    "TRUNCATE common_auditevent",
    "UPDATE common_auditseal SET position = position + 1",
    "DELETE FROM common_auditseal",
    "DELETE FROM common_auditanchor",
    (
        "INSERT INTO common_auditseal SELECT * FROM common_auditseal"
        " ON CONFLICT (position) DO UPDATE SET event_id = 0"
    ),
    "ALTER TABLE common_auditevent DISABLE TRIGGER USER",
    "ALTER TABLE common_auditevent DISABLE TRIGGER audit_append_only",
    "ALTER TABLE common_auditevent OWNER TO hotswap_app",
    "ALTER TABLE common_auditevent ADD COLUMN more integer",
    "DROP TRIGGER audit_append_only ON common_auditevent",
    "DROP TABLE common_auditevent",
    "DROP FUNCTION common_refuse_audit_change() CASCADE",
    (
        "CREATE OR REPLACE FUNCTION common_refuse_audit_change() RETURNS trigger"
        " LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$"
    ),
    (
        "CREATE TRIGGER other BEFORE INSERT ON common_auditevent"
        " FOR EACH ROW EXECUTE FUNCTION common_refuse_audit_change()"
    ),
    "CREATE RULE other AS ON UPDATE TO common_auditevent DO INSTEAD NOTHING",
    "CREATE TABLE public.other (id integer)",
    "CREATE FUNCTION public.other() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "TRUNCATE common_auditpending",
    "TRUNCATE devices_device CASCADE",
    "DROP TABLE health_reading_default",
    "UPDATE django_migrations SET name = 'other'",
    "SET ROLE hotswap_owner",
    "SET ROLE hotswap",
    "SET session_replication_role = replica",
    "ALTER ROLE hotswap_app SUPERUSER",
    "CREATE ROLE other",
    "ALTER SYSTEM SET fsync = off",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT pg_read_file('/etc/hostname')",
)


@dataclass(frozen=True, slots=True)
class Database:
    """A database of one test, with roles of its own names.

    Attributes:
        superuser, owner, application: addresses of it.
    """

    superuser: str
    owner: str
    application: str
    data_dir: Path

    def execute(self, statement: str, url: str | None = None) -> list[Any]:
        with psycopg.connect(url or self.superuser, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def run(
        self, *words: str, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-m", *words],
            cwd=PROJECT_DIR,
            env={
                **clean_environment(),
                "DJANGO_SETTINGS_MODULE": "hotswap.settings.local",
                "HOTSWAP_DATA_DIR": str(self.data_dir),
                "HOTSWAP_DATABASE_URL": self.application,
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    def prepare(self, owner: str) -> "subprocess.CompletedProcess[str]":
        return self.run("hotswap.stack.prepare", HOTSWAP_DATABASE_OWNER_URL=owner)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty database of the tests' server, and two roles that may not be there."""
    server = os.environ["HOTSWAP_DATABASE_URL"]
    name = f"roles_{os.getpid()}"
    names = {"owner": f"{name}_owner", "application": f"{name}_app"}

    def address(**changes: str) -> str:
        return make_conninfo(server, **changes, dbname=name)

    (tmp_path / "data").mkdir()
    with psycopg.connect(server, autocommit=True) as connection:
        # The server's own database may be one with two roles, too.
        owned_by: tuple[str, ...] = ("hotswap_owner",)
        if connection.execute(
            "SELECT 1 FROM pg_roles WHERE rolname = %s", owned_by
        ).fetchone():
            owned_by = ()
        connection.execute(f"CREATE DATABASE {name}")
        yield Database(
            superuser=address(),
            owner=address(user=names["owner"], password=PASSWORD),
            application=address(user=names["application"], password=PASSWORD),
            data_dir=tmp_path / "data",
        )
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        for role in (*names.values(), *owned_by):
            connection.execute(f"DROP ROLE IF EXISTS {role}")


def roles_of(url: str) -> str:
    return str(conninfo_to_dict(url)["user"])


def test_one_role_becomes_two_without_a_loss(database: Database) -> None:
    """As a data folder from before, in which everything belongs to the superuser."""
    done = database.run(
        *("django", "migrate", "-v", "0"), HOTSWAP_DATABASE_URL=database.superuser
    )
    assert done.returncode == 0, done.stderr
    (before,) = database.execute("SELECT count(*) FROM django_migrations")
    superuser = roles_of(database.superuser)
    assert database.execute(OWNERS) == [(superuser,)]

    first = database.prepare(database.superuser)
    kept = database.execute(DIGEST)
    second = database.prepare(database.superuser)

    assert database.execute(DIGEST) == kept
    assert first.returncode == 0, first.stderr
    assert second.returncode == 0, second.stderr
    assert database.execute(OWNERS) == [("hotswap_owner",)]
    assert database.execute("SELECT count(*) FROM django_migrations") == [before]
    with psycopg.connect(database.application) as connection:
        for table in AUDIT_TABLES:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(
                    sql.SQL("DELETE FROM {}").format(sql.Identifier(table))
                )
            connection.rollback()

    application = roles_of(database.application)
    database.execute(f"ALTER ROLE {application} SUPERUSER PASSWORD 'another'")
    third = database.prepare(database.superuser)

    assert third.returncode == 1
    assert "HotSwap does not start" in third.stderr
    assert "is a superuser" in third.stderr


def test_an_ordinary_role_may_be_the_owner(database: Database) -> None:
    owner, application = roles_of(database.owner), roles_of(database.application)
    database.execute(f"CREATE ROLE {owner} LOGIN PASSWORD '{PASSWORD}'")
    database.execute(
        f"ALTER DATABASE {conninfo_to_dict(database.owner)['dbname']} OWNER TO {owner}"
    )

    missing = database.prepare(database.owner)
    database.execute(f"CREATE ROLE {application} LOGIN PASSWORD '{PASSWORD}'")
    done = database.prepare(database.owner)

    assert missing.returncode == 1
    assert (
        f"the role {application} of HOTSWAP_DATABASE_URL is missing" in missing.stderr
    )
    assert done.returncode == 0, done.stderr
    assert database.execute(OWNERS) == [(owner,)]


@pytest.mark.stack
def test_a_running_stack_may_do_nothing_of_an_owner(live_stack: LiveStack) -> None:
    url = live_stack.state()["database_url"]
    assert roles_of(url) == "hotswap_app"
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute(OWNERS).fetchall() == [("hotswap_owner",)]
        allowed = []
        for statement in FORBIDDEN:
            try:
                connection.execute(statement)
            except psycopg.errors.InsufficientPrivilege:
                continue
            allowed.append(statement)

    assert allowed == []


@pytest.mark.stack
def test_only_the_first_step_of_a_stack_knows_the_owner(live_stack: LiveStack) -> None:
    for name, pid in live_stack.state()["programs"].items():
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        if name in ("web", "worker", "beat"):
            assert b"HOTSWAP_DATABASE_URL=postgresql://hotswap_app:" in environment
            assert b"HOTSWAP_DATABASE_OWNER_URL" not in environment
