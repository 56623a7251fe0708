"""Spoil downloads on purpose, to see them refused: the option `--corrupt`.

Nothing of this gets into the way of an order unless the option is given.
"""

from dataclasses import dataclass, field
from pathlib import Path

from devices.agent.download import FileStaging, StagedFile, StagedImage


@dataclass(frozen=True, slots=True)
class SpoiltFile(StagedFile):
    """A `.part` file of which the first byte that is added gets one bit flipped."""

    _spoilt: list[Path] = field(default_factory=list)

    def append(self, block: bytes) -> None:
        """See `StagedImage`."""
        if block and not self._spoilt:
            self._spoilt.append(self.path)
            block = bytes([block[0] ^ 1]) + block[1:]
        # The bare `super()` does not know the class that `slots` has made anew.
        super(SpoiltFile, self).append(block)


@dataclass(frozen=True, slots=True)
class SpoilingStaging(FileStaging):
    """A folder of `.part` files, each of them spoilt."""

    def open(self, sha256: str) -> StagedImage:
        """See `Staging`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return SpoiltFile(self.folder / f"{sha256}.part")
