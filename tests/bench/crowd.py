"""Many devices in processes of their own: `python -m tests.bench.crowd`.

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
WORDS = ("downloading", "installing", "rebooting")
GRACE_SECONDS = 120.0


@dataclass
class Tally:
    """What the threads of a process have seen."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, statuses: Counter[str], seconds: list[float]) -> None:
        with self.lock:
            self.statuses += statuses
            self.seconds += seconds

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
        self.seconds: list[float] = []
        wire = Wire(job["port"])
        self.devices = [
            Device(wire, name, token, job["version"], job["checksum"])
            for name, token in devices
        ]

    def run(self) -> None:
        try:
            getattr(self, self.job["kind"])()
        except (OSError, EOFError, ValueError, KeyError) as error:
            # The parent ends the bench for any answer that it does not expect.
            self.statuses[f"{type(error).__name__}: {error}"] += 1
        finally:
            self.tally.add(self.statuses, self.seconds)

    def timed(self, send: Any, name: str) -> Answer:
        """Send one request and count its answer under a name."""
        started = time.perf_counter()
        answer: Answer = send()
        self.seconds.append(time.perf_counter() - started)
        self.statuses[f"{name} {answer.status}"] += 1
        return answer

    # --- the jobs -----------------------------------------------------------------

    def polls(self) -> None:
        """Ask for work, as often as the time allows."""
        self._again_and_again(lambda device: self.timed(device.poll, "poll"))

    def beats(self) -> None:
        """Send heartbeats, as many as the time allows."""
        self._again_and_again(lambda device: self.timed(device.beat, "beat"))

    def _again_and_again(self, act: Any) -> None:
        deadline = time.monotonic() + self.job["seconds"]
        while True:
            for device in self.devices:
                if time.monotonic() > deadline:
                    return
                act(device)

    def updates(self) -> None:
        """Take every device through its update, up to the last heartbeat of proof.

        While one device waits for its second heartbeat, others are at work.
        """
        pause = self.job["confirmation_seconds"] + 0.05
        waiting: list[tuple[float, Device]] = []
        for device in self.devices:
            answer = self.timed(device.poll, "poll")
            if answer.status != 200:
                continue
            device.take(answer.json())
            self.timed(device.download, "download")
            for word in WORDS:
                self.timed(lambda w=word, d=device: d.report(w), "report")
            device.reboot()
            self.timed(lambda d=device: d.report("confirming"), "report")
            self.timed(device.beat, "beat")
            waiting.append((time.monotonic() + pause, device))
            while waiting and waiting[0][0] <= time.monotonic():
                self.timed(waiting.pop(0)[1].beat, "beat")
        for due, device in waiting:
            time.sleep(max(0.0, due - time.monotonic()))
            self.timed(device.beat, "beat")

    def faulty(self) -> None:
        """Live with the faults that chance gave each device, until told to end."""
        fleet = [
            FaultyDevice(device, Plan.of(device.name, self.job["seed"]), self.timed)
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
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "elapsed": time.perf_counter() - started,
        "statuses": tally.statuses,
        "seconds": tally.seconds,
        "notes": tally.notes,
    }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a crowd has seen. Seconds of single requests are sorted."""

    elapsed: float
    statuses: Counter[str]
    seconds: list[float]
    notes: dict[str, Any]

    def share(self, part: float) -> float:
        """Return a percentile of the requests, in seconds."""
        return percentile(self.seconds, part)

    def unexpected(self, *expected: str) -> dict[str, int]:
        """Return what was answered otherwise than expected."""
        return {name: n for name, n in self.statuses.items() if name not in expected}


def percentile(values: list[float], part: float) -> float:
    """Return a percentile (0-1) of sorted values; 0 where there are none."""
    if not values:
        return 0.0
    return values[min(len(values) - 1, int(len(values) * part))]


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
    seconds: list[float] = []
    notes: dict[str, Any] = {}
    for each in found:
        statuses.update(each["statuses"])
        seconds += each["seconds"]
        notes |= each["notes"]
    return Outcome(
        max(each["elapsed"] for each in found), statuses, sorted(seconds), notes
    )


if __name__ == "__main__":
    json.dump(run_here(json.load(sys.stdin)), sys.stdout)
