"""What a process and its host say of themselves, and how several processes add up.

Rules:
- A web server has several processes and one address. Each keeps its numbers in a file
  of one folder, and whichever is asked adds all of them up; numbers of processes that
  have ended stay, so that sums never fall.
- The folder belongs to one start of the web server. Those of earlier starts are removed
  by the next.
- It must be named before prometheus_client is loaded.
"""

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
PREFIX = "hotswap-metrics"


def share_between_siblings() -> None:
    """Let the processes of one web server add their numbers up.

    To be called in each before prometheus_client is loaded; else nothing happens, and
    the process counts for itself.
    """
    if VARIABLE in os.environ or "prometheus_client" in sys.modules:
        return
    parent = os.getppid()
    base = Path(tempfile.gettempdir()) / f"{PREFIX}-{os.getuid()}"
    with contextlib.suppress(OSError):
        base.mkdir(mode=0o700, exist_ok=True)
        if base.lstat().st_uid != os.getuid() or base.is_symlink():
            return
        for folder in base.iterdir():
            pid, _, started = folder.name.partition("-")
            if pid.isdigit() and started != start_of(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)
        mine = base / f"{parent}-{start_of(parent)}"
        mine.mkdir(mode=0o700, exist_ok=True)
        os.environ[VARIABLE] = str(mine)


def start_of(pid: int) -> str:
    """Return a mark of when a process began, as ids are used again; "" if it is gone.

    Where there is no /proc the mark is "0" for every process.
    """
    if not Path("/proc/self/stat").exists():
        return "0"
    try:
        return _stat(pid)[19]
    except (OSError, IndexError):
        return ""


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat after the name, which may hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def sibling_pids() -> list[int]:
    """Return the ids of the living processes that share their numbers with this one."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        return [os.getpid()]
    pids = {
        int(text)
        for path in Path(folder).glob("*.db")
        if (text := path.stem.rpartition("_")[2]).isdigit()
    }
    return sorted(pid for pid in pids | {os.getpid()} if start_of(pid) not in ("", "0"))


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 if it is gone."""
    try:
        return int(_stat(pid)[21]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def program_restarts(data_dir: Path) -> Iterator[tuple[str, str, int]]:
    """Yield how often `hotswap serve` has started each program again, by reason.

    Nothing where another supervisor runs the programs: it counts for itself.
    """
    if not os.environ.get("HOTSWAP_SUPERVISED"):
        return
    with contextlib.suppress(OSError, ValueError, KeyError):
        restarts = json.loads((data_dir / "stack.json").read_text())["restarts"]
        for program, counts in restarts.items():
            for reason in ("ended", "frozen"):
                yield program, reason, counts.get(reason, 0)


def host_cpu_seconds() -> Iterator[tuple[str, float]]:
    """Yield the seconds that all processors were `busy` and `idle` since the start.

    Waiting for a disk is idle; what a hypervisor took is busy.
    """
    with contextlib.suppress(OSError, ValueError):
        line = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        numbers = [int(each) / os.sysconf("SC_CLK_TCK") for each in line]
        idle = numbers[3] + numbers[4]
        yield "idle", idle
        yield "busy", sum(numbers) - idle


def host_memory_bytes() -> Iterator[tuple[str, int]]:
    """Yield the `total` and the `available` memory of the host in bytes."""
    names = {"MemTotal": "total", "MemAvailable": "available"}
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in names:
                yield names[name], int(rest.split()[0]) * 1024
