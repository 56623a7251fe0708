"""Run the benches and say which targets are met: `python -m tests.bench [names]`.

Starts a HotSwap of its own on a folder and ports of its own, fills its database, and
removes everything at the end. Exit code 1: a target is missed, or a bench failed.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hotswap.stack.folder import free_port
from hotswap.stack.stack import Stack
from tests.bench import against, table
from tests.earlier import NoHistoryError
from tests.live import (
    ADMIN_PASSWORD,
    ADMIN_USERNAME,
    FOREIGN_PREFIXES,
    superuser_url,
)

DEVICES = 1_000_000
FEWEST_DEVICES = 2_000


def say(text: str = "") -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", help="benches to run; all if none is named")
    parser.add_argument("--devices", type=int, default=DEVICES, help="in the database")
    parser.add_argument("--seed", type=int, default=1, help="for all that is by chance")
    parser.add_argument("--list", action="store_true", help="name the benches and end")
    parser.add_argument(
        "--against", metavar="REV", help="a revision to be measured in turn with this"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="with --against, of each of the two"
    )
    found = parser.parse_args()
    if found.rounds < 1:
        parser.error("--rounds must be 1 at least")
    if found.devices < FEWEST_DEVICES:
        parser.error(f"--devices must be {FEWEST_DEVICES} at least")
    return found


def surroundings() -> str:
    """Say on what machine this runs."""
    import psutil

    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    memory = psutil.virtual_memory().total / (1 << 30)
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB of memory, Python "
        f"{sys.version.split()[0]}; load at the start {load}"
    )


def run(arguments: argparse.Namespace, folder: Path) -> list[table.Line]:
    """Start the stack, fill the database, run what was asked for."""
    for name in list(os.environ):
        if name.startswith(FOREIGN_PREFIXES):
            del os.environ[name]
    # Django reads it when the benches are loaded, which is below; so does the stack.
    from tests.bench.scale import Scale

    scale = Scale.for_devices(arguments.devices)
    stack = Stack(
        data_dir=folder,
        port=free_port(),
        environment={
            "HOTSWAP_ADMIN_USERNAME": ADMIN_USERNAME,
            "HOTSWAP_ADMIN_PASSWORD": ADMIN_PASSWORD,
            "HOTSWAP_REGIONS": ",".join(scale.regions),
            "HOTSWAP_DEFAULT_REGION": scale.regions[-1],
        },
        on_event=say,
    )
    stack.start()
    try:
        stack.wait_ready()
        os.environ["HOTSWAP_DATA_DIR"] = str(folder)
        os.environ["DJANGO_SETTINGS_MODULE"] = "hotswap.settings.local"
        os.environ["HOTSWAP_REGIONS"] = ",".join(scale.regions)
        # The fleet is written without its indexes.
        os.environ["HOTSWAP_DATABASE_URL"] = superuser_url(folder)
        import django

        django.setup()
        from tests.bench.benches import BENCHES
        from tests.bench.ground import Ground

        say(f"Machine: {surroundings()}; {', '.join(stack.embedded)}")
        ground = Ground(stack, scale, arguments.seed, ADMIN_PASSWORD)
        started = time.perf_counter()
        ground.fill()
        say(
            f"Workload: {arguments.devices:,} devices in the database, written in "
            f"{time.perf_counter() - started:.0f} s; seed {arguments.seed}"
        )
        lines = []
        for name in (x for x in BENCHES if x in (arguments.names or BENCHES)):
            lines += run_one(name, partial(BENCHES[name], ground))
        return lines
    finally:
        stack.stop()


def run_one(name: str, bench: Callable[[], list[table.Line]]) -> list[table.Line]:
    """Run one bench; what goes wrong is a line of the table, and the others go on."""
    say(f"{name} ...")
    started = time.perf_counter()
    try:
        lines = bench()
    except Exception as error:  # noqa: BLE001
        import traceback

        traceback.print_exc()
        lines = [table.failed(name, error)]
    for line in lines:
        say(f"  {line.work}: {line.measured}, {line.target}")
    say(f"  took {time.perf_counter() - started:.0f} s")
    return lines


def compare_with(arguments: argparse.Namespace, folder: Path) -> int:
    """Measure this revision and an earlier one in turn; the exit code is 0."""
    options = [*arguments.names, "--devices", str(arguments.devices)]
    say(f"Machine: {surroundings()}")
    try:
        found = against.compare(
            arguments.against,
            [*options, "--seed", str(arguments.seed)],
            rounds=arguments.rounds,
            folder=folder / "earlier",
            say=say,
        )
    except NoHistoryError as error:
        say(f"there is no revision {arguments.against}: {error}")
        return 2
    say()
    say("\n".join(against.table_of(arguments.against, found)))
    return 0


def main() -> int:
    arguments = read_arguments()
    from tests.bench.names import NAMES

    unknown = sorted(set(arguments.names) - set(NAMES))
    if unknown:
        say(f"there is no bench {', '.join(unknown)}; there are {', '.join(NAMES)}")
        return 2
    if arguments.list:
        say("\n".join(f"{name:12} {said}" for name, said in NAMES.items()))
        return 0
    # Ended from outside, it still stops its stack and removes its folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="hotswap-bench-"))
    try:
        if arguments.against:
            return compare_with(arguments, folder)
        lines = run(arguments, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    say()
    say(f"Machine: {surroundings()}")
    table.show(lines, say)
    missed = [line.work for line in lines if not line.is_met]
    say()
    say(f"Missed: {'; '.join(missed)}" if missed else "Every target is met.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
