"""Secrets kept in files that only their owner can read.

Settings read through this module, so it imports nothing that needs them.
"""

import contextlib
import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from environ.fileaware_mapping import FileAwareMapping


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


def replace_secret_file(path: Path, content: bytes) -> None:
    """Put a file of mode 0600 in the place of one, at once and for good."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        write_secret_file(draft, content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_or_create_secret(path: Path) -> str:
    """Return the secret in the file, made up at the first call (64 hex digits)."""
    if not path.exists():
        with contextlib.suppress(FileExistsError):
            write_secret_file(path, secrets.token_hex(32).encode())
    return path.read_text().strip()


class EnvironmentWithFiles(FileAwareMapping):
    """The environment, where `NAME_FILE` may name a file with the value of `NAME`.

    The file wins over the variable; blanks and line ends around its text are dropped.
    """

    def __getitem__(self, name: str) -> str:
        """Return a value.

        Raises:
            KeyError: neither is set.
            ImproperlyConfigured: the file cannot be read.
        """
        path = self.env.get(f"{name}_FILE")
        if not path:
            return str(self.env[name])
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no text"
            raise ImproperlyConfigured(
                f"{name}_FILE cannot be read: {reason}"
            ) from error
