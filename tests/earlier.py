"""An earlier revision of HotSwap, to be run beside the present one."""

import re
import subprocess
from pathlib import Path

from tests.live import PROJECT_DIR

MIGRATIONS = ":(glob)**/migrations/*.py"


class NoHistoryError(Exception):
    """The repository does not reach back that far, and nobody can be asked for more."""


def git(*arguments: str) -> bytes:
    """Run git in the repository and return its output.

    Raises:
        NoHistoryError: it failed.
    """
    done = subprocess.run(
        ["git", *arguments], cwd=PROJECT_DIR, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise NoHistoryError(done.stderr.decode(errors="replace").strip())
    return done.stdout


def find_earlier() -> str:
    """Return the last release, or without one what came before the newest migration.

    A shallow clone fetches its history first.

    Raises:
        NoHistoryError: there is no such revision.
    """
    if git("rev-parse", "--is-shallow-repository").strip() == b"true":
        git("fetch", "--quiet", "--unshallow", "--tags")
    tags = git("tag", "--merged", "HEAD", "--sort=-v:refname").decode().split()
    for tag in tags:
        if re.fullmatch(r"v\d+\.\d+\.\d+", tag):
            return tag
    newest = git("log", "-1", "--diff-filter=A", "--format=%H", "--", MIGRATIONS)
    if not newest.strip():
        raise NoHistoryError("there is no commit with a migration")
    return f"{newest.decode().strip()}~1"


def put_earlier(revision: str, folder: Path) -> None:
    """Write the files of a revision into a new folder.

    Raises:
        NoHistoryError: there is no such revision.
    """
    archive = git("archive", "--format=tar", revision)
    folder.mkdir()
    subprocess.run(
        ["tar", "--extract", "--directory", folder], input=archive, check=True
    )
