"""Take a backup of an installation, and bring one back.

A backup is a folder: `database.dump` (of `pg_dump`, one snapshot), `keys/`, `audit/`
with the anchors of the audit trail, `images/` where images lie in a folder of this
host, and `manifest.json` with the SHA-256 of each.

Rules:
- It is taken while HotSwap runs, and appears whole or not at all.
- Anchors are copied before the snapshot: none of them is ahead of its trail.
- Images are never changed once they are stored, so those copied after the snapshot hold
  every one that it names, but for those removed in between, which are told.
- A restore looks at every file before it changes anything, and never overwrites what is
  there: it takes an empty data folder or an empty database.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from hotswap.stack.errors import StackError
from hotswap.stack.folder import StackFolder
from hotswap.stack.postgres import PostgresServer, find_client, plain_environment
from hotswap.stack.processes import Supervisor

FORMAT: Final = 1
DUMP: Final = "database.dump"
MANIFEST: Final = "manifest.json"
IMAGES: Final = "firmware"
ANCHORS: Final = "audit"
START_SECONDS: Final = 180.0


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds.

    Attributes:
        files: SHA-256 by path below its folder.
    """

    path: Path
    taken_at: str
    files: Mapping[str, str]

    @property
    def has_images(self) -> bool:
        return any(name.startswith("images/") for name in self.files)

    @property
    def has_anchors(self) -> bool:
        return any(name.startswith(f"{ANCHORS}/") for name in self.files)


def take_backup(
    target: Path, *, data_dir: Path, database_url: str, with_images: bool = True
) -> Backup:
    """Write a backup of a running installation into a new folder.

    Raises:
        StackError: the folder is there already, or something cannot be read.
    """
    if target.exists():
        raise StackError(f"{target} is there already; name a new folder")
    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True, mode=0o700)
        taken_at = datetime.now(UTC)
        if (data_dir / ANCHORS).is_dir():
            _copy(data_dir / ANCHORS, draft / ANCHORS)
        _run_program(
            "pg_dump",
            *("--format=custom", "--no-owner", "--no-privileges"),
            # Nobody who lives now is alive after a restore.
            "--exclude-table-data=common_serverprocess",
            f"--file={draft / DUMP}",
            database_url=database_url,
        )
        _copy(_keys_of(data_dir), draft / "keys")
        if with_images and (data_dir / IMAGES).is_dir():
            _copy(data_dir / IMAGES, draft / "images")
        files = {
            str(path.relative_to(draft)): _sha256(path) for path in _files_in(draft)
        }
        about = {
            "format": FORMAT,
            "takenAt": taken_at.isoformat().replace("+00:00", "Z"),
            "files": files,
        }
        (draft / MANIFEST).write_text(json.dumps(about, indent=2))
        draft.rename(target)
    except OSError as error:
        raise StackError(f"cannot write the backup: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Backup(target, str(about["takenAt"]), files)


def read_backup(path: Path) -> Backup:
    """Look at every file of a backup.

    Raises:
        StackError: it is none, or a file is missing, changed or too many.
    """
    try:
        about: Any = json.loads((path / MANIFEST).read_text())
        files = dict(about["files"])
        taken_at = str(about["takenAt"])
        is_known = about["format"] == FORMAT
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StackError(f"{path} is no backup of HotSwap: {error}") from error
    if not is_known:
        raise StackError(f"{path} was written by a newer HotSwap")
    found = {str(each.relative_to(path)) for each in _files_in(path)} - {MANIFEST}
    for name in sorted(found ^ set(files)):
        what = "is missing from" if name in files else "does not belong to"
        raise StackError(f"{name} {what} the backup {path}")
    for name, wanted in files.items():
        if _sha256(path / name) != wanted:
            raise StackError(f"{name} of the backup {path} is damaged")
    return Backup(path, taken_at, files)


def restore_backup(
    path: Path, *, data_dir: Path, database_url: str | None = None
) -> Backup:
    """Bring a backup back into an empty data folder, or an empty database of one's own.

    Args:
        database_url: of a server of one's own; None for the embedded one.

    Raises:
        StackError: the backup is damaged, or there is something in the way.
    """
    backup = read_backup(path)
    folder = StackFolder(data_dir)
    folder.create()
    folder.lock()
    try:
        database = () if database_url else ("postgres",)
        for part in ("keys", IMAGES, ANCHORS, *database):
            there = folder.path / part
            if there.is_dir() and any(there.iterdir()):
                raise StackError(
                    f"{there} is not empty: a restore overwrites nothing; name another "
                    "data folder, or move this one away"
                )
        _copy(path / "keys", folder.secrets)
        if backup.has_images:
            _copy(path / "images", folder.path / IMAGES)
        if backup.has_anchors:
            _copy(path / ANCHORS, folder.path / ANCHORS)
        if database_url:
            _fill(path / DUMP, database_url)
        else:
            with _running_database(folder) as url:
                _fill(path / DUMP, url)
    finally:
        folder.unlock()
    return backup


def _keys_of(data_dir: Path) -> Path:
    return Path(os.environ.get("HOTSWAP_KEYS_DIR") or data_dir / "keys")


@contextmanager
def embedded_database(data_dir: Path) -> Iterator[str]:
    """Run the embedded database of a folder that nothing else runs on; give its URL.

    Raises:
        StackError: something runs on the folder, or the database does not start.
    """
    folder = StackFolder(data_dir)
    folder.create()
    folder.lock()
    try:
        with _running_database(folder) as url:
            yield url
    finally:
        folder.unlock()


@contextmanager
def _running_database(folder: StackFolder) -> Iterator[str]:
    server = PostgresServer(folder)
    supervisor = Supervisor([server.program()])
    supervisor.start()
    try:
        supervisor.wait_ready(START_SECONDS)
        yield server.url
    finally:
        supervisor.stop()


def _fill(dump: Path, database_url: str) -> None:
    import psycopg

    try:
        with psycopg.connect(database_url, connect_timeout=10) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
            ).fetchone()
    except psycopg.Error as error:
        raise StackError(f"the database does not answer: {error}") from error
    if row is None or row[0]:
        raise StackError(
            "the database is not empty: a restore overwrites nothing; make a new one"
        )
    _run_program(
        "pg_restore",
        *("--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error"),
        database_url=database_url,
        last=str(dump),
    )


def _run_program(
    name: str, *arguments: str, database_url: str, last: str | None = None
) -> None:
    """Run a program of PostgreSQL; the password is in no command line."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    given: dict[str, Any] = dict(conninfo_to_dict(database_url))
    password = str(given.pop("password", "") or "")
    done = subprocess.run(
        [
            *(str(find_client(name)), f"--dbname={make_conninfo(**given)}"),
            *arguments,
            *([last] if last else []),
        ],
        env={**plain_environment(), "PGPASSWORD": password},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise StackError(f"{name} failed: {_reason(done.stderr)}")


def _reason(stderr: str) -> str:
    """Return the lines that name an error; the statement behind it may be long."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    named = [line for line in lines if re.search(r"\b(error|ERROR|DETAIL):", line)]
    return " / ".join((named or lines)[:3])


def _copy(source: Path, target: Path) -> None:
    """Copy a folder; what vanishes meanwhile was removed by the server."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in _files_in(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            shutil.copy2(path, copy)
        except FileNotFoundError:
            copy.unlink(missing_ok=True)


def _files_in(folder: Path) -> Iterator[Path]:
    for base, _, names in os.walk(folder):
        for name in sorted(names):
            # Drafts of files that are being written have a dot in front.
            if not name.startswith("."):
                yield Path(base) / name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
