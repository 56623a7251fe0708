"""The embedded PostgreSQL and Redis by themselves."""

import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from hotswap.stack.errors import StackError
from hotswap.stack.folder import StackFolder
from hotswap.stack.postgres import PostgresServer, find_programs
from hotswap.stack.processes import Program, Supervisor
from hotswap.stack.redis import RedisServer
from tests.waiting import wait_until


@contextlib.contextmanager
def supervising(*programs: Program) -> Iterator[Supervisor]:
    supervisor = Supervisor(programs)
    supervisor.start()
    try:
        supervisor.wait_ready(30)
        yield supervisor
    finally:
        supervisor.stop()


@pytest.fixture
def folder(tmp_path: Path) -> StackFolder:
    folder = StackFolder(tmp_path / "a folder, with 'odd' words")
    folder.create()
    return folder


def ask(server: PostgresServer, statement: str) -> list[Any]:
    with psycopg.connect(server.url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_postgres_18_keeps_its_data_from_run_to_run(folder):
    with supervising(PostgresServer(folder, careless=True).program()):
        server = PostgresServer(folder)
        assert ask(server, "SHOW server_version")[0][0].startswith("18")
        assert ask(server, "SHOW listen_addresses") == [("",)]
        ask(server, "CREATE TABLE kept (number integer)")

    with supervising(PostgresServer(folder, careless=True).program()):
        assert ask(PostgresServer(folder), "SELECT * FROM kept") == []


def test_postgres_asks_for_a_password(folder):
    server = PostgresServer(folder, careless=True)

    with supervising(server.program()):
        wrong = server.url.replace(server.password, "guess")
        with pytest.raises(psycopg.OperationalError, match="password authentication"):
            psycopg.connect(wrong)

    assert stat.S_IMODE(server.home.stat().st_mode) == 0o700


def test_postgres_starts_on_what_a_crash_left_behind(folder):
    server = PostgresServer(folder, careless=True)
    with supervising(server.program()) as supervisor:
        ask(server, "CREATE TABLE kept AS SELECT 7 AS number")
        ask(server, "CHECKPOINT")
        os.kill(supervisor.pid("postgres"), signal.SIGKILL)
        wait_until(lambda: supervisor.restarts("postgres") == 1)
        supervisor.wait_ready(20)
        assert ask(server, "SELECT number FROM kept") == [(7,)]

    # After a restart of the machine, the number in the mark may be anybody's.
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE
    ) as it:
        mark = [
            it.pid,
            server.data,
            1700000000,
            5432,
            server.sockets,
            "",
            "1 1",
            "ready",
        ]
        (server.data / "postmaster.pid").write_text("\n".join(map(str, mark)) + "\n")
        (server.sockets / ".s.PGSQL.5432.lock").write_text(f"{it.pid}\n")
        with supervising(PostgresServer(folder, careless=True).program()):
            assert ask(server, "SELECT number FROM kept") == [(7,)]
        it.communicate(b"\n")


def test_postgres_refuses_a_folder_of_another_version(folder):
    server = PostgresServer(folder)
    server.data.mkdir()
    (server.data / "PG_VERSION").write_text("15\n")

    with pytest.raises(StackError, match="was written by PostgreSQL 15, this is 18"):
        server.prepare()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_postgres_runs_where_only_root_may_enter(tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    package = find_programs().parents[1]
    for each in (package, package.with_name(f"{package.name}.libs")):
        if each.exists():
            shutil.copytree(each, closed / each.name, symlinks=True)
    monkeypatch.syspath_prepend(closed)
    folder = StackFolder(closed / "data")
    folder.create()
    server = PostgresServer(folder, careless=True)
    assert server.programs.is_relative_to(closed)

    with supervising(server.program()) as supervisor:
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        pid = supervisor.pid("postgres")
        status = Path(f"/proc/{pid}/status").read_text()

    rights = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(rights["Uid"].split()) == {str(pwd.getpwnam("nobody").pw_uid)}
    # CAP_DAC_READ_SEARCH (1 << 2), or where a container withholds it CAP_DAC_OVERRIDE.
    assert int(rights["CapEff"], 16) in {1 << 2, 1 << 1}


def test_an_interrupted_first_start_is_made_good(folder):
    server = PostgresServer(folder, careless=True)
    draft = server.home / "data.draft"
    draft.mkdir()
    (draft / "PG_VERSION").write_text("18\n")

    with supervising(server.program()):
        assert ask(server, "SELECT 1") == [(1,)]


def test_redis_answers_with_the_password_alone(folder):
    server = RedisServer(folder)

    with supervising(server.program()):
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
            assert client.config_get("save") == {"save": ""}
            assert client.config_get("bind") == {"bind": "127.0.0.1"}
        with redis.Redis(port=server.port) as stranger:
            with pytest.raises(redis.exceptions.AuthenticationError):
                stranger.ping()

    assert stat.S_IMODE((server.home / "redis.conf").stat().st_mode) == 0o600


def test_redis_comes_back_on_the_same_port(folder):
    server = RedisServer(folder)

    with supervising(server.program()) as supervisor:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", "no")
            os.kill(supervisor.pid("redis"), signal.SIGKILL)
            wait_until(lambda: supervisor.restarts("redis") == 1)
            supervisor.wait_ready(10)

            assert client.get("kept") is None


def test_without_any_redis_the_error_says_what_to_run(folder, monkeypatch):
    monkeypatch.setattr(
        "hotswap.stack.redis.importlib.util.find_spec", lambda name: None
    )
    monkeypatch.setenv("PATH", "")

    with pytest.raises(StackError, match="apt-get install redis-server"):
        RedisServer(folder)


def put_program(folder, name, prints):
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{prints}'\n")
    program.chmod(0o755)
    return program


VALKEY_8 = "Valkey server v=8.1.0 sha=0"
REDIS_6 = "Redis server v=6.0.16 sha=0"


def test_a_new_redis_of_the_machine_comes_before_the_package(
    folder, monkeypatch, tmp_path
):
    put_program(tmp_path, "redis-server", REDIS_6)
    program = put_program(tmp_path, "valkey-server", VALKEY_8)
    monkeypatch.setenv("PATH", str(tmp_path))

    server = RedisServer(folder)

    assert server.executable == program
    assert server.described() == "Redis 8.1.0"


def test_an_old_redis_of_the_machine_is_used_where_the_package_is_missing(
    folder, monkeypatch, tmp_path
):
    program = put_program(tmp_path, "redis-server", REDIS_6)
    monkeypatch.setattr(
        "hotswap.stack.redis.importlib.util.find_spec", lambda name: None
    )
    monkeypatch.setenv("PATH", str(tmp_path))

    server = RedisServer(folder)

    assert server.executable == program
    assert "older than 7: install redis-server" in server.described()
