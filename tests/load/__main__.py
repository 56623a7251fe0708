"""Take a fleet through one deployment, over HTTP alone: `python -m tests.load`.

Starts a HotSwap of its own, imports the devices, has each log in, and updates all of
them in one deployment, from the first poll to the last proof. Nothing is written by
SQL. The devices are a program in Go, which shares the machine and says what CPU it
used.

Exit code 1: a device was not proved. An overloaded server may answer 503, which devices
repeat; how often is told.
"""

import argparse
import csv
import io
import json
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from hotswap.stack.folder import free_port
from hotswap.stack.stack import Stack
from tests.live import ADMIN_PASSWORD, ADMIN_USERNAME
from tests.load.devices import build, cpu_seconds, send_devices

MODEL = "load"
IMAGE_BYTES = 64 * 1024
CONFIRMATION_SECONDS = 1.0
SINGLE_REGISTRATIONS = 200
LONGEST_SECONDS = 3 * 3600
SHOWN = ("p50", "p95", "p99", "max")
ENVIRONMENT = {
    "HOTSWAP_ADMIN_USERNAME": ADMIN_USERNAME,
    "HOTSWAP_ADMIN_PASSWORD": ADMIN_PASSWORD,
    # All devices call from one address.
    "HOTSWAP_LOGIN_FAILURES_PER_MINUTE": "1000000",
    # Devices are silent before their turn and after it; nobody is to be missed.
    "HOTSWAP_ONLINE_FLOOR_SECONDS": str(24 * 3600),
}


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Server:
    """The stack under load, and an Admin of it."""

    def __init__(self, folder: Path) -> None:
        self.stack = Stack(
            data_dir=folder / "data",
            port=free_port(),
            environment=ENVIRONMENT,
            on_event=say,
        )
        self.client = httpx.Client(base_url=f"{self.stack.url}/api/v1", timeout=300)

    def log_in(self) -> None:
        answer = self.client.post(
            "/auth/token",
            json={"username": ADMIN_USERNAME, "password": ADMIN_PASSWORD},
        )
        self.client.headers["Authorization"] = f"Bearer {answer.json()['access']}"

    def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send a request that must be granted."""
        answer = self.client.request(method, path, **more)
        if answer.status_code == 401:
            self.log_in()
            answer = self.client.request(method, path, **more)
        if not answer.is_success:
            raise SystemExit(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer

    def upload(self, version: str, image: bytes) -> dict[str, Any]:
        uploaded = self.send(
            "POST",
            "/firmware",
            files={"file": ("image", image)},
            data={"model": MODEL, "version": version},
        ).json()
        path = f"/firmware/{uploaded['id']}/approve"
        found: dict[str, Any] = self.send("POST", path, json={"comment": "load"}).json()
        return found


def register(server: Server, count: int) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Register the devices: some one by one, all others by import."""
    devices, single = [], []
    for number in range(min(SINGLE_REGISTRATIONS, count // 2)):
        name = f"load-single-{number}"
        started = time.perf_counter()
        answer = server.send(
            "POST", "/devices", json={"deviceId": name, "model": MODEL}
        ).json()
        single.append(time.perf_counter() - started)
        devices.append({"name": name, "key": answer["apiKey"], "token": ""})
    rest = count - len(devices)
    lines = "".join(f"load-{number},{MODEL}\n" for number in range(rest))
    started = time.perf_counter()
    answer = server.send(
        "POST",
        "/devices/import",
        content=f"deviceId,model\n{lines}",
        headers={"Content-Type": "text/csv"},
    )
    found = answer.json()
    while found.get("finishedAt") is None:
        time.sleep(0.5)
        found = server.send("GET", f"/device-imports/{found['id']}").json()
    seconds = time.perf_counter() - started
    keys = server.send("GET", f"/device-imports/{found['id']}/keys").text
    devices += [
        {"name": row["deviceId"], "key": row["apiKey"], "token": ""}
        for row in csv.DictReader(io.StringIO(keys))
    ]
    if len(devices) != count:
        raise SystemExit(f"{len(devices)} of {count} devices are registered")
    return devices, {
        "single": percentiles(single),
        "import": {"devices": rest, "seconds": round(seconds, 2)},
    }


def percentiles(seconds: list[float]) -> dict[str, Any]:
    """Return the usual ones, in milliseconds, as the loader gives them."""
    found = sorted(seconds)

    def at(share: float) -> float:
        return round(1000 * found[min(len(found) - 1, int(share * len(found)))], 1)

    return {
        "count": len(found),
        "p50": at(0.5),
        "p95": at(0.95),
        "p99": at(0.99),
        "max": at(1.0),
    }


def run(count: int, folder: Path, report: Path) -> int:
    """Do all of it, and return the exit code."""
    program = build()
    server = Server(folder)
    server.stack.start()
    try:
        server.stack.wait_ready()
        server.log_in()
        server.send("POST", "/device-models", json={"name": MODEL})
        old = server.upload("1.0.0", secrets.token_bytes(IMAGE_BYTES))
        new = server.upload("2.0.0", secrets.token_bytes(IMAGE_BYTES))
        say(f"{count:,} devices register ...")
        devices, registration = register(server, count)
        job = {
            "url": server.stack.url,
            "devices": devices,
            "version": old["version"],
            "checksum": old["checksum"],
            "connections": 32,
            "atOnce": 32,
            "pollSeconds": 2.0,
            "confirmationSeconds": CONFIRMATION_SECONDS + 0.05,
            "giveUpSeconds": LONGEST_SECONDS,
            "phase": "prepare",
        }
        say("they log in ...")
        prepared = send_devices(program, job)
        say("they are updated ...")
        before = cpu_seconds(server.stack)
        started = time.perf_counter()
        deployment = server.send(
            "POST",
            "/deployments",
            json={
                "firmwareId": new["id"],
                "strategy": "Rolling",
                "targetAll": True,
                "batchSize": count,
                "batchWaitDuration": "PT0S",
                "healthCriteria": {
                    "confirmationDuration": f"PT{CONFIRMATION_SECONDS:.0f}S",
                    "heartbeatsRequired": 1,
                },
                "acknowledge": ["whole_fleet", "no_previous_image"],
            },
        ).json()
        creation = time.perf_counter() - started
        # Many wait for their second heartbeat while others work.
        updated = send_devices(
            program,
            job | {"phase": "update", "devices": prepared["devices"], "atOnce": 256},
        )
        path = f"/deployments/{deployment['id']}"
        while server.send("GET", f"{path}/status").json()["status"] not in (
            *("Completed", "Failed", "RolledBack", "Paused"),
        ):
            time.sleep(0.2)
        whole = time.perf_counter() - started
        status = server.send("GET", f"{path}/status").json()
        used = {
            name: round(after - before[name], 1)
            for name, after in cpu_seconds(server.stack).items()
        }
    finally:
        server.stack.stop()
    result = {
        "devices": count,
        "status": status["status"],
        "progress": status["progress"],
        "registration": registration,
        "creationSeconds": round(creation, 2),
        "endToEndSeconds": round(whole, 1),
        "devicesPerMinute": round(60 * count / whole),
        "cpuSeconds": used | {"loader": round(updated["cpuSeconds"], 1)},
        "cpuMillisecondsPerDevice": round(1000 * sum(used.values()) / count, 1),
        "requests": prepared["kinds"] | updated["kinds"],
        "unexpected": prepared["wrong"] | updated["wrong"],
    }
    report.write_text(json.dumps(result, indent=2))
    show(result)
    say(f"All of it: {report}")
    is_whole = status["status"] == "Completed" and updated["proved"] == count
    return 0 if is_whole else 1


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    say(f"{result['devices']:,} devices: {result['status']}")
    imported = result["registration"]["import"]
    say(f"import: {imported['devices']:,} in {imported['seconds']} s")
    say(f"creation of the deployment: {result['creationSeconds']} s")
    say(
        f"end to end: {result['endToEndSeconds']} s, "
        f"{result['devicesPerMinute']:,} devices a minute, "
        f"{result['cpuMillisecondsPerDevice']} ms of CPU a device; CPU seconds "
        f"{result['cpuSeconds']}"
    )
    say("| milliseconds | count | p50 | p95 | p99 | max |")
    say("|---|---|---|---|---|---|")
    kinds = {"registration": result["registration"]["single"], **result["requests"]}
    for kind, each in kinds.items():
        numbers = " | ".join(
            f"{each[name]:,.1f}" for name in ("p50", "p95", "p99", "max")
        )
        say(f"| {kind} | {each['count']:,} | {numbers} |")
    if result["unexpected"]:
        say(f"unexpected, and repeated: {result['unexpected']}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--report", type=Path, default=Path("build/load-report.json"))
    given = parser.parse_args()
    given.report.parent.mkdir(parents=True, exist_ok=True)
    # Ended from outside, it still stops its stack and removes its folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="hotswap-load-"))
    try:
        sys.exit(run(given.devices, folder, given.report.absolute()))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
