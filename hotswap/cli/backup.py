"""`hotswap backup` and `hotswap restore`: on the server's own machine."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from hotswap.cli.keys import AsJson, DataDir, fail, print_result
from hotswap.common.pluralize import counted
from hotswap.paths import DEFAULT_DATA_DIR

REFUSED = 1


def backup(
    folder: Annotated[Path, typer.Argument(help="A new folder for it.")],
    *,
    without_images: Annotated[
        bool,
        typer.Option(
            "--without-images", help="Images are kept elsewhere, or in a bucket."
        ),
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Back up database, keys and images of an installation that runs."""
    from hotswap.stack.backup import take_backup
    from hotswap.stack.errors import StackError

    data = data_dir or DEFAULT_DATA_DIR
    url = database_url_of(data)
    if url is None:
        fail(
            as_json,
            REFUSED,
            "not_running",
            f"nothing runs on {data}: start it, or set HOTSWAP_DATABASE_URL",
        )
    try:
        done = take_backup(
            folder.absolute(),
            data_dir=data,
            database_url=url,
            with_images=not without_images,
        )
    except StackError as error:
        fail(as_json, REFUSED, "backup_failed", str(error))
    print_result(
        as_json,
        {"path": str(done.path), "takenAt": done.taken_at, "files": len(done.files)},
        f"{done.path}: {counted(len(done.files), 'file')}, as of {done.taken_at}. It "
        "holds keys: keep it as you keep them.",
    )


def restore(
    folder: Annotated[Path, typer.Argument(help="The backup.", exists=True)],
    *,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Bring a backup back, into an empty data folder or an empty database."""
    from hotswap.common.secret_files import EnvironmentWithFiles
    from hotswap.stack.backup import restore_backup
    from hotswap.stack.errors import StackError

    data = data_dir or DEFAULT_DATA_DIR
    given = EnvironmentWithFiles()
    # Only the owner makes tables, where there are two roles.
    owner_url = given.get("HOTSWAP_DATABASE_OWNER_URL")
    try:
        done = restore_backup(
            folder.absolute(),
            data_dir=data,
            database_url=owner_url or given.get("HOTSWAP_DATABASE_URL"),
        )
    except StackError as error:
        fail(as_json, REFUSED, "restore_failed", str(error))
    print_result(
        as_json,
        {"path": str(done.path), "takenAt": done.taken_at, "dataDir": str(data)},
        f"Restored to {data}, as of {done.taken_at}. What happened since is lost to "
        "the server: go through docs/operate/backup.md, After a restore.",
    )


def database_url_of(data_dir: Path) -> str | None:
    """Return where the database of an installation answers; None if nothing runs."""
    from hotswap.common.secret_files import EnvironmentWithFiles

    if given := EnvironmentWithFiles().get("HOTSWAP_DATABASE_URL"):
        return given
    try:
        state = json.loads((data_dir / "stack.json").read_text())
        os.kill(int(state["pid"]), 0)
        return str(state["database_url"])
    except (OSError, ValueError, KeyError):
        return None
