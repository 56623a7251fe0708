"""`hotswap serve` as a person or a machine meets it.

The stack of each module-wide fixture is shared by the tests that leave it as it was.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from hotswap.stack import Stack, StackError
from hotswap.stack.folder import StackFolder, free_port
from hotswap.stack.postgres import PostgresServer
from hotswap.stack.processes import Supervisor
from hotswap.stack.redis import RedisServer
from tests.live import (
    PROJECT_DIR,
    LiveStack,
    alive,
    clean_environment,
    running_stack,
)
from tests.prepared import copy_prepared_database
from tests.waiting import wait_until

pytestmark = pytest.mark.stack

PRINT_DATABASE_HOST = """
from django.db import connection
connection.ensure_connection()
print(connection.settings_dict["HOST"])
"""
PROGRAMS = ("web", "worker", "beat", "redis", "postgres")
# What may become of files in the folder of the keys.
DAMAGES: dict[str, Callable[[Path], Any]] = {
    "master.key": lambda path: path.unlink(),
    "pepper.key": lambda path: path.write_text("0" * 64),
    "tokens": shutil.rmtree,
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory) -> Iterator[LiveStack]:
    folder = tmp_path_factory.mktemp("serve") / "data"
    with running_stack(folder, is_prepared=False) as stack:
        yield stack


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a stack from its start until it has ended.

    Attributes:
        code: its exit code.
        pids: its processes; `left`, those that outlived it.
        state: what `stack.json` said afterwards.
        said: what it printed.
    """

    code: int
    pids: set[int]
    left: set[int]
    state: dict[str, Any]
    said: str


@dataclass(frozen=True)
class Folder:
    """A stack on a folder that has been through much, and still runs.

    It was started by somebody who names no password, and asked to stop; started with
    key files that were damaged, which were given back; started, killed with all its
    processes, and started again.

    Attributes:
        first: the first run.
        refused: the runs that were refused, by the damaged file.
        killed: the processes of the killed run.
        kept_key: a key file that was lost and given back.
    """

    stack: LiveStack
    first: Run
    refused: dict[Path, Run]
    killed: set[int]
    kept_key: Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Folder]:
    stack = LiveStack(
        data_dir=tmp_path_factory.mktemp("folder") / "data",
        environment={"HOTSWAP_ADMIN_PASSWORD": ""},
    )
    stack.start()
    try:
        stack.wait_ready()
        first = ended(stack, stack.stop)
        keys, backup = stack.data_dir / "keys", stack.data_dir.with_name("backup")
        shutil.copytree(keys, backup)
        (kept_key,) = (keys / "tokens").glob("*.pem")
        refused = {}
        for path, damage in DAMAGES.items():
            damage(keys / path)
            stack.start()
            refused[keys / path] = ended(stack, stack.wait_ended)
            shutil.copytree(backup, keys, dirs_exist_ok=True)
        stack.start()
        stack.wait_ready()
        killed = stack.process_ids()
        os.kill(stack.state()["pid"], signal.SIGKILL)
        wait_until(lambda: not alive(killed), what="all processes gone")
        stack.wait_ended()
        stack.output.unlink()
        stack.start()
        stack.wait_ready()
        yield Folder(stack, first, refused, killed, kept_key)
    finally:
        stack.stop()


def ended(stack: LiveStack, wait: Callable[[], int]) -> Run:
    """Wait for the end of a run, and take its output away."""
    pids = stack.process_ids()
    code = wait()
    run = Run(
        code=code,
        pids=pids,
        left=alive(pids),
        state=stack.state(),
        said=stack.said(),
    )
    stack.output.unlink()
    return run


def is_ready(stack: LiveStack) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{stack.url}/health/ready", timeout=120).status_code == 200
    return False


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def test_it_says_where_it_answers_and_what_it_embeds(stack):
    assert f"HotSwap ready at {stack.url}\n" in stack.said()
    assert "PostgreSQL 18." in stack.said()
    assert "Redis " in stack.said()
    assert is_ready(stack)


def test_a_given_admin_password_is_not_printed(stack):
    assert stack.admin_password not in stack.said()
    assert "First administrator" not in stack.said()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_people_find_the_programs_by_their_command_lines(stack):
    assert "celery" in command_line(stack.pid("worker"))
    assert " worker " in command_line(stack.pid("worker"))
    assert "celery" in command_line(stack.pid("beat"))
    assert " beat " in command_line(stack.pid("beat"))
    assert "redis-server" in command_line(stack.pid("redis"))


def test_its_files_with_secrets_are_their_owners_alone(stack):
    secret = [stack.data_dir / "stack.json", *(stack.data_dir / "keys").iterdir()]

    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in secret)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_killed_program_is_restarted_and_all_is_well_again(stack, name):
    redis_before = stack.state()["redis_url"]
    old = stack.kill(name)

    wait_until(lambda: stack.pid(name) not in (None, old), what=f"a new {name}")
    wait_until(lambda: is_ready(stack), what="ready again")
    assert stack.state()["redis_url"] == redis_before
    assert not stack.has_ended()


def test_a_command_by_hand_finds_the_running_servers(stack):
    done = subprocess.run(
        [
            *(sys.executable, "manage.py", "shell", "--no-imports", "--command"),
            PRINT_DATABASE_HOST,
        ],
        cwd=PROJECT_DIR,
        env={**clean_environment(), "HOTSWAP_DATA_DIR": str(stack.data_dir)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.strip().endswith("run"), done.stderr


def test_a_second_stack_on_the_folder_is_refused(stack):
    second = LiveStack(data_dir=stack.data_dir)
    second.output = stack.output.with_name("second.txt")
    second.start()

    assert second.process.wait(180) == 1
    assert f"another stack (process {stack.process.pid}) runs on" in second.said()
    assert is_ready(stack)


def test_two_stacks_run_side_by_side(stack, folder):
    other = folder.stack

    assert is_ready(stack)
    assert is_ready(other)
    assert other.state()["database_url"] != stack.state()["database_url"]
    assert other.state()["redis_url"] != stack.state()["redis_url"]


def test_a_port_in_use_is_refused(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        stack = LiveStack(data_dir=tmp_path / "data", port=taken.getsockname()[1])
        stack.start()

        assert stack.process.wait(180) == 1
    assert f"port {stack.port} is in use" in stack.said()


def test_a_stop_leaves_nothing_and_the_folder_starts_again(folder):
    assert folder.first.code == 0
    assert len(folder.first.pids) > len(PROGRAMS)
    assert not folder.first.left
    assert folder.first.state == {}
    assert is_ready(folder.stack)


def test_a_first_admin_is_made_up_and_shown_once(folder):
    first, later = folder.first.said, folder.stack.said()

    (line,) = [line for line in first.splitlines() if "First administrator" in line]
    assert line.startswith("First administrator: admin / ")
    assert "`hotswap set-password` makes another" in first
    assert len(line.split(" / ")[1]) >= 12
    assert "First administrator" not in later


def test_a_lost_or_swapped_key_file_is_named_and_its_return_mends_it(folder):
    assert len(folder.refused) == len(DAMAGES)
    for path, run in folder.refused.items():
        assert run.code == 1
        assert f"HotSwap does not start: the key file {path}" in run.said or (
            f"HotSwap does not start: there is no token key in {path}" in run.said
        )
        assert "restore it from your backup" in run.said
        assert "Traceback" not in run.said
        assert not run.left
    assert folder.kept_key.exists()
    assert folder.stack.has_logged("HotSwap ready at")


def test_a_stop_right_after_the_start_leaves_nothing(tmp_path):
    stack = LiveStack(data_dir=tmp_path / "data")
    stack.start()
    wait_until(lambda: stack.pid("prepare"), what="the first step runs")
    pids = stack.process_ids()

    assert stack.stop() == 0

    assert not alive(pids)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_killing_everything_at_once_leaves_nothing_and_it_starts_again(folder):
    assert not alive(folder.killed)
    assert is_ready(folder.stack)


def test_a_stop_by_ctrl_c_while_a_program_is_dead_leaves_nothing(folder):
    stack = folder.stack
    pids = stack.process_ids()
    stack.kill("redis")
    stack.kill("postgres")

    assert stack.stop(signal.SIGINT) == 0

    assert not alive(pids)
    assert stack.state() == {}


def test_a_program_that_keeps_failing_ends_the_stack_with_the_reason(tmp_path):
    stack = LiveStack(
        data_dir=tmp_path / "data", environment={"HOTSWAP_WORKER_THREADS": "none"}
    )
    stack.start()
    wait_until(lambda: stack.pid("worker"), what="the worker")
    pids = stack.process_ids()

    assert stack.process.wait(180) == 1

    assert "worker failed 5 times running" in stack.said()
    assert "none" in stack.said().split("worker failed")[1]
    assert not alive(pids)


def test_servers_of_the_users_own_are_used_instead(tmp_path):
    folder = StackFolder(tmp_path / "servers")
    folder.create()
    postgres, redis = PostgresServer(folder, careless=True), RedisServer(folder)
    servers = Supervisor([postgres.program(), redis.program()])
    servers.start()
    try:
        servers.wait_ready(30)
        addresses = {
            "HOTSWAP_DATABASE_URL": postgres.url,
            "HOTSWAP_REDIS_URL": redis.url,
        }
        with running_stack(
            tmp_path / "data", environment=addresses, is_prepared=False
        ) as stack:
            assert set(stack.state()["programs"]) == {"web", "worker", "beat"}
            assert "embedded" not in stack.said()
            with psycopg.connect(postgres.url) as connection:
                rows = connection.execute("SELECT username FROM common_user").fetchall()
            assert rows == [("admin",)]
    finally:
        servers.stop()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_it_runs_as_an_ordinary_user(tmp_path):
    """Nobody has no rights but to enter folders on the way to this environment."""
    nobody = pwd.getpwnam("nobody")
    home = Path(f"/tmp/hotswap-{free_port()}")
    home.mkdir(mode=0o700)
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    launcher = PROJECT_DIR / "hotswap" / "stack" / "launch.py"
    prefix = (
        *(sys.executable, "-I", "-S", str(launcher), str(os.getpid())),
        *(str(int(signal.SIGKILL)), str(nobody.pw_uid), str(nobody.pw_gid)),
        *("1", "--"),
    )
    environment = {
        "HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
        # Its measurements could not be written beside the others.
        "COVERAGE_PROCESS_CONFIG": "",
    }

    try:
        with running_stack(
            home / "data", environment=environment, prefix=prefix
        ) as stack:
            assert is_ready(stack)
            owners = {Path(f"/proc/{pid}").stat().st_uid for pid in stack.process_ids()}
            assert owners == {nobody.pw_uid}
            files = (stack.data_dir / "postgres", stack.data_dir / "stack.json")
            assert {path.stat().st_uid for path in files} == {nobody.pw_uid}
            pids = stack.process_ids()
        assert not alive(pids)
    finally:
        subprocess.run(["rm", "-rf", str(home)], check=True)
        home.with_name("data-output.txt").unlink(missing_ok=True)


def test_a_stack_can_be_run_from_python(tmp_path):
    events: list[str] = []
    copy_prepared_database(tmp_path / "data")
    stack = Stack(
        data_dir=tmp_path / "data",
        port=free_port(),
        environment={
            "HOTSWAP_DATABASE_URL": "",
            "HOTSWAP_REDIS_URL": "",
            "HOTSWAP_KEYS_DIR": str(tmp_path / "data" / "keys"),
            "DJANGO_SETTINGS_MODULE": "hotswap.settings.local",
            "HOTSWAP_ADMIN_PASSWORD": "correct-horse-battery-staple",
        },
        on_event=events.append,
    )
    stack.start()
    try:
        stack.wait_ready()
        first = stack.pid("worker")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: stack.restarts("worker") == 1)
    finally:
        stack.stop()

    assert events == ["worker ended (killed by SIGKILL)", "worker restarted"]
    assert stack.pid("web") is None
    assert stack.made_admin_password is None


def test_a_stack_that_was_not_started_says_so(tmp_path):
    with pytest.raises(StackError, match="has not been started"):
        Stack(data_dir=tmp_path).wait_ready()
