"""Install by the owner's commands, into an A/B scheme that the agent knows nothing of.

Rules:
- What runs is what the hook `current` says, never what the agent has ordered.
- The hook `install` is given the verified bytes and no others: they are copied into a
  folder that only the agent's user can enter, and their digest is taken again just
  before the hook runs.
- Two images are known: the one that ran when the last installation began, which the
  hooks must keep, and the one that was installed beside it. Both are noted on disk
  before they count.
- Every hook may be run again after a crash.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from devices.agent.crashpoints import reach
from devices.agent.files import (
    is_no_space,
    is_sha256,
    sha256_of,
    sync_directory,
    write_atomically,
)
from devices.agent.hooks import HookRunner
from devices.agent.installer import (
    UNKNOWN_IMAGE,
    ContentChangedError,
    Image,
    ImageRecord,
    InstallError,
    StateUnknownError,
    StorageFullError,
)

logger = logging.getLogger(__name__)

CURRENT_TRIES = 3


@dataclass(frozen=True, slots=True)
class Running:
    """What the hook `current` says; "" stands for what it does not say."""

    sha256: str = ""
    slot: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """An image that the device holds, and the slot that the hooks named for it."""

    record: ImageRecord
    slot: str = ""

    def is_what_runs(self, running: Running) -> bool:
        """Compare by the strongest of what was said: digest, slot, version."""
        if running.sha256:
            return running.sha256 == self.record.sha256
        if running.slot and self.slot:
            return running.slot == self.slot
        return bool(running.version) and running.version == self.record.version


@dataclass(slots=True)
class HookInstaller:
    """See `Installer`.

    Attributes:
        folder: of the agent's own: the image to be installed and `images.json`.
        factory: what is known of the image that was there before the first update.
    """

    switches_at_boot: ClassVar[bool] = True
    reads_other_slot: ClassVar[bool] = False
    folder: Path
    runner: HookRunner
    factory: ImageRecord = UNKNOWN_IMAGE
    _running: ImageRecord | None = field(init=False, default=None)

    def prepare(self) -> None:
        """Create the folder and clear what an interrupted installation left behind."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)
        for leftover in (*self.folder.glob("*.new"), self._image_path):
            leftover.unlink(missing_ok=True)
        sync_directory(self.folder)

    def current(self) -> ImageRecord | None:
        """Give what runs, None if the hook does not say."""
        if self._running is None:
            try:
                self._running = self._recognise(self._ask())
            except InstallError as error:
                logger.error("what runs is not known", extra={"reason": str(error)})
        return self._running

    def previous(self) -> ImageRecord | None:
        """Give the known image that does not run."""
        current = self.current()
        for known in self._load():
            if current is None or known.record.sha256 != current.sha256:
                return known.record
        return None

    def bootable(self) -> Image | None:
        """Give what runs: the boot loader has started it, whatever it is."""
        current = self.current()
        return Image(current, None) if current else None

    def previous_image(self) -> Image | None:
        """See `Installer`; its bytes are out of reach, so it is fetched anew."""
        return None

    def recover(self) -> Image | None:
        """See `Installer`; this is the boot loader's work."""
        return None

    def install(self, blocks: Iterable[bytes], record: ImageRecord) -> None:
        """See `Installer`."""
        running = self._ask()
        kept = Known(self._recognise(running), running.slot)
        variables = self._variables(record, kept.record)
        self._copy(blocks, record)
        if self.runner.has("pre_install"):
            self.runner.run("pre_install", variables)
            reach("hooks.pre_install_done")
        # From here on the other slot holds nothing that can be relied on.
        self._save([kept], "kept")
        if sha256_of(self._image_path) != record.sha256:
            raise ContentChangedError("The image changed after its check.")
        reach("hooks.image_checked")
        slot = _parse(self.runner.run("install", variables)).slot
        reach("hooks.install_done")
        if slot and slot == kept.slot:
            raise InstallError(f"install: slot {slot} is the one that runs.")
        self._save([kept, Known(record, slot)], "installed")
        self._image_path.unlink()
        reach("hooks.image_removed")
        sync_directory(self.folder)
        reach("hooks.folder_synced")

    def activate(self, sha256: str) -> None:
        """See `Installer`."""
        known = self._load()
        for each in known[1:]:
            if each.record.sha256 == sha256:
                self._running = None
                self.runner.run(
                    "activate", self._variables(each.record, known[0].record, each.slot)
                )
                reach("hooks.activate_done")
                return
        raise InstallError(f"{sha256[:16]} is not installed.")

    def confirm(self, sha256: str) -> None:
        """See `Installer`."""
        if self.runner.has("confirm"):
            self.runner.run("confirm", {"HOTSWAP_SHA256": sha256})
            reach("hooks.confirm_done")

    def revert(self, sha256: str) -> None:
        """See `Installer`; also where the boot loader went back by itself."""
        self._running = None
        self.runner.run("revert", {"HOTSWAP_SHA256": sha256})
        reach("hooks.revert_done")

    def _ask(self) -> Running:
        for tries_left in reversed(range(CURRENT_TRIES)):
            try:
                return _parse(self.runner.run("current"))
            except InstallError as error:
                if not tries_left:
                    raise StateUnknownError(str(error)) from error
        raise AssertionError("unreachable")

    def _recognise(self, running: Running) -> ImageRecord:
        for known in self._load():
            if known.is_what_runs(running):
                return known.record
        # The factory image, or one that somebody else has put there: what the hook
        # does not say may be what the factory has said, unless it contradicts it.
        factory = self.factory
        is_factory = not self._load() and (
            running.sha256 in ("", factory.sha256)
            and running.version in ("", factory.version)
        )
        base = factory if is_factory else UNKNOWN_IMAGE
        return ImageRecord(
            version=running.version or base.version,
            sha256=running.sha256 or base.sha256,
            size_bytes=base.size_bytes,
        )

    def _copy(self, blocks: Iterable[bytes], record: ImageRecord) -> None:
        draft = self.folder / "image.new"
        draft.unlink(missing_ok=True)
        digest = hashlib.sha256()
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
            with os.fdopen(descriptor, "wb") as file:
                reach("hooks.image_created")
                for block in blocks:
                    digest.update(block)
                    file.write(block)
                file.flush()
                reach("hooks.image_written")
                os.fsync(file.fileno())
            reach("hooks.image_flushed")
            draft.replace(self._image_path)
            reach("hooks.image_renamed")
            sync_directory(self.folder)
            reach("hooks.image_synced")
        except OSError as error:
            draft.unlink(missing_ok=True)
            kind = StorageFullError if is_no_space(error) else InstallError
            raise kind(f"The image cannot be copied: {error}.") from error
        if digest.hexdigest() != record.sha256:
            self._image_path.unlink()
            raise ContentChangedError(
                "The image changed between its check and its copy."
            )

    def _variables(
        self, record: ImageRecord, running: ImageRecord, slot: str = ""
    ) -> dict[str, str]:
        return {
            "HOTSWAP_IMAGE": str(self._image_path.absolute()),
            "HOTSWAP_SHA256": record.sha256,
            "HOTSWAP_VERSION": record.version,
            "HOTSWAP_SIZE": str(record.size_bytes),
            "HOTSWAP_SLOT": slot,
            "HOTSWAP_RUNNING_SHA256": running.sha256,
            "HOTSWAP_RUNNING_VERSION": running.version,
        }

    @property
    def _image_path(self) -> Path:
        return self.folder / "image"

    @property
    def _known_path(self) -> Path:
        return self.folder / "images.json"

    def _load(self) -> list[Known]:
        """Give what is known: the image that was kept, then the installed one."""
        try:
            found: list[dict[str, Any]] = json.loads(self._known_path.read_bytes())
            return [
                Known(ImageRecord(**each["record"]), str(each["slot"]))
                for each in found
            ]
        except (OSError, ValueError, TypeError, KeyError):
            return []

    def _save(self, known: list[Known], what: str) -> None:
        try:
            write_atomically(
                self._known_path,
                json.dumps([asdict(each) for each in known], sort_keys=True).encode(),
                crash_prefix=f"hooks.{what}",
            )
        except OSError as error:
            kind = StorageFullError if is_no_space(error) else InstallError
            raise kind(f"images.json cannot be written: {error}.") from error


def _parse(output: str) -> Running:
    """Read lines of `sha256=`, `slot=` and `version=`; others are left to the owner.

    Raises:
        InstallError: a digest is not one.
    """
    fields: dict[str, str] = {}
    for line in output.splitlines():
        name, equals, value = line.partition("=")
        if equals and name.strip() in {"sha256", "slot", "version"}:
            fields[name.strip()] = value.strip()[:128]
    running = Running(**fields)
    if running.sha256 and not is_sha256(running.sha256):
        raise InstallError(f"{running.sha256[:70]!r} is not a SHA-256.")
    return running
