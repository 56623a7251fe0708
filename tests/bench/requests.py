"""Small requests: polls, heartbeats, and pages of the device list."""

import time
from base64 import b64encode
from urllib.parse import urlencode

from tests.bench.crowd import percentile, send_crowd
from tests.bench.ground import Ground, compact, median
from tests.bench.scale import device_name
from tests.bench.table import Line, at_least, at_most

RUN_SECONDS = 8.0
RUNS = 3
PAGES = 200
PAGE_SIZE = 100
# So many that each is asked for after more than five seconds: then a poll also writes
# when the device was last seen.
IDLE_DEVICES = 16_000


def polls(ground: Ground) -> list[Line]:
    """Devices that no deployment wants ask for work."""
    return [
        _rate(ground, "polls", "poll 204", "idle polls", 1500, "nothing to do for them")
    ]


def heartbeats(ground: Ground) -> list[Line]:
    """Devices that no deployment wants send heartbeats."""
    return [
        _rate(
            ground,
            "beats",
            "beat 200",
            "heartbeats stored",
            1200,
            "each stored as the device's state and in the history",
        )
    ]


def _rate(
    ground: Ground, kind: str, expected: str, work: str, target: float, said: str
) -> Line:
    count = min(IDLE_DEVICES, ground.scale.sizes["OTHERS"])
    devices = ground.devices("OTHERS", count)
    rates, slow = [], []
    for _ in range(RUNS):
        outcome = send_crowd(ground.job(kind, devices, seconds=RUN_SECONDS))
        wrong = outcome.unexpected(expected)
        if wrong:
            raise RuntimeError(f"unexpected answers: {compact(wrong)}")
        rates.append(outcome.statuses[expected] / outcome.elapsed)
        slow.append(outcome.share(0.99))
    return at_least(
        work,
        median(rates),
        target,
        f"{count:,} devices, {said}, over 16 kept connections from 2 processes on "
        f"this machine, as fast as they are answered; median of {RUNS} runs of "
        f"{RUN_SECONDS:g} s",
        unit="a second",
        more=f"p99 {median(slow) * 1000:.0f} ms",
    )


def device_list(ground: Ground) -> list[Line]:
    """Read pages of the device list, from its first device to its last."""
    seconds = []
    for number in range(PAGES):
        depth = ground.scale.devices * number // PAGES
        # As the list itself writes it into its links.
        position = urlencode({"p": device_name(depth)}).encode()
        query = urlencode(
            {"pageSize": PAGE_SIZE, "cursor": b64encode(position).decode()}
        )
        started = time.perf_counter()
        page = ground.get(f"/devices?{query}")
        seconds.append(time.perf_counter() - started)
        if page["results"][0]["deviceId"] != device_name(depth + 1):
            raise RuntimeError(f"another page than that at depth {depth:,}")
    return [
        at_most(
            "device list page, p99",
            percentile(sorted(seconds), 0.99) * 1000,
            100,
            f"{PAGES} pages of {PAGE_SIZE} from evenly spread depths of "
            f"{ground.scale.devices:,} devices, one after the other over HTTP",
            unit="ms",
            more=f"median {median(seconds) * 1000:.0f} ms",
        )
    ]
