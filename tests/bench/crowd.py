"""Many devices with faults, in processes of their own: `python -m tests.bench.crowd`.

Reads a job as JSON from its input and writes what happened as JSON. It loads nothing
of the server, and its devices know only what the API tells them.

Rules:
- Each thread has one connection and speaks for some of the devices, in turn.
- What is not answered as expected is counted under its status, never left out.
"""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.device import Device
from tests.bench.faults import FaultyDevice, Plan
from tests.bench.wire import Answer, Wire

PROJECT_DIR = Path(__file__).resolve().parent.parent.parent
GRACE_SECONDS = 120.0


@dataclass
class Tally:
    """What the threads of a process have seen."""

    statuses: Counter[str] = field(default_factory=Counter)
    notes: dict[str, Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, statuses: Counter[str]) -> None:
        with self.lock:
            self.statuses += statuses

    def note(self, name: str, said: Any) -> None:
        with self.lock:
            self.notes[name] = said


class Member:
    """One thread of the crowd: a connection, and the devices it speaks for."""

    def __init__(
        self, job: dict[str, Any], devices: list[list[str]], tally: Tally
    ) -> None:
        self.job = job
        self.tally = tally
        self.statuses: Counter[str] = Counter()
        wire = Wire(job["port"])
        self.devices = [
            Device(wire, name, token, job["version"], job["checksum"])
            for name, token in devices
        ]

    def run(self) -> None:
        try:
            self.live()
        except (OSError, EOFError, ValueError, KeyError) as error:
            # The parent ends the bench for any answer that it does not expect.
            self.statuses[f"{type(error).__name__}: {error}"] += 1
        finally:
            self.tally.add(self.statuses)

    def counted(self, send: Any, name: str) -> Answer:
        """Send one request and count its answer under a name."""
        answer: Answer = send()
        self.statuses[f"{name} {answer.status}"] += 1
        return answer

    def live(self) -> None:
        """Live with the faults that chance gave each device, until told to end."""
        fleet = [
            FaultyDevice(device, Plan.of(device.name, self.job["seed"]), self.counted)
            for device in self.devices
        ]
        deadline = time.monotonic() + self.job["seconds"]
        over = Path(self.job["over"])
        while time.monotonic() < deadline and not over.exists():
            started = time.monotonic()
            for device in fleet:
                device.step()
            # Nobody asks more often than once a second.
            time.sleep(max(0.05, 1.0 - (time.monotonic() - started)))
        for each in fleet:
            self.tally.note(each.device.name, each.account())


def split(devices: list[Any], parts: int) -> list[list[Any]]:
    return [found for n in range(parts) if (found := devices[n::parts])]


def run_here(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job in this process and tell what happened."""
    tally = Tally()
    members = [
        Member(job, devices, tally) for devices in split(job["devices"], job["threads"])
    ]
    threads = [threading.Thread(target=member.run) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"statuses": tally.statuses, "notes": tally.notes}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a crowd has seen: answers by kind and status, and what devices note."""

    statuses: Counter[str]
    notes: dict[str, Any]


def send_crowd(job: dict[str, Any], *, processes: int = 2) -> Outcome:
    """Run a job in some processes, each with its share of the devices.

    Raises:
        RuntimeError: one of them failed.
    """
    started: list[subprocess.Popen[bytes]] = []
    try:
        for devices in split(job["devices"], processes):
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.crowd"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=PROJECT_DIR,
            )
            started.append(process)
            assert process.stdin is not None
            process.stdin.write(json.dumps({**job, "devices": devices}).encode())
            process.stdin.close()
            process.stdin = None
        deadline = job["seconds"] + GRACE_SECONDS
        found = [json.loads(each.communicate(timeout=deadline)[0]) for each in started]
    except ValueError as error:
        raise RuntimeError("a process of the crowd failed; see above") from error
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()
    statuses: Counter[str] = Counter()
    notes: dict[str, Any] = {}
    for each in found:
        statuses.update(each["statuses"])
        notes |= each["notes"]
    return Outcome(statuses, notes)


if __name__ == "__main__":
    json.dump(run_here(json.load(sys.stdin)), sys.stdout)
