"""Small requests: polls, heartbeats, downloads, and pages of the device list."""

import time
from base64 import b64encode
from collections import Counter
from typing import Any
from urllib.parse import urlencode

from tests.bench.ground import (
    CONNECTIONS,
    OFFERABLE,
    Ground,
    median,
    percentile,
    wait_for,
)
from tests.bench.scale import device_name
from tests.bench.table import Line, at_least, at_most
from tests.load.devices import PROGRAMS, cpu_seconds

RUN_SECONDS = 8.0
RUNS = 3
PAGES = 200
PAGE_SIZE = 100
# So many that each is asked for after more than five seconds: then a poll also writes
# when the device was last seen.
IDLE_DEVICES = 16_000
FIRST_DEVICES = 2_000
ORDERED_DEVICES = 400
IDLE_SETTLING_SECONDS = 5.0
IDLE_SECONDS = 30.0
# Seconds of one request that are worth a word.
SMALLEST_COST = 5e-6
# As if they had never been heard.
FORGET = """
    WITH gone AS (
        DELETE FROM health_devicestate s USING devices_device d
        WHERE d.id = s.device_id AND d.device_id = ANY(%s) RETURNING 1
    ) SELECT count(*) FROM gone
"""


def idle(ground: Ground) -> list[Line]:
    """Leave the stack alone."""
    ground.settle()
    time.sleep(IDLE_SETTLING_SECONDS)
    before = cpu_seconds(ground.stack)
    time.sleep(IDLE_SECONDS)
    after = cpu_seconds(ground.stack)
    shares = {
        name: 100 * (after[name] - before[name]) / IDLE_SECONDS for name in PROGRAMS
    }
    return [
        at_most(
            "idle stack, CPU of one core",
            sum(shares.values()),
            10,
            f"all programs of the stack, for {IDLE_SECONDS:g} s without a request or "
            "a deployment",
            unit="%",
            more=", ".join(f"{name} {share:.1f}" for name, share in shares.items()),
        )
    ]


def polls(ground: Ground) -> list[Line]:
    """Devices that no deployment wants ask for work."""
    devices = _idle_devices(ground)
    return [
        _rate(ground, "polls", devices, "idle polls", 1500, "nothing to do for them")
    ]


def heartbeats(ground: Ground) -> list[Line]:
    """Devices that no deployment wants send heartbeats."""
    return [
        _rate(
            ground,
            "beats",
            _idle_devices(ground),
            "heartbeats stored",
            1200,
            "each stored as the device's state and in the history",
        )
    ]


def first_heartbeats(ground: Ground) -> list[Line]:
    """Devices that were never heard send their first heartbeat."""
    # The last ones, which no other bench has to do with.
    names = ground.scale.names("OTHERS")
    count = min(FIRST_DEVICES, len(names) // (2 * RUNS))
    rates = []
    for run in range(RUNS):
        unheard = names[-(run + 1) * count :][:count]
        devices = ground.devices_named(unheard)
        ground.ask(FORGET, unheard)
        seen = ground.load("beats", devices, once=True)
        rates.append(count / seen["seconds"])
    return [
        at_least(
            "first heartbeats ever",
            median(rates),
            100,
            f"{count:,} devices that were registered and never heard, one "
            f"heartbeat each over {CONNECTIONS} kept connections; median of {RUNS}",
            unit="a second",
        )
    ]


def downloads(ground: Ground) -> list[Line]:
    """Devices that were ordered to install an image fetch it, again and again."""
    devices = ground.devices("CROWD", min(ORDERED_DEVICES, ground.scale.crowd))
    with ground.launched(
        "CROWD", "Rolling", batchSize=ground.scale.crowd, batchWaitDuration="PT0S"
    ) as created:
        wait_for(
            lambda: ground.ask(OFFERABLE, created["id"]) == ground.scale.crowd,
            seconds=30,
            what="it is open",
        )
        for name, token in devices:
            path = f"/api/v1/devices/{name}/update"
            answer = ground.wire.request("GET", path, token)
            if answer.status != 200:
                raise RuntimeError(f"a poll was answered by {answer.status}")
        address = answer.json()["firmware"]["downloadUrl"]
        return [
            _rate(
                ground,
                "downloads",
                devices,
                "64 KiB fetched",
                500,
                "an image of that size, decrypted and verified for each",
                path=address,
            )
        ]


def _idle_devices(ground: Ground) -> list[list[str]]:
    return ground.devices("OTHERS", min(IDLE_DEVICES, ground.scale.sizes["OTHERS"]))


def _rate(
    ground: Ground,
    phase: str,
    devices: list[list[str]],
    work: str,
    target: float,
    said: str,
    **fields: Any,
) -> Line:
    """Measure how many requests are answered, what each costs, and how long it takes.

    In a closed loop for the number; then at half of it, whether answered or not, for
    the times.
    """
    rates = []
    count = 0
    costs: Counter[str] = Counter()
    for _ in range(RUNS):
        before = cpu_seconds(ground.stack)
        seen = ground.load(phase, devices, seconds=RUN_SECONDS, **fields)
        after = cpu_seconds(ground.stack)
        [kind] = seen["kinds"].values()
        rates.append(kind["count"] / seen["seconds"])
        count += kind["count"]
        costs.update({name: after[name] - before[name] for name in PROGRAMS})
        costs["loader"] += seen["cpuSeconds"]
    pace = median(rates) / 2
    calm = ground.load(phase, devices, seconds=RUN_SECONDS, rate=pace, **fields)
    [kind] = calm["kinds"].values()
    each = ", ".join(
        f"{name} {1000 * seconds / count:.2f}"
        for name, seconds in costs.items()
        if seconds >= SMALLEST_COST * count
    )
    return at_least(
        work,
        median(rates),
        target,
        f"{len(devices):,} devices, {said}, over {CONNECTIONS} kept connections from a "
        f"program on this machine, as fast as they are answered; median of {RUNS} runs "
        f"of {RUN_SECONDS:g} s, which gave {min(rates):,.0f} to {max(rates):,.0f}. CPU "
        f"of one in ms: {each}. The times are those of {pace:,.0f} a second that are "
        "due, answered or not",
        unit="a second",
        more=f"p50 {kind['p50']:.1f} ms, p99 {kind['p99']:.1f} ms",
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
