"""Keep two images and switch between them.

Rules:
- Two slots; `current` names the one that boots. An image goes only into the other.
- A slot is valid when its record is there and the image's SHA-256 is the recorded
  one. The record is written last and removed first.
- A slot is checked again before it is activated and before it is started from.
- A switch is one atomic rename, so there is always exactly one current slot.
- Nothing is written through a link: a slot that is one may lead to what runs.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from devices.agent.crashpoints import reach
from devices.agent.files import (
    is_no_space,
    point_link,
    sha256_of,
    sync_directory,
    write_atomically,
)
from devices.agent.protocol import ErrorCode

logger = logging.getLogger(__name__)

SLOTS = ("a", "b")


class InstallError(Exception):
    """An image could not be installed or activated; `code` is what is reported."""

    code = ErrorCode.INSTALL_FAILED


class StorageFullError(InstallError):
    """There is no room for the image."""

    code = ErrorCode.DEVICE_STORAGE_FULL


class StateUnknownError(InstallError):
    """It cannot be told what runs now."""

    code = ErrorCode.DEVICE_STATE_UNKNOWN


class InstallLaterError(InstallError):
    """Not now, but the same is worth trying again."""


class ContentChangedError(InstallError):
    """The bytes handed over are not those that were verified; fetch them again."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What is known of an image in a slot."""

    version: str
    sha256: str
    size_bytes: int
    sequence: int = 0
    security_version: int = 0


UNKNOWN_IMAGE = ImageRecord(version="0.0.0-unknown", sha256="0" * 64, size_bytes=0)
"""Stands for "not known": below all versions where they are semantic."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that may be run, and its file, whose digest was just checked.

    Without a file it is the system's image, which the boot loader has started.
    """

    record: ImageRecord
    path: Path | None


class Installer(Protocol):
    """What the agent needs of a place for images.

    Attributes:
        switches_at_boot: `activate` and `revert` count from the next boot on, and a
            boot loader may go back by itself. Then `current` tells what runs.
        reads_other_slot: it can check the bytes of the slot that does not boot.
    """

    switches_at_boot: ClassVar[bool]
    reads_other_slot: ClassVar[bool]

    def current(self) -> ImageRecord | None:
        """Give the record of the slot that boots, None if it has none."""

    def previous(self) -> ImageRecord | None:
        """Give the record of the other slot, None if it has none."""

    def bootable(self) -> Image | None:
        """Check the current slot's image and give it, None if it is damaged."""

    def previous_image(self) -> Image | None:
        """Check the other slot's image and give it, None if damaged or absent."""

    def recover(self) -> Image | None:
        """Boot the other slot because the current one is damaged, None if both are."""

    def install(self, blocks: Iterable[bytes], record: ImageRecord) -> None:
        """Put an image into the slot that does not boot. May be repeated.

        Raises:
            ContentChangedError: the bytes are not those of the record.
            InstallError: they cannot be written.
        """

    def activate(self, sha256: str) -> None:
        """Make the slot with this image the one that boots. May be repeated.

        Raises:
            InstallError: no slot holds this image undamaged.
        """

    def confirm(self, sha256: str) -> None:
        """Keep booting this image, which has passed its trial. May be repeated.

        Raises:
            InstallError: it cannot be kept.
        """

    def revert(self, sha256: str) -> None:
        """Make the image from before, this one, boot again. May be repeated.

        Raises:
            InstallError: it is not there undamaged.
        """


@dataclass(frozen=True, slots=True)
class SlotInstaller:
    """Two folders and a symbolic link.

    `root/slots/{a,b}/image`, `root/slots/{a,b}/record.json`, `root/current` -> slot.
    """

    switches_at_boot: ClassVar[bool] = False
    reads_other_slot: ClassVar[bool] = True
    root: Path

    def prepare(self) -> None:
        """Create the folders and clear what an interrupted write left behind."""
        for slot in SLOTS:
            folder = self._folder(slot)
            if self._is_link(slot):
                logger.error("slot is a link", extra={"slot": slot})
                continue
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob("*.new"):
                leftover.unlink()
        (self.root / "current.new").unlink(missing_ok=True)
        sync_directory(self.root / "slots")
        sync_directory(self.root)

    def current(self) -> ImageRecord | None:
        """See `Installer`."""
        slot = self._current_slot()
        return self._record(slot) if slot else None

    def previous(self) -> ImageRecord | None:
        """See `Installer`."""
        return self._record(self._other_slot()) if self._current_slot() else None

    def bootable(self) -> Image | None:
        """See `Installer`."""
        slot = self._current_slot()
        return self._checked(slot) if slot else None

    def previous_image(self) -> Image | None:
        """See `Installer`."""
        return self._checked(self._other_slot())

    def recover(self) -> Image | None:
        """See `Installer`."""
        if not any(self._record(slot) for slot in SLOTS):
            logger.warning("no image was ever installed")
            return None
        try:
            self._point_at_other()
        except InstallError as error:
            logger.error("no slot can be booted", extra={"reason": str(error)})
            return None
        logger.error("current slot is damaged, switched to the other one")
        return self.bootable()

    def install(self, blocks: Iterable[bytes], record: ImageRecord) -> None:
        """See `Installer`."""
        slot = self._other_slot()
        if self._is_link(slot):
            raise InstallError(f"Slot {slot} is a link: nothing is written through it.")
        try:
            self._write(self._folder(slot), blocks, record)
        except OSError as error:
            kind = StorageFullError if is_no_space(error) else InstallError
            raise kind(f"Slot {slot} cannot be written: {error}.") from error

    def activate(self, sha256: str) -> None:
        """See `Installer`."""
        current = self._current_slot()
        for slot in (current, self._other_slot()):
            record = self._record(slot) if slot else None
            if slot and record and record.sha256 == sha256 and self._checked(slot):
                if slot != current:
                    self._point(slot, "switch")
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
        slot = self._other_slot()
        if self._checked(slot) is None:
            raise InstallError("The other slot holds no undamaged image.")
        self._point(slot, "fall_back")

    def _write(
        self, folder: Path, blocks: Iterable[bytes], record: ImageRecord
    ) -> None:
        # Without its record the slot is invalid, whatever happens from here on.
        (folder / "record.json").unlink(missing_ok=True)
        reach("install.record_removed")
        sync_directory(folder)
        reach("install.slot_invalidated")
        digest = hashlib.sha256()
        temporary = folder / "image.new"
        try:
            # A link in its place would be followed.
            temporary.unlink(missing_ok=True)
            with temporary.open("xb") as file:
                reach("install.image_created")
                for block in blocks:
                    digest.update(block)
                    file.write(block)
                file.flush()
                reach("install.image_written")
                os.fsync(file.fileno())
        except OSError:
            # On a full disk the failure could not even be saved beside it.
            temporary.unlink(missing_ok=True)
            raise
        if digest.hexdigest() != record.sha256:
            temporary.unlink()
            raise ContentChangedError(
                "The image changed between its check and its copy."
            )
        reach("install.image_flushed")
        temporary.replace(folder / "image")
        reach("install.image_renamed")
        sync_directory(folder)
        reach("install.image_synced")
        write_atomically(
            folder / "record.json",
            json.dumps(asdict(record), sort_keys=True).encode(),
            crash_prefix="install.record",
        )

    def _point(self, slot: str, crash_prefix: str) -> None:
        try:
            point_link(
                self.root / "current", f"slots/{slot}", crash_prefix=crash_prefix
            )
        except OSError as error:
            raise InstallError(f"The switch failed: {error}.") from error

    def _folder(self, slot: str) -> Path:
        return self.root / "slots" / slot

    def _is_link(self, slot: str) -> bool:
        folder = self._folder(slot)
        return folder.is_symlink() or folder.parent.is_symlink()

    def _current_slot(self) -> str | None:
        try:
            name = (self.root / "current").readlink().name
        except OSError:
            return None
        return name if name in SLOTS else None

    def _other_slot(self) -> str:
        return "b" if self._current_slot() == "a" else "a"

    def _record(self, slot: str) -> ImageRecord | None:
        try:
            content = (self._folder(slot) / "record.json").read_bytes()
            return ImageRecord(**json.loads(content))
        except (OSError, ValueError, TypeError):
            return None

    def _checked(self, slot: str) -> Image | None:
        record = self._record(slot)
        if record is None:
            return None
        path = self._folder(slot) / "image"
        if sha256_of(path) != record.sha256:
            logger.error("slot is damaged", extra={"slot": slot})
            return None
        return Image(record, path)
