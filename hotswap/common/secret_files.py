"""Secrets kept in files that only their owner can read.

Standard library only: settings read their secret key through this module.
"""

import contextlib
import os
import secrets
from pathlib import Path


def write_secret_file(path: Path, content: bytes) -> None:
    """Create a file of mode 0600 with its whole content, or leave none behind.

    Raises:
        FileExistsError: another process was first.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A link fails where a rename would silently replace the winner of a race.
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def read_or_create_secret(path: Path) -> str:
    """Return the secret in the file, made up at the first call (64 hex digits)."""
    if not path.exists():
        with contextlib.suppress(FileExistsError):
            write_secret_file(path, secrets.token_hex(32).encode())
    return path.read_text().strip()
