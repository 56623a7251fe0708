"""The largest deployment, and a hundred at once."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

from deployments.models import Deployment
from deployments.services.tick import tick
from tests.bench.ground import (
    CONNECTIONS,
    OFFERABLE,
    Ground,
    compact,
    median,
    percentile,
    wait_for,
)
from tests.bench.shortcuts import beat_again, update_offerable
from tests.bench.table import Line, at_least, at_most
from tests.load.devices import PROGRAMS, cpu_seconds

RUNS = 3
SAMPLE = 20
STATUS_REQUESTS = 200
CONFIRMATION_SECONDS = 1
QUICK_PROOF = {
    "confirmationDuration": f"PT{CONFIRMATION_SECONDS}S",
    "heartbeatsRequired": 2,
    "watchDuration": "PT0S",
}
CALLS = ("poll", "download", "report", "heartbeat")
TICKS = 5
CONCURRENT_SECONDS = 600.0
HAS_COMPLETED = """
    SELECT status = 'Completed' FROM deployments_deployment WHERE id = %s
"""


def create(ground: Ground) -> list[Line]:
    """Create the largest deployment, and look whether all of it is there."""
    firmware = ground.image()
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        with ground.launched("LARGE", "Canary", firmware=firmware) as deployment:
            seconds.append(time.perf_counter() - started)
            written = ground.count(deployment["id"], "pending")
            if written != ground.scale.large:
                raise RuntimeError(f"{written:,} targets were written")
        ground.settle()
    return [
        at_most(
            "create a deployment",
            median(seconds),
            2,
            f"POST of a canary deployment of {ground.scale.large:,} devices chosen by "
            f"region, until its answer, when all rows are written; median of {RUNS}",
            more=f"{ground.scale.large:,} devices",
        )
    ]


def operate(ground: Ground) -> list[Line]:
    """Open a stage of all devices, pause it; roll back when all are exposed."""
    large = ground.scale.large
    opened, paused = [], []
    firmware = ground.image()
    sample = ground.devices("LARGE", SAMPLE)
    for _ in range(RUNS):
        with ground.launched(
            "LARGE", "Rolling", firmware=firmware, batchSize=large
        ) as created:
            identity = created["id"]
            started = time.perf_counter()
            wait_for(
                partial(_may_start, ground, identity, large),
                seconds=60,
                what="every device may have its order",
            )
            opened.append(time.perf_counter() - started)
            started = time.perf_counter()
            ground.post(f"/deployments/{identity}/pause", {"reason": "bench"})
            wait_for(
                partial(_may_start, ground, identity, 0),
                seconds=60,
                what="no device may have its order",
            )
            paused.append(time.perf_counter() - started)
            _ask_sample(ground, sample, 204)
        ground.settle()
    return [
        at_most(
            "open a stage",
            median(opened),
            5,
            "from the answer to the launch until the tick has opened the stage of all "
            f"{large:,} devices and each may have its order, counted in the database "
            f"by the condition of the poll; median of {RUNS}",
        ),
        at_most(
            "pause",
            median(paused),
            5,
            f"pause with {large:,} devices waiting until none may have an order, and "
            f"{SAMPLE} polls over HTTP that bring none; median of {RUNS}",
        ),
        roll_back(ground),
    ]


def roll_back(ground: Ground) -> Line:
    """Let the whole deployment succeed, then roll it back."""
    large = ground.scale.large
    created = ground.launch(
        "EXPOSED", "Rolling", batchSize=large, healthCriteria=QUICK_PROOF
    )
    deployment = Deployment.objects.select_related("firmware").get(pk=created["id"])

    def all_proved() -> bool:
        deployment.refresh_from_db()
        deployment.refresh_from_db(fields=["firmware"])
        update_offerable(deployment)
        beat_again([deployment], timedelta(seconds=CONFIRMATION_SECONDS))
        return ground.count(created["id"], "success") == large

    wait_for(all_proved, seconds=300, what="all devices are proved", every=1)
    ground.settle()
    sample = ground.devices("EXPOSED", SAMPLE)
    started = time.perf_counter()
    ground.post(f"/deployments/{created['id']}/rollback", {"reason": "bench"})
    wait_for(
        lambda: ground.count(created["id"], "rolling_back") == large,
        seconds=120,
        what="every device is ordered back",
    )
    seconds = time.perf_counter() - started
    _ask_sample(ground, sample, 200)
    return at_most(
        "roll back",
        seconds,
        5,
        f"rollback of {large:,} devices that run the new image until each is to go "
        f"back, and {SAMPLE} polls over HTTP that say so; one run. The devices got "
        "there by set-based SQL, their proofs by the server's own tick",
    )


def _may_start(ground: Ground, deployment_id: str, count: int) -> bool:
    """Tell whether so many devices may have their order."""
    return bool(ground.ask(OFFERABLE, deployment_id) == count)


def _ask_sample(ground: Ground, devices: list[list[str]], expected: int) -> None:
    for name, token in devices:
        answer = ground.wire.request("GET", f"/api/v1/devices/{name}/update", token)
        if answer.status != expected:
            raise RuntimeError(f"{name} polled and got {answer.status}")


def status(ground: Ground) -> list[Line]:
    """Ask for the status of the largest deployment again and again."""
    running = Deployment.objects.filter(
        selection__regions=["EXPOSED"], status="RollingBack"
    ).first()
    identity = str(running.pk) if running else ""
    if not identity:
        identity = ground.launch("EXPOSED", "Canary")["id"]
    ground.get(f"/deployments/{identity}/status")
    seconds = []
    for _ in range(STATUS_REQUESTS):
        started = time.perf_counter()
        answer = ground.get(f"/deployments/{identity}/status")
        seconds.append(time.perf_counter() - started)
    if answer["progress"]["total"] != ground.scale.large:
        raise RuntimeError(f"another number of devices: {answer['progress']}")
    if running is None:
        ground.cancel(identity)
    return [
        at_most(
            "status, p99",
            percentile(sorted(seconds), 0.99) * 1000,
            100,
            f"{STATUS_REQUESTS} requests for the status of a deployment of "
            f"{ground.scale.large:,} devices ({answer['status']}), one after the other",
            unit="ms",
            more=f"median {median(seconds) * 1000:.0f} ms",
        )
    ]


def updates(ground: Ground) -> list[Line]:
    """Take a crowd of devices through everything, over HTTP."""
    count = ground.scale.crowd
    devices = ground.devices("CROWD")
    with ground.launched(
        "CROWD",
        "Rolling",
        batchSize=count,
        batchWaitDuration="PT0S",
        healthCriteria=QUICK_PROOF,
    ) as created:
        identity = created["id"]
        wait_for(
            lambda: ground.ask(OFFERABLE, identity) == count,
            seconds=30,
            what="it is open",
        )
        started = time.perf_counter()
        before = cpu_seconds(ground.stack)
        seen = ground.load(
            "update",
            devices,
            # Many wait for their second heartbeat while others work.
            atOnce=8 * CONNECTIONS,
            confirmationSeconds=CONFIRMATION_SECONDS + 0.05,
        )
        answered = time.perf_counter()
        try:
            wait_for(
                lambda: ground.count(identity, "success") == count,
                seconds=60,
                what="all devices are proved",
            )
        except TimeoutError as error:
            progress = ground.get(f"/deployments/{identity}/status")["progress"]
            raise RuntimeError(f"not all are proved: {compact(progress)}") from error
        seconds = time.perf_counter() - started
        after = cpu_seconds(ground.stack)
        wait_for(
            lambda: ground.ask(HAS_COMPLETED, identity), seconds=60, what="it ends"
        )
        end_seconds = time.perf_counter() - answered
    costs = {name: after[name] - before[name] for name in PROGRAMS}
    costs["loader"] = seen["cpuSeconds"]
    each = ", ".join(
        f"{name} {1000 * used / count:.1f}" for name, used in costs.items()
    )
    slowest = max(kind["p99"] for name, kind in seen["kinds"].items() if name in CALLS)
    return [
        at_least(
            "devices through the whole update",
            count * 60 / seconds,
            4000,
            f"{count:,} devices, each with poll, instruction, download of 64 KiB, 5 "
            f"reports and 2 heartbeats (9 requests) over {CONNECTIONS} kept "
            "connections from a program on this machine, from the first poll until the "
            f"last is proved. CPU of a device in ms: {each}",
            unit="a minute",
            more=f"p99 of the slowest kind of request {slowest:.0f} ms",
        ),
        at_most(
            "last heartbeat until Completed",
            end_seconds,
            0.5,
            f"of these {count:,} devices: from the answer to the last heartbeat until "
            "the deployment is Completed in the database; one run",
        ),
    ]


def concurrent(ground: Ground) -> list[Line]:
    """Run a hundred deployments at once, to their end."""
    scale = ground.scale
    regions = [region for region in scale.regions if region.startswith("SMALL-")]
    firmware = ground.image()
    made: list[str] = []
    try:
        started = time.perf_counter()
        for region in regions:
            created = ground.launch(
                region,
                "Canary",
                firmware=firmware,
                initialPercentage=10,
                increments=[30, 100],
                waitDuration="PT2S",
                healthCriteria=QUICK_PROOF,
            )
            made.append(created["id"])
        launched = time.perf_counter() - started
        one_tick = _time_ticks(ground, len(made))
        started = time.perf_counter()
        gap = _run_to_end(ground, made)
        seconds = time.perf_counter() - started
    finally:
        for identity in made:
            ground.cancel_quietly(identity)
    completed = Deployment.objects.filter(pk__in=made, status="Completed").count()
    proved = sum(ground.count(identity, "success") for identity in made)
    total = scale.small * len(made)
    return [
        at_least(
            "deployments at once",
            completed,
            len(made),
            f"canary deployments (10, 30, 100 %) of {scale.small:,} devices each, all "
            f"running at once, to Completed with {proved:,} of {total:,} devices "
            f"proved; launched over HTTP in {launched:.0f} s. The devices' requests "
            "are replaced by set-based SQL that writes what they leave; gates, "
            "proofs and stages are the work of the running stack",
            unit="Completed",
            more=f"{proved:,} proved in {seconds:.0f} s",
        ),
        at_least("devices proved in them", proved, total, "see above", unit="devices"),
        at_most(
            "one tick of all of them",
            one_tick,
            1,
            f"the tick of {len(made)} running deployments in which nothing is due, "
            f"alone (beat stopped); median of {TICKS}",
        ),
        at_most(
            "longest silence of the tick",
            gap,
            5,
            "while they ran to their end, looked at twice a second or less; a tick is "
            "heard when it begins, and every two seconds if it takes longer",
        ),
    ]


def _run_to_end(ground: Ground, made: list[str]) -> float:
    """Be the devices of some deployments; return the longest time between ticks."""
    gaps = [0.0]

    def all_ended() -> bool:
        found = list(
            Deployment.objects.select_related("firmware").filter(
                pk__in=made, status="Running"
            )
        )
        for deployment in found:
            update_offerable(deployment)
        beat_again(found, timedelta(seconds=CONFIRMATION_SECONDS))
        age = ground.ask(
            "SELECT extract(epoch FROM clock_timestamp() - last_run_at)::float "
            "FROM common_jobrun WHERE name = 'deployments-tick'"
        )
        gaps.append(float(age))
        return not found

    wait_for(all_ended, seconds=CONCURRENT_SECONDS, what="all have ended", every=0.5)
    return max(gaps)


def _time_ticks(ground: Ground, count: int) -> float:
    seconds = []
    with without_beat(ground):
        for _ in range(TICKS):
            started = time.perf_counter()
            looked_at = tick()
            seconds.append(time.perf_counter() - started)
            if looked_at < count:
                raise RuntimeError(f"the tick looked at {looked_at} of {count}")
    return median(seconds)


@contextmanager
def without_beat(ground: Ground) -> Iterator[None]:
    """Hold the stack's beat still, so that nobody else ticks."""
    pid = ground.stack.pid("beat")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        # What it has sent is done or has expired by then.
        time.sleep(3)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
