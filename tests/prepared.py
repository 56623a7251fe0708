"""A migrated database, made once a run, with which the data folders of stacks begin.

A stack that begins with an empty folder spends most of its start on the database; how
that goes is tested where it matters, and not in every test that needs a stack.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from hotswap.stack.folder import StackFolder
from hotswap.stack.postgres import PostgresServer
from hotswap.stack.processes import Supervisor

# Names the folder to the processes that share a run's tests.
PREPARED = "HOTSWAP_TESTS_PREPARED"
KEPT = ("keys", "postgres")
# A commit is with the operating system before it is acknowledged, which outlives the
# server; only a machine that loses its power could forget it, and none does here.
NO_WAIT_FOR_DISKS = "fsync = off\nfull_page_writes = off\n"
START_SECONDS = 180


def copy_prepared_database(data_dir: Path) -> None:
    """Begin a data folder with a migrated database and the passwords of its server.

    Does nothing outside of a run of tests, whose end removes what was prepared.
    """
    if place := os.environ.get(PREPARED):
        prepared = Path(place)
        with prepared.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not prepared.exists():
                draft = prepared.with_suffix(".draft")
                _prepare(draft)
                draft.rename(prepared)
        data_dir.mkdir(parents=True)
        for name in KEPT:
            # As root the files of the server belong to an ordinary user.
            subprocess.run(
                ["cp", "-a", str(prepared / name), str(data_dir / name)], check=True
            )


def _prepare(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    folder = StackFolder(path)
    folder.create()
    server = PostgresServer(folder, careless=True)
    supervisor = Supervisor([server.program()])
    supervisor.start()
    try:
        supervisor.wait_ready(START_SECONDS)
        subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "django", "migrate", "-v", "0"],
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "hotswap.settings.local",
                "HOTSWAP_DATABASE_URL": server.application_url,
                "HOTSWAP_DATABASE_OWNER_URL": server.url,
                "HOTSWAP_DATA_DIR": str(path),
                "HOTSWAP_KEYS_DIR": str(path / "unused"),
            },
            check=True,
        )
    finally:
        supervisor.stop()
    with (server.data / "postgresql.auto.conf").open("a") as settings:
        settings.write(NO_WAIT_FOR_DISKS)
