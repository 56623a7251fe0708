"""Tell how long ago a file was last changed, whatever the wall clock says.

Rules:
- A board without a clock boots in 1970 and is set by years while it runs, so the time
  of a file and the time of day are never subtracted from one another.
- A change is seen by whoever looks: the age is that of the last look that found another
  file, other bytes or another time of writing than the look before. Who wants exact
  ages looks often.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

Stamp = tuple[int, ...]
"""What changes whenever a file does: inode, times of change and size; () if absent."""


@dataclass(slots=True)
class FileAge:
    """Watches one file, which need not exist.

    A file that is there at the first look counts as changed at that moment.
    """

    path: Path
    monotonic: Callable[[], float] = time.monotonic
    _stamp: Stamp = field(init=False, default=())
    _changed_at: float = field(init=False, default=0.0)

    def seconds(self) -> float | None:
        """Look, and give the seconds since the last change, None without a file."""
        stamp = stamp_of(self.path)
        if stamp != self._stamp:
            self._stamp = stamp
            self._changed_at = self.monotonic()
        return self.monotonic() - self._changed_at if stamp else None


def stamp_of(path: Path) -> Stamp:
    """Give the stamp of a file as it is now."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
