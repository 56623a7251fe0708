"""Let a fleet live on, and see whether anything grows: `python -m tests.soak`.

Starts a HotSwap of its own and imports the devices. From then on, minute by minute,
they send heartbeats and poll at their pace, a thirtieth of them logs in anew, and fifty
others are updated by a deployment. After each minute memory, connections to the
database, the size of the data folder and the times of the requests are noted.

The first third of the minutes is for what fills once: caches, pools, the files of the
database. The last third must be like the second:

- memory of each program: at most a tenth and 8 MiB more;
- connections: at most two more;
- the data folder: grows by what is stored, so that it grows no faster;
- p99 of heartbeats and polls: at most twice as long.

Exit code 1: something grows, a device was not proved, or a request was answered
otherwise than it should be.
"""

import argparse
import json
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil
import psycopg

from hotswap.stack.stack import Stack
from tests.live import superuser_url
from tests.load.__main__ import IMAGE_BYTES, MODEL, Server, register, say
from tests.load.devices import PROGRAMS, build, send_devices

MIB: Final = 1 << 20
MINUTE: Final = 60.0
UPDATED: Final = 50
# Each token is made anew twice in its life of an hour.
LOGINS_EVERY: Final = 30
FEWEST_MINUTES: Final = 6
FEWEST_DEVICES: Final = 2_000
# What the last third may be above the second.
MEMORY_SHARE, MEMORY_MIB = 1.1, 8.0
MORE_CONNECTIONS: Final = 2
DISK_SHARE: Final = 1.2
LATENCY_SHARE, LATENCY_MS = 2.0, 5.0


@dataclass(frozen=True, slots=True)
class Minute:
    """What was seen in one minute, or at its end.

    Attributes:
        memory: MiB of each program with its children.
        connections: to the database.
        disk: MiB of the data folder.
        p99: milliseconds by kind of request.
        proved: devices that were updated.
        wrong: answers that were not expected, by what they were.
    """

    memory: dict[str, float]
    connections: int
    disk: float
    p99: dict[str, float]
    proved: int
    wrong: dict[str, int]


def judge(minutes: list[Minute]) -> Iterator[str]:
    """Yield what grows, and what went wrong; nothing where all is flat."""
    third = len(minutes) // 3
    second, last = minutes[third : 2 * third], minutes[2 * third : 3 * third]

    def medians(value: Callable[[Minute], float]) -> tuple[float, float]:
        return median(map(value, second)), median(map(value, last))

    for name in PROGRAMS:
        before, after = medians(lambda each, name=name: each.memory[name])  # type: ignore[misc]
        if after > before * MEMORY_SHARE + MEMORY_MIB:
            yield f"memory of {name}: {before:.0f} MiB, then {after:.0f}"
    before, after = medians(lambda each: each.connections)
    if after > before + MORE_CONNECTIONS:
        yield f"connections: {before:.0f}, then {after:.0f}"
    before, after = _growth(second), _growth(last)
    if after > before * DISK_SHARE + 1:
        yield f"data folder, MiB a minute: {before:.1f}, then {after:.1f}"
    for kind in ("heartbeat", "poll"):
        before, after = medians(lambda each, kind=kind: each.p99[kind])  # type: ignore[misc]
        if after > before * LATENCY_SHARE + LATENCY_MS:
            yield f"p99 of a {kind}: {before:.0f} ms, then {after:.0f}"
    for number, each in enumerate(minutes, start=1):
        if each.proved != UPDATED:
            yield f"minute {number}: {each.proved} of {UPDATED} were updated"
        if each.wrong:
            yield f"minute {number}: unexpected answers {each.wrong}"


def _growth(minutes: list[Minute]) -> float:
    """Return by how many MiB a minute the data folder grew."""
    return (minutes[-1].disk - minutes[0].disk) / max(1, len(minutes) - 1)


class Fleet:
    """The devices of a server, and what they do in a minute."""

    def __init__(
        self, server: Server, devices: list[dict[str, str]], given: argparse.Namespace
    ) -> None:
        self._server = server
        self._program = build()
        self._given = given
        self._old: dict[str, Any] = {}
        reserved = UPDATED * given.minutes
        self._updated, self._living = devices[:reserved], devices[reserved:]

    def begin(self) -> None:
        """Have every device log in and be heard."""
        self._old = self._server.upload("1.0.0", secrets.token_bytes(IMAGE_BYTES))
        for group in (self._updated, self._living):
            seen = self._send("prepare", group, atOnce=32)
            group[:] = seen["devices"]

    def live(self, number: int) -> Minute:
        """Let a minute pass; the first is 0."""
        given = self._given
        work = (
            partial(self._routine, "beats", number, given.heartbeat_seconds),
            partial(self._routine, "polls", number, given.poll_seconds),
            partial(self._log_in, number),
            partial(self._update, number),
        )
        with ThreadPoolExecutor(len(work)) as pool:
            seen = [each.result() for each in [pool.submit(each) for each in work]]
        kinds = {
            kind: figures
            for each in seen[:2]
            for kind, figures in each["kinds"].items()
        }
        stack = self._server.stack
        return Minute(
            memory={name: _memory_of(stack, name) for name in PROGRAMS},
            connections=_connections(stack),
            disk=_size_of(stack.folder.path) / MIB,
            p99={kind: figures["p99"] for kind, figures in kinds.items()},
            proved=seen[3]["proved"],
            wrong={what: n for each in seen for what, n in each["wrong"].items()},
        )

    def _routine(self, phase: str, number: int, every: float) -> dict[str, Any]:
        """Let the devices whose turn it is send a request, at an even pace."""
        rate = len(self._living) / every
        count = min(len(self._living), round(rate * MINUTE))
        first = number * count % len(self._living)
        turn = (self._living + self._living[:count])[first : first + count]
        return self._send(phase, turn, rate=rate, seconds=MINUTE)

    def _log_in(self, number: int) -> dict[str, Any]:
        place = slice(number % LOGINS_EVERY, None, LOGINS_EVERY)
        seen = self._send("prepare", self._living[place], atOnce=4)
        self._living[place] = seen["devices"]
        return seen

    def _update(self, number: int) -> dict[str, Any]:
        """Update the devices that are reserved for this minute."""
        group = self._updated[number * UPDATED :][:UPDATED]
        # Their tokens are as old as the run.
        group = self._send("prepare", group, atOnce=4)["devices"]
        new = self._server.upload(f"2.{number}.0", secrets.token_bytes(IMAGE_BYTES))
        self._server.send(
            "POST",
            "/deployments",
            json={
                "firmwareId": new["id"],
                "strategy": "Rolling",
                "targetDevices": [each["name"] for each in group],
                "batchSize": UPDATED,
                "batchWaitDuration": "PT0S",
                "healthCriteria": {
                    "confirmationDuration": "PT1S",
                    "heartbeatsRequired": 1,
                    "watchDuration": "PT10M",
                },
                "acknowledge": ["no_previous_image"],
            },
        )
        return self._send("update", group, atOnce=UPDATED)

    def _send(
        self, phase: str, devices: list[dict[str, str]], **fields: Any
    ) -> dict[str, Any]:
        return send_devices(
            self._program,
            {
                "url": self._server.stack.url,
                "devices": devices,
                "version": self._old["version"],
                "checksum": self._old["checksum"],
                "connections": 8,
                "pollSeconds": 1.0,
                "confirmationSeconds": 1.05,
                "giveUpSeconds": 120.0,
                "phase": phase,
                **fields,
            },
        )


def _memory_of(stack: Stack, name: str) -> float:
    """Return MiB that a program and its children have for themselves."""
    leader = psutil.Process(stack.pid(name))
    total = 0
    for process in (leader, *leader.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total / MIB


def _connections(stack: Stack) -> int:
    with psycopg.connect(superuser_url(stack.folder.path)) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchone()
    assert row is not None
    return int(row[0])


def _size_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def show(number: int, each: Minute) -> None:
    if number == 0:
        memory = " | ".join(PROGRAMS)
        say(f"| minute | {memory} | connections | disk | heartbeat p99 | poll p99 |")
        say(f"|---|{'---|' * len(PROGRAMS)}---|---|---|---|")
    memory = " | ".join(f"{each.memory[name]:.0f}" for name in PROGRAMS)
    say(
        f"| {number + 1} | {memory} | {each.connections} | {each.disk:.0f} "
        f"| {each.p99['heartbeat']:.1f} | {each.p99['poll']:.1f} |"
    )


def run(given: argparse.Namespace, folder: Path) -> int:
    """Do all of it, and return the exit code."""
    server = Server(folder)
    server.stack.start()
    minutes: list[Minute] = []
    try:
        server.stack.wait_ready()
        server.log_in()
        server.send("POST", "/device-models", json={"name": MODEL})
        say(f"{given.devices:,} devices register and log in ...")
        devices, _ = register(server, given.devices)
        fleet = Fleet(server, devices, given)
        fleet.begin()
        say("MiB of memory and disk, milliseconds:")
        for number in range(given.minutes):
            minutes.append(fleet.live(number))
            show(number, minutes[-1])
    finally:
        server.stack.stop()
        given.report.write_text(json.dumps([asdict(each) for each in minutes]))
    found = list(judge(minutes))
    for what in found:
        say(what)
    say("Something grows, or went wrong." if found else "Nothing grows.")
    return 1 if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--heartbeat-seconds", type=float, default=600)
    parser.add_argument("--poll-seconds", type=float, default=300)
    parser.add_argument("--report", type=Path, default=Path("build/soak-report.json"))
    given = parser.parse_args()
    if given.minutes < FEWEST_MINUTES:
        parser.error(f"--minutes must be {FEWEST_MINUTES} at least")
    if given.devices < max(FEWEST_DEVICES, 2 * UPDATED * given.minutes):
        parser.error(
            f"--devices must be {FEWEST_DEVICES} at least, and "
            f"{2 * UPDATED} for each minute"
        )
    given.report.parent.mkdir(parents=True, exist_ok=True)
    # Ended from outside, it still stops its stack and removes its folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="hotswap-soak-"))
    try:
        sys.exit(run(given, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
