"""A clock that can be set for the programs that are started with it alone."""

import mmap
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


def find_compiler() -> str | None:
    """Return the compiler of this machine, or None."""
    return shutil.which("gcc") or shutil.which("cc")


@dataclass(frozen=True)
class Clock:
    """What the programs are told to add to the time of day, in a file.

    Attributes:
        library: is loaded into the programs (`clock.c`).
    """

    library: Path
    offset: Path

    @classmethod
    def make(cls, folder: Path, name: str) -> "Clock":
        """Build the library, and begin with the right time."""
        compiler = find_compiler()
        assert compiler is not None
        library, offset = folder / f"{name}.so", folder / f"{name}.clock"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE)],
            check=True,
        )
        offset.write_bytes(struct.pack("q", 0))
        return cls(library, offset)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self.library),
            "HOTSWAP_TEST_CLOCK": str(self.offset),
        }

    def step(self, seconds: int) -> None:
        """Set the clock so many seconds ahead of the time of day."""
        with self.offset.open("r+b") as file, mmap.mmap(file.fileno(), 8) as place:
            place[:8] = struct.pack("q", seconds)
