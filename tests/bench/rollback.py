"""From what a device suffers to its way back, with the server's own timers."""

import tempfile
import threading
import time
from pathlib import Path
from uuid import UUID

from deployments.models import Target
from tests.bench.crowd import Outcome, send_crowd
from tests.bench.device import Device
from tests.bench.faults import Plan
from tests.bench.ground import FORMER, Ground, wait_for
from tests.bench.table import Line, at_least, at_most
from tests.bench.wire import Wire

BAD = 2
SUFFERING = 0.5
HEARTBEAT_SECONDS = 30
FAULTS_SECONDS = 1500.0
SETTLED_SHARE = 0.85
UNFINISHED = (
    *("pending", "notified", "downloading", "verifying", "installing", "rebooting"),
    *("confirming", "rolling_back"),
)


def detection(ground: Ground) -> list[Line]:
    """Let devices suffer: after a deployment's last bad report, and in between."""
    return [_until_rollback(ground), _until_noticed(ground)]


def _fleet(ground: Ground, region: str) -> list[Device]:
    checksum = ground.former["checksum"]
    return [
        Device(Wire(ground.port), name, token, FORMER, checksum)
        for name, token in ground.devices(region)
    ]


def _take_through(device: Device) -> None:
    """Carry an order out, up to the claim."""
    device.take(device.poll().json())
    for word in ("downloading", "installing", "rebooting"):
        device.report(word)
    device.reboot()
    device.beat()
    device.report("confirming")


def _until_rollback(ground: Ground) -> Line:
    fleet = _fleet(ground, "WATCHED")
    with ground.launched(
        "WATCHED",
        "Rolling",
        batchSize=len(fleet),
        rollbackThresholds={"minimumSample": BAD},
    ):
        wait_for(
            lambda: fleet[0].poll().status == 200, seconds=30, what="the first order"
        )
        for device in fleet:
            _take_through(device)
            device.beat()
        for device in fleet[:BAD]:
            device.beat(SUFFERING)
        started = time.perf_counter()
        healthy = fleet[-1]

        def is_ordered_back() -> bool:
            answer = healthy.poll()
            return answer.status == 200 and answer.json()["action"] == "rollback"

        wait_for(is_ordered_back, seconds=60, what="a healthy device is ordered back")
        seconds = time.perf_counter() - started
    return at_most(
        "last bad report to rollback offered",
        seconds,
        20,
        f"{len(fleet)} devices of which {BAD} report an error rate of {SUFFERING:g} on "
        "the new image; from the answer to the last of these reports until a poll "
        "orders a healthy device back; real timers, one run",
    )


def _until_noticed(ground: Ground) -> Line:
    """Begin to suffer right after a heartbeat, the worst moment, and go on by rule."""
    fleet = _fleet(ground, "SPREADING")
    with ground.launched(
        "SPREADING",
        "Rolling",
        batchSize=len(fleet),
        rollbackThresholds={"successRate": 1, "minimumSample": len(fleet)},
        healthThreshold=1,
    ) as created:
        wait_for(
            lambda: fleet[0].poll().status == 200, seconds=30, what="the first order"
        )
        for device in fleet:
            _take_through(device)
        told = {device.name: device.beat().json() for device in fleet}
        victim = fleet[0]
        interval = told[victim.name]["nextHeartbeatSeconds"]
        victim_row = Target.objects.filter(
            deployment=created["id"], device__device_id=victim.name
        )
        victim.beat()
        started = time.perf_counter()
        later = threading.Timer(interval, lambda: victim.beat(SUFFERING))
        later.start()
        try:
            wait_for(
                lambda: victim_row.filter(error_code="error_rate").exists(),
                seconds=120,
                what="the breach is noticed",
            )
        finally:
            later.cancel()
        seconds = time.perf_counter() - started
        if interval != HEARTBEAT_SECONDS:
            raise RuntimeError(f"the device was told {interval} s between heartbeats")
    return at_most(
        "a breach to its detection",
        seconds,
        60,
        "a device begins to fail half of its requests right after a heartbeat, the "
        f"worst moment; the next comes {interval} s later, as the server told it; "
        "until the server has failed it and ordered it back; real timers, one run",
    )


def faults(ground: Ground) -> list[Line]:
    """Update devices of which many are faulty, until it rolls itself back."""
    count = ground.scale.faulty
    devices = ground.devices("FAULTY")
    reachable = [name for name, _ in devices if not Plan.of(name, ground.seed).vanishes]
    with ground.launched(
        "FAULTY",
        "Rolling",
        batchSize=count,
        healthCriteria={
            "confirmationDuration": "PT60S",
            "heartbeatsRequired": 2,
            "watchDuration": "PT1H",
        },
        rollbackThresholds={
            "offlineAfter": "PT90S",
            "minimumSample": int(count * SETTLED_SHARE),
        },
        deviceTimeout="PT5M",
        maxAttempts=3,
    ) as created:
        rows = Target.objects.filter(
            deployment=created["id"], device__device_id__in=reachable
        )
        with tempfile.TemporaryDirectory(prefix="hotswap-bench-over-") as folder:
            over = Path(folder) / "over"
            outcomes: list[Outcome] = []
            job = ground.job(devices, seconds=FAULTS_SECONDS, over=str(over), threads=4)
            crowd = threading.Thread(target=lambda: outcomes.append(send_crowd(job)))
            started = time.perf_counter()
            crowd.start()
            try:
                seconds = wait_for(
                    lambda: (
                        ground.status(created["id"]) == "RollingBack"
                        and not rows.filter(status__in=UNFINISHED).exists()
                    ),
                    seconds=FAULTS_SECONDS,
                    what="every device that can be reached is home",
                    every=1,
                )
            except TimeoutError:
                # What was not reached in this time counts as what it is: not home.
                seconds = time.perf_counter() - started
            finally:
                over.touch()
                crowd.join()
    if not outcomes:
        raise RuntimeError("the crowd failed; see above")
    return [_judge(ground, created["id"], reachable, outcomes[0], seconds)]


def _judge(
    ground: Ground,
    deployment_id: str,
    reachable: list[str],
    outcome: Outcome,
    seconds: float,
) -> Line:
    """Compare what the server says of each device with what the device knows."""
    said = dict(
        Target.objects.filter(
            deployment_id=UUID(deployment_id), exposed_at__isnull=False
        ).values_list("device__device_id", "status")
    )
    judged = [name for name in reachable if outcome.notes[name]["ran_new"]]
    home = [
        name
        for name in judged
        if said.get(name) == "rolled_back" and outcome.notes[name]["is_home"]
    ]
    vanished = sum(note["vanished"] for note in outcome.notes.values())
    never = len(reachable) - len(judged)
    lied = [
        name
        for name in reachable
        if said.get(name) == "rolled_back" and not outcome.notes[name]["is_home"]
    ]
    if lied:
        raise RuntimeError(f"said to be back and is not: {lied[:5]}")
    return at_least(
        "rollback success",
        100 * len(home) / max(1, len(judged)),
        99.99,
        f"of {len(outcome.notes):,} devices in one deployment that rolls itself back, "
        f"{vanished:,} vanished for good and {never:,} never ran the new image (their "
        f"self-test failed, or it was too late for them); counted are the other "
        f"{len(judged):,}: proved home for the server and home by their own account. "
        "Among them 10 % are sick, 10 % drop reports, 10 % repeat and reorder them, "
        f"6 % fail to return once or twice. Over HTTP, in {seconds:.0f} s; "
        f"polls and heartbeats every 30 s; seed {ground.seed}",
        unit="%",
        more=f"{len(home):,} of {len(judged):,}",
    )
