"""Keep the key that the device logs in with.

Rules:
- A key is on the medium before it is tried, and takes the place of the former one only
  after it has worked: killed at any instant the device holds a key that logs in.
- A key that is waiting to be tried lies beside the key file, with `.next` at its end.
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from devices.agent.crashpoints import reach
from devices.agent.files import make_directory, sync_directory, write_atomically
from devices.agent.protocol import EnrolmentCall

logger = logging.getLogger(__name__)


class NoKeyError(Exception):
    """There is no key to log in with, and no way to get one."""


class Credentials(Protocol):
    """What a login needs of the place where keys are kept."""

    def keys(self) -> tuple[str, ...]:
        """Give the keys to try, in this order; none before an enrolment."""

    def obtain(self, call: EnrolmentCall) -> None:
        """Get a first key.

        Raises:
            NoKeyError: there is no way to.
            EnrolmentError: the server does not give one now.
        """

    def accepted(self, key: str, remaining_seconds: float | None) -> None:
        """Note that a login with this key worked, and how long the key lasts."""


class Enrolment(Protocol):
    """The way to a first key."""

    @property
    def outcome(self) -> str:
        """Say how the last call went: "", "pending" or "refused"."""

    def obtain(self, call: EnrolmentCall) -> str:
        """Ask for a key once and give it; see `Credentials.obtain`."""

    def finish(self) -> None:
        """Forget what only the enrolment needed: the key is saved."""


@dataclass(frozen=True, slots=True)
class FixedKey:
    """One key that never changes."""

    key: str = field(repr=False)

    def keys(self) -> tuple[str, ...]:
        """See `Credentials`."""
        return (self.key,)

    def obtain(self, call: EnrolmentCall) -> None:
        """See `Credentials`."""
        raise NoKeyError("There is no key.")

    def accepted(self, key: str, remaining_seconds: float | None) -> None:
        """See `Credentials`; there is nothing to note."""


@dataclass(slots=True)
class KeyFile:
    """A file with the key in use, and beside it the one that comes next.

    The files are read at each login, so a key that a person puts there counts.
    """

    path: Path
    enrolment: Enrolment | None = None
    monotonic: Callable[[], float] = time.monotonic
    _ends_at: float | None = field(init=False, default=None)

    def keys(self) -> tuple[str, ...]:
        """See `Credentials`: the next key comes first."""
        return tuple(key for key in (_read(self.next_path), _read(self.path)) if key)

    def obtain(self, call: EnrolmentCall) -> None:
        """See `Credentials`."""
        if self.enrolment is None:
            raise NoKeyError(f"{self.path} holds no key.")
        key = self.enrolment.obtain(call)
        make_directory(self.path.parent)
        write_atomically(
            self.path,
            key.encode(),
            is_private=True,
            crash_prefix="enrol.key",
        )
        self.enrolment.finish()

    def finish_enrolment(self) -> None:
        """Forget what an enrolment has left behind that a power cut fell into."""
        if self.enrolment is None or not self.keys():
            return
        try:
            self.enrolment.finish()
        except OSError as error:
            # It is of no use to anybody any more; the next start tries again.
            logger.warning("enrolment not cleared", extra={"reason": str(error)})

    def accepted(self, key: str, remaining_seconds: float | None) -> None:
        """See `Credentials`; settles which of two keys is the one in use."""
        self._ends_at = (
            None if remaining_seconds is None else self.monotonic() + remaining_seconds
        )
        next_key = _read(self.next_path)
        if not next_key:
            return
        try:
            if key == next_key:
                reach("rotate.tried")
                self.next_path.replace(self.path)
                reach("rotate.taken_into_use")
                logger.info("new API key in use")
            else:
                # It was tried before this one, and refused.
                self.next_path.unlink()
                reach("rotate.dropped")
                logger.warning("the server does not know the new API key")
            sync_directory(self.path.parent)
            reach("rotate.settled")
        except OSError as error:
            # Both keys stay, which does no harm; the next login settles it.
            logger.error("API key not confirmed", extra={"reason": str(error)})

    def remaining_seconds(self) -> float | None:
        """Say how long the key in use lasts, None if the server did not say."""
        return None if self._ends_at is None else self._ends_at - self.monotonic()

    def has_next(self) -> bool:
        """Say whether a new key waits to be tried."""
        return bool(_read(self.next_path))

    def make_room(self) -> None:
        """See that a new key can be saved, before one is asked for.

        Raises:
            OSError: it cannot.
        """
        descriptor = os.open(
            self._draft_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
        )
        try:
            os.write(descriptor, bytes(256))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        reach("rotate.room_made")

    def keep_next(self, key: str) -> None:
        """Save a key that has not been tried yet.

        Raises:
            OSError: it cannot be saved.
        """
        write_atomically(
            self.next_path,
            key.encode(),
            is_private=True,
            crash_prefix="rotate.key",
        )

    @property
    def next_path(self) -> Path:
        """Give the file of the key that has not been tried yet."""
        return self.path.with_name(self.path.name + ".next")

    @property
    def _draft_path(self) -> Path:
        return self.next_path.with_name(self.next_path.name + ".new")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
