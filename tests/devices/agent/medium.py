"""The agent on a medium that forgets what was not flushed: a power cut, in a process.

`python -m tests.devices.agent.medium --config ...` runs the agent as it is. At each
`fsync` it notes what is on the medium from then on: the bytes of a file, or the names
in a folder. When the agent kills itself at a crash point, that is written beside the
device's folder, as the disk that is found after the cut.

Rules:
- What was there at the start of the process is on the medium.
- The bytes of a file and its name are flushed apart, each by an `fsync` of its own.
- "cut" loses all that was not flushed. "torn" keeps a part of it by chance: each name
  in its old or new state, each file with old, new, cut off or zeroed bytes.
- A rename is one step: it is kept as a whole or lost as a whole.
- `run` and the log are kept, as the tests read there what was executed.
"""

import os
import random
import resource
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

MANNER = "HOTSWAP_TEST_MEDIUM"
"""How much is lost: "cut", or "torn:" and a seed."""
TRAIL = "HOTSWAP_TEST_TRAIL"
"""A file to which each point that is passed is added, with the process's id."""
SUFFIX = ".medium"

Entry = int | str
"""What a name stands for: the inode of a file or folder, or the target of a link."""
Choose = Callable[[], float]
"""Gives chance, 0 to 1."""


def always_lost() -> float:
    """Stand for chance where all that was not flushed is lost."""
    return 0.0


@dataclass
class Medium:
    """What a power cut would leave of a folder.

    Attributes:
        contents: the flushed bytes of a file by inode.
        names: the flushed names in a folder by inode.
    """

    root: Path
    kept: frozenset[str] = frozenset()
    contents: dict[int, bytes] = field(default_factory=dict)
    names: dict[int, dict[str, Entry]] = field(default_factory=dict)
    modes: dict[int, int] = field(default_factory=dict)
    _pins: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take all that is there as flushed."""
        for folder, _, files in os.walk(self.root):
            if self._is_kept(Path(folder)):
                continue
            self.flush(Path(folder))
            for name in files:
                path = Path(folder) / name
                if not path.is_symlink():
                    self.flush(path)

    def flush(self, path: Path, inode: int | None = None) -> None:
        """Note what is on the medium after an `fsync` of this path."""
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            self.names[found.st_ino] = self._look(path)
        else:
            self._pin(path)
            self.contents[inode or found.st_ino] = path.read_bytes()

    def fsync(self, descriptor: int) -> None:
        """See `flush`."""
        path = Path(f"/proc/self/fd/{descriptor}")
        target = path.readlink()
        if not target.is_relative_to(self.root) or self._is_kept(target):
            return
        self.flush(target if target.is_dir() else path)

    def leave(self, target: Path, chance: Choose) -> None:
        """Write what a power cut now would leave.

        Args:
            target: a folder that does not exist yet.
            chance: whether each step that was not flushed is lost, if below 0.5.
        """
        self._leave_folder(self.root, self.root.stat().st_ino, target, chance)

    def _leave_folder(
        self, path: Path, inode: int, target: Path, chance: Choose
    ) -> None:
        target.mkdir()
        now = self._look(path) if path.is_dir() else {}
        names = merged(self.names.get(inode, {}), now, chance)
        for name, entry in names.items():
            if name in self.kept:
                continue
            if isinstance(entry, str):
                (target / name).symlink_to(entry)
            elif stat.S_ISDIR(self.modes[entry]):
                self._leave_folder(path / name, entry, target / name, chance)
            else:
                (target / name).write_bytes(self._bytes_of(entry, chance))
                (target / name).chmod(stat.S_IMODE(self.modes[entry]))
        for name in self.kept:
            if (path / name).is_dir():
                shutil.copytree(path / name, target / name)
            elif (path / name).exists():
                shutil.copy(path / name, target / name)

    def _bytes_of(self, inode: int, chance: Choose) -> bytes:
        flushed = self.contents.get(inode, b"")
        if chance is always_lost:
            return flushed
        # Through the pin, as the name may be gone.
        now = Path(f"/proc/self/fd/{self._pins[inode]}").read_bytes()
        if now == flushed:
            return now
        share = chance()
        beyond = len(now) - len(flushed)
        choices = (
            flushed,
            now,
            now[: int(len(now) * chance())],
            flushed + bytes(max(0, beyond)),
        )
        return choices[int(share * len(choices))]

    def _look(self, folder: Path) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for path in folder.iterdir():
            if path.name in self.kept:
                continue
            if path.is_symlink():
                found[path.name] = str(path.readlink())
                continue
            self._pin(path)
            found[path.name] = path.stat().st_ino
        return found

    def _pin(self, path: Path) -> None:
        """Hold an inode, as the number of one that is gone is given to another."""
        descriptor = os.open(path, os.O_PATH)
        found = os.fstat(descriptor)
        self.modes[found.st_ino] = found.st_mode
        if found.st_ino in self._pins:
            os.close(descriptor)
        else:
            self._pins[found.st_ino] = descriptor

    def _is_kept(self, path: Path) -> bool:
        return bool(self.kept.intersection(path.relative_to(self.root).parts))


def merged(
    flushed: Mapping[str, Entry], now: Mapping[str, Entry], chance: Choose
) -> dict[str, Entry]:
    """Give the names in a folder when each step since the flush is kept or lost."""
    result = dict(flushed)
    changed = {name for name in {*flushed, *now} if flushed.get(name) != now.get(name)}
    while changed:
        name = min(changed)
        # A rename has two names, and both change or none.
        step = {name} | {
            other
            for other in changed
            if (name in flushed and now.get(other) == flushed[name])
            or (other in flushed and now.get(name) == flushed[other])
        }
        changed -= step
        if chance() < 0.5:
            continue
        for each in step:
            result.pop(each, None)
            if each in now:
                result[each] = now[each]
    return result


def chance_of(manner: str) -> Choose:
    """Give the chance that a manner stands for."""
    kind, _, seed = manner.partition(":")
    return random.Random(seed).random if kind == "torn" else always_lost


def power_fails_on_kill(medium: Medium, manner: str) -> None:
    """Have each `fsync` noted, and leave the medium when this process kills itself."""
    fsync, kill = os.fsync, os.kill

    def noting_fsync(descriptor: int) -> None:
        fsync(descriptor)
        medium.fsync(descriptor)

    def leaving_kill(pid: int, number: int) -> None:
        if pid == os.getpid() and number == signal.SIGKILL:
            target = medium.root.with_name(medium.root.name + SUFFIX)
            medium.leave(target, chance_of(manner))
        kill(pid, number)

    os.fsync = noting_fsync  # type: ignore[assignment]
    os.kill = leaving_kill


def note_passages(trail: Path) -> None:
    """Have each point that is passed added to a file."""
    from devices.agent import crashpoints

    reach = crashpoints.reach

    def noting_reach(point: str) -> None:
        with trail.open("a") as file:
            file.write(f"{os.getpid()} {point}\n")
        reach(point)

    crashpoints.reach = noting_reach


def main() -> int:
    """Run the agent on such a medium."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if trail := os.environ.get(TRAIL):
        note_passages(Path(trail))
    if manner := os.environ.get(MANNER):
        config = Path(sys.argv[sys.argv.index("--config") + 1])
        kept = frozenset({"run", "agent.log"})
        power_fails_on_kill(Medium(config.parent.resolve(), kept), manner)
    # Only now, so that every module takes what was put in place above.
    from devices.agent.__main__ import main as run_agent

    return run_agent()


if __name__ == "__main__":
    sys.exit(main())
