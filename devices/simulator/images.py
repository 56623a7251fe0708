"""Keep images in memory, shared by all devices of the process.

Rules:
- Equal images are kept once, whatever the number of devices that hold them.
- Slots behave as those of a real device: only checked images boot, a switch is one
  step, the previous image stays.
"""

import hashlib
import logging
import sys
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from devices.agent.download import StagedImage
from devices.agent.files import sha256_of
from devices.agent.installer import (
    ContentChangedError,
    Image,
    ImageRecord,
    InstallError,
)
from devices.agent.states import AgentState

logger = logging.getLogger(__name__)


class ImagePool:
    """Files of images by digest, in a private folder that goes with the pool."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hotswap-simulator-")
        self._lock = threading.Lock()

    def add(self, content: bytes) -> str:
        """Keep an image and give its lower-case hex SHA-256."""
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.path(sha256)
        with self._lock:
            if not path.exists():
                temporary = path.with_suffix(".new")
                temporary.write_bytes(content)
                temporary.replace(path)
        return sha256

    def path(self, sha256: str) -> Path:
        """Give the file of an image, which need not exist."""
        return Path(self._folder.name) / f"{sha256}.pyz"

    def close(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()


@dataclass(slots=True)
class MemoryImage:
    """Bytes fetched so far; see `StagedImage`."""

    _content: bytearray = field(default_factory=bytearray)
    _etag: str = ""

    def length_bytes(self) -> int:
        """See `StagedImage`."""
        return len(self._content)

    def etag(self) -> str:
        """See `StagedImage`."""
        return self._etag

    def free_bytes(self) -> int:
        """See `StagedImage`; memory is the pool's concern."""
        return sys.maxsize

    def begin(self, etag: str) -> None:
        """See `StagedImage`."""
        self._content.clear()
        self._etag = etag

    def append(self, block: bytes) -> None:
        """See `StagedImage`."""
        self._content += block

    def sync(self) -> None:
        """See `StagedImage`; memory needs nothing."""

    def blocks(self) -> Iterable[bytes]:
        """See `StagedImage`."""
        return (bytes(self._content),)


@dataclass(slots=True)
class MemoryStaging:
    """Staged images of one device; see `Staging`."""

    _images: dict[str, MemoryImage] = field(default_factory=dict)

    def open(self, sha256: str) -> StagedImage:
        """See `Staging`."""
        return self._images.setdefault(sha256, MemoryImage())

    def clear(self, *, keep_sha256: str = "") -> None:
        """See `Staging`."""
        for sha256 in set(self._images) - {keep_sha256}:
            del self._images[sha256]


@dataclass(slots=True)
class MemoryInstaller:
    """Two slots of one device; see `Installer`."""

    switches_at_boot: ClassVar[bool] = False
    reads_other_slot: ClassVar[bool] = True
    pool: ImagePool
    _slots: list[ImageRecord | None] = field(default_factory=lambda: [None, None])
    _current: int | None = None

    def current(self) -> ImageRecord | None:
        """See `Installer`."""
        return None if self._current is None else self._slots[self._current]

    def previous(self) -> ImageRecord | None:
        """See `Installer`."""
        return None if self._current is None else self._slots[self._other]

    def bootable(self) -> Image | None:
        """See `Installer`."""
        return self._checked(self.current())

    def previous_image(self) -> Image | None:
        """See `Installer`."""
        return self._checked(self.previous())

    def recover(self) -> Image | None:
        """See `Installer`."""
        try:
            self._point_at_other()
        except InstallError as error:
            logger.error("no slot can be booted", extra={"reason": str(error)})
            return None
        return self.bootable()

    def install(self, blocks: Iterable[bytes], record: ImageRecord) -> None:
        """See `Installer`."""
        self._slots[self._other] = None
        content = b"".join(blocks)
        # Only the right bytes get into the pool, which all devices trust.
        if hashlib.sha256(content).hexdigest() != record.sha256:
            raise ContentChangedError(
                "The image changed between its check and its copy."
            )
        self.pool.add(content)
        self._slots[self._other] = record

    def activate(self, sha256: str) -> None:
        """See `Installer`."""
        for slot in (self._current, self._other):
            record = None if slot is None else self._slots[slot]
            if record and record.sha256 == sha256 and self._checked(record):
                self._current = slot
                return
        raise InstallError(f"No undamaged slot holds {sha256[:16]}.")

    def confirm(self, sha256: str) -> None:
        """See `Installer`; a slot that boots goes on doing so."""

    def revert(self, sha256: str) -> None:
        """See `Installer`."""
        current = self.current()
        if current is None or current.sha256 != sha256:
            self._point_at_other()

    def _point_at_other(self) -> None:
        if self._checked(self._slots[self._other]) is None:
            raise InstallError("The other slot holds no undamaged image.")
        self._current = self._other

    @property
    def _other(self) -> int:
        return 1 if self._current == 0 else 0

    def _checked(self, record: ImageRecord | None) -> Image | None:
        if record is None:
            return None
        path = self.pool.path(record.sha256)
        if sha256_of(path) != record.sha256:
            logger.error("slot is damaged")
            return None
        return Image(record, path)


@dataclass(slots=True)
class MemoryStateStore:
    """The state of one device, which outlives its boots; see `StateStore`."""

    _state: AgentState | None = None

    def load(self) -> AgentState | None:
        """See `StateStore`."""
        return self._state

    def save(self, state: AgentState) -> None:
        """See `StateStore`."""
        self._state = state
