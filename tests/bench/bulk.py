"""Large files: an image, and a list of devices."""

import secrets
import time

import httpx

from tests.bench.ground import MODEL, Ground, median, wait_for
from tests.bench.table import Line, at_most

IMAGE_BYTES = 100 * 1000 * 1000
IMPORTED = 100_000
RUNS = 3


def upload(ground: Ground) -> list[Line]:
    """Send images of 100 MB."""
    seconds = []
    for _ in range(RUNS):
        content = secrets.token_bytes(IMAGE_BYTES)
        version = next(ground.versions)
        started = time.perf_counter()
        ground.upload(version, content)
        seconds.append(time.perf_counter() - started)
    return [
        at_most(
            "upload of 100 MB",
            median(seconds),
            5,
            "over HTTP until the answer: received, hashed, encrypted, signed and "
            f"stored; random bytes; median of {RUNS}",
        )
    ]


def import_devices(ground: Ground) -> list[Line]:
    """Send a list of devices, and wait until all are registered with their keys."""
    count = min(IMPORTED, ground.scale.devices)
    lines = [f"import-{n:06},{MODEL}" for n in range(count)]
    content = "\n".join(["deviceId,model", *lines, ""]).encode()
    started = time.perf_counter()
    answer = httpx.post(
        f"{ground.stack.url}/api/v1/devices/import",
        content=content,
        headers={
            "Authorization": f"Bearer {ground.token}",
            "Content-Type": "text/csv",
        },
        timeout=60,
    )
    answer.raise_for_status()
    path = answer.headers["Location"].removeprefix("/api/v1")
    wait_for(
        lambda: (
            ground.get(f"{path}?pageSize=1")["status"] not in ("Pending", "Running")
        ),
        seconds=120,
        what="the import ends",
        every=0.2,
    )
    seconds = time.perf_counter() - started
    found = ground.get(f"{path}?pageSize=1")
    if (found["status"], found["created"]) != ("Completed", count):
        raise RuntimeError(f"{found['status']}: {found['created']:,} created")
    return [
        at_most(
            "import of devices",
            seconds,
            20,
            f"{count:,} lines of CSV over HTTP until the import is Completed, each "
            "device with its key and its line in the audit trail; one run",
            more=f"{count:,} devices",
        )
    ]
