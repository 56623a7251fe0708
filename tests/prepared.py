"""A migrated database, with a copy of which the tests and their stacks begin.

Rules:
- It is made once a day for a set of migrations, which make partitions of the days to
  come, and kept in `build/`: to apply them takes longer than most test files.
- The server of a run of tests begins with a copy, as does the data folder of a stack
  that a test starts. How an empty folder is prepared is tested where it matters.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from hotswap.paths import PROJECT_DIR
from hotswap.stack.folder import StackFolder
from hotswap.stack.postgres import PostgresServer
from hotswap.stack.processes import Supervisor

# Names the folder to the processes of a run of tests.
PREPARED = "HOTSWAP_TESTS_PREPARED"
KEPT = ("keys", "postgres")
# A commit is with the operating system before it is acknowledged, which outlives the
# server; only a machine that loses its power could forget it, and none does here.
NO_WAIT_FOR_DISKS = "fsync = off\nfull_page_writes = off\n"
START_SECONDS = 180
DATABASES = PROJECT_DIR / "build" / "tests" / "databases"


def prepared_folder() -> Path:
    """Return where today's database of the present migrations is, made or not."""
    return DATABASES / f"{datetime.now(UTC):%Y-%m-%d}-{digest_of(_sources())}"


def digest_of(paths: Iterable[Path]) -> str:
    """Return a hash of the names and the contents of files, in whatever order."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        content = path.read_bytes()
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def copy_prepared_database(data_dir: Path) -> None:
    """Begin a data folder with a migrated database and the passwords of its server.

    Does nothing outside of a run of tests.
    """
    if place := os.environ.get(PREPARED):
        prepared = Path(place)
        prepared.parent.mkdir(parents=True, exist_ok=True)
        data_dir.mkdir(parents=True, exist_ok=True)
        with prepared.with_name("lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not prepared.exists():
                # Former ones, and one that was not finished.
                for old in prepared.parent.iterdir():
                    if old.is_dir():
                        shutil.rmtree(old)
                draft = prepared.with_name("draft")
                _prepare(draft)
                draft.rename(prepared)
            for name in KEPT:
                # As root the files of the server belong to an ordinary user.
                subprocess.run(
                    ["cp", "-a", str(prepared / name), str(data_dir / name)], check=True
                )


def _sources() -> list[Path]:
    """Return the files that decide what the database holds."""
    apps = ("hotswap/common", "firmware", "devices", "health", "deployments")
    return [
        PROJECT_DIR / "requirements.lock",
        PROJECT_DIR / "hotswap" / "stack" / "postgres.py",
        Path(__file__),
        *(
            path
            for app in apps
            for path in (PROJECT_DIR / app / "migrations").rglob("*")
            if path.suffix in {".py", ".sql"}
        ),
    ]


def _prepare(path: Path) -> None:
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
