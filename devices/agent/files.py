"""Write files so that a power cut leaves the old content or the new, never a mix.

Rules:
- A file is written under a temporary name, flushed to the medium, then renamed.
- A rename counts only once its folder is flushed too.
"""

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from devices.agent.crashpoints import reach

BLOCK_BYTES = 64 * 1024
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_no_space(error: OSError) -> bool:
    """Say whether a write failed for want of space: disk, quota or size limit."""
    return error.errno in _NO_SPACE


def sync_directory(folder: Path) -> None:
    """Flush the names in a folder to the medium."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and those above it, and flush their names to the medium."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True, mode=mode)
    for each in reversed(missing):
        sync_directory(each.parent)


def write_atomically(
    path: Path,
    content: bytes,
    *,
    crash_prefix: str,
    is_private: bool = False,
) -> None:
    """Replace a file by new content in one step.

    Args:
        path: the file; its folder exists.
        content: all of the new content.
        crash_prefix: of the crash points passed after each step, see `WRITE_STEPS`.
        is_private: whether only the owner may read it.
    """
    temporary = path.with_name(path.name + ".new")
    mode = 0o600 if is_private else 0o666
    # Made anew, as a file that is there keeps the mode it has.
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        reach(f"{crash_prefix}.created")
        file.write(content)
        file.flush()
        reach(f"{crash_prefix}.written")
        os.fsync(file.fileno())
    reach(f"{crash_prefix}.flushed")
    temporary.replace(path)
    reach(f"{crash_prefix}.renamed")
    sync_directory(path.parent)
    reach(f"{crash_prefix}.synced")


def point_link(link: Path, target: str, *, crash_prefix: str) -> None:
    """Point a symbolic link at another target by one atomic rename."""
    temporary = link.with_name(link.name + ".new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    reach(f"{crash_prefix}.link_written")
    temporary.replace(link)
    reach(f"{crash_prefix}.link_renamed")
    sync_directory(link.parent)
    reach(f"{crash_prefix}.synced")


def read_blocks(path: Path) -> Iterator[bytes]:
    """Yield the content of a file in blocks of `BLOCK_BYTES`."""
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def sha256_of(path: Path) -> str | None:
    """Give the lower-case hex SHA-256 of a file, None if it cannot be read."""
    digest = hashlib.sha256()
    try:
        for block in read_blocks(path):
            digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


def is_sha256(text: str) -> bool:
    """Say whether this is a SHA-256 in lower-case hex."""
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)
