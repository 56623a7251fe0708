"""Static files: named by their content, compressed, kept by browsers for ever.

Rules:
- They are collected beside the source, by `hotswap serve` and where the image of the
  container is built; a process that finds none, or those of other sources, serves the
  files as they lie there, under their plain names.
- What no page loads is not collected.
"""

import fcntl
import hashlib
import logging
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from whitenoise.storage import CompressedManifestStaticFilesStorage

logger = logging.getLogger(__name__)

STATE_NAME = ".sources"
LEFT_OUT = ("admin", "redoc*", "rest_framework*", "*.map")


class HashedStaticFiles(CompressedManifestStaticFilesStorage):
    """Names by content where they were collected from these sources; else plain ones.

    Asking whether they were costs some 10 ms in each process that shows pages.
    """

    manifest_strict = False

    def read_manifest(self) -> str | None:
        if not is_collected():
            return None
        found: str | None = super().read_manifest()
        return found

    def stored_name(self, name: str) -> str:
        return super().stored_name(name) if self.hashed_files else name

    def hashed_name(self, name: str, *args: Any, **kwargs: Any) -> str:
        """Return the name by content; of what is not there, its plain name.

        Style sheets of others name files that they do not bring.
        """
        try:
            return str(super().hashed_name(name, *args, **kwargs))
        except ValueError:
            return name


def is_collected() -> bool:
    """Tell whether what is collected comes from the files as they are now."""
    try:
        return _state().read_text() == _sources_digest()
    except OSError:
        return False


def collect_static_files() -> bool:
    """Collect the static files, unless those of the present sources are there.

    Returns:
        Whether they are there; not where the folder of the source cannot be written.
    """
    root = Path(settings.STATIC_ROOT)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with (root.parent / f".{root.name}.lock").open("a") as lock:
            # Two stacks of one source may start at once.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not is_collected():
                _state().unlink(missing_ok=True)
                call_command(
                    "collectstatic",
                    interactive=False,
                    verbosity=0,
                    ignore_patterns=list(LEFT_OUT),
                )
                _state().write_text(_sources_digest())
    except OSError as error:
        logger.warning(
            "Static files were not collected: pages load them under their plain names",
            extra={"reason": str(error), "remedy": "python -m hotswap.stack.static"},
        )
        return False
    return True


def _state() -> Path:
    return Path(settings.STATIC_ROOT) / STATE_NAME


def _sources_digest() -> str:
    """Digest the names and sizes of all files, and the content of the own ones."""
    digest = hashlib.sha256()
    own = tuple(str(folder) for folder in settings.STATICFILES_DIRS)
    for finder in get_finders():
        for name, storage in finder.list(list(LEFT_OUT)):
            path = Path(storage.path(name))
            digest.update(f"{name} {path.stat().st_size}\n".encode())
            if str(path).startswith(own):
                digest.update(path.read_bytes())
    return digest.hexdigest()
