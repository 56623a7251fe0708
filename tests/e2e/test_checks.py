"""The judge of the demo's story finds a wrong end, whatever is wrong about it."""

import copy
from typing import Any

import pytest

from hotswap.demo.checks import CHECKS, judge

GOOD, BAD, FORMER = "5" * 64, "6" * 64, "4" * 64
SENSORS = [f"sensor-{n:02}" for n in range(1, 21)]
CANARIES = SENSORS[:2]
BEFORE, ENDED, AFTER = (f"2025-05-05T12:00:0{n}Z" for n in range(3))


class Log:
    """A deployment's log, line by line."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def add(
        self, event: str, device: str | None = None, stage: int = 1, text=""
    ) -> None:
        self.lines.append(
            {
                "id": len(self.lines) + 1,
                "event": event,
                "deviceId": device,
                "stage": stage,
                "message": text,
            }
        )


def stage(number: int, name: str, size: int, status: str, exposed: int) -> dict:
    return {
        "number": number,
        "name": name,
        "size": size,
        "status": status,
        "exposed": exposed,
    }


def good_part() -> dict[str, Any]:
    log = Log()
    slices = {1: SENSORS[:2], 2: SENSORS[2:6], 3: SENSORS[6:]}
    for number, devices in slices.items():
        log.add("stage.opened", stage=number)
        for event in ("device.notified", "device.claimed", "device.updated"):
            for device in devices:
                log.add(event, device, number)
        log.add("stage.passed", stage=number)
    return {
        "status": {
            "status": "Completed",
            "rollbackReason": "",
            "failureReason": "",
            "progress": {"total": 20, "success": 20, "failed": 0, "pending": 0},
            "stages": [
                stage(1, "10 %", 2, "passed", 2),
                stage(2, "30 %", 4, "passed", 4),
                stage(3, "100 %", 14, "passed", 14),
            ],
        },
        "targets": [
            {"deviceId": name, "status": "success", "fromVersion": "2.4.0"}
            for name in SENSORS
        ],
        "excluded": [
            {"deviceId": "gateway-1", "code": "wrong_model"},
            {"deviceId": "spare-1", "code": "disabled"},
        ],
        "logs": log.lines,
        "audit": [],
        "devicesAfter": [
            {"deviceId": name, "firmwareVersion": "2.5.0", "firmwareChecksum": GOOD}
            for name in SENSORS
        ],
    }


def bad_part() -> dict[str, Any]:
    log = Log()
    log.add("stage.opened")
    for device in CANARIES:
        log.add("device.notified", device)
    log.add("device.failed", CANARIES[0], text="error_rate: error rate 20 % is over")
    log.add("rollback.started")
    for device in CANARIES:
        log.add("device.returned", device)
    return {
        "status": {
            "status": "RolledBack",
            "rollbackReason": "stage 1",
            "failureReason": "",
            "finishedAt": ENDED,
            "stages": [
                stage(1, "10 %", 2, "failed", 2),
                stage(2, "30 %", 4, "pending", 0),
                stage(3, "100 %", 14, "pending", 0),
            ],
        },
        "targets": [
            {
                "deviceId": name,
                "status": "rolled_back" if name in CANARIES else "cancelled",
                "attempt": int(name in CANARIES),
            }
            for name in SENSORS
        ],
        "logs": log.lines,
        "audit": [
            {"actor": "a", "actorName": "operator", "verb": "deployment.created"},
            {"actor": None, "actorName": None, "verb": "deployment.rollback-started"},
        ],
    }


def right_evidence() -> dict[str, Any]:
    return {
        "percentages": [10, 30, 100],
        "versions": {"factory": "2.4.0", "good": "2.5.0", "bad": "2.6.0"},
        "checksums": {"good": GOOD, "bad": BAD, "gateway": FORMER},
        "sensors": SENSORS,
        "agents": SENSORS[:3],
        "gateways": ["gateway-1"],
        "trackers": [],
        "spares": ["spare-1"],
        "firmware": [
            {
                "model": "sensor-v1",
                "version": "2.5.0",
                "status": "Approved",
                "uploadedBy": "release",
                "approvedBy": "admin",
            }
        ],
        "good": good_part(),
        "bad": bad_part(),
        "devices": [
            {
                "deviceId": name,
                "firmwareVersion": "2.5.0",
                "firmwareChecksum": GOOD,
                "previousFirmwareVersion": "2.6.0" if name in CANARIES else "2.4.0",
            }
            for name in SENSORS
        ]
        + [
            {
                "deviceId": "gateway-1",
                "firmwareVersion": "2.4.0",
                "firmwareChecksum": FORMER,
                "previousFirmwareVersion": "",
            }
        ],
        "health": {
            name: {
                "status": "Healthy",
                "firmwareVersion": "2.5.0",
                "lastHeartbeat": AFTER,
            }
            for name in SENSORS
        },
        "slots": {
            name: {
                "phase": "idle",
                "current": {"version": "2.5.0", "sha256": GOOD, "imageSha256": GOOD},
                "previous": {
                    "version": "2.6.0" if name in CANARIES else "2.4.0",
                    "sha256": BAD if name in CANARIES else FORMER,
                    "imageSha256": BAD if name in CANARIES else FORMER,
                },
            }
            for name in SENSORS[:3]
        },
    }


def put(value: Any, *keys: Any) -> Any:
    """Return a change that puts a value where the keys lead."""

    def change(evidence: Any) -> None:
        *path, last = keys
        for key in path:
            evidence = evidence[key]
        evidence[last] = value

    return change


def swap_lines(part: str, first: tuple, second: tuple) -> Any:
    """Return a change that lets two lines of a log trade places."""

    def change(evidence: Any) -> None:
        found = {}
        for line in evidence[part]["logs"]:
            for wanted in (first, second):
                if (line["event"], line["deviceId"], line["stage"]) == wanted:
                    found[wanted] = line
        one, other = found[first], found[second]
        one["id"], other["id"] = other["id"], one["id"]

    return change


def add_line(part: str, event: str, device: str | None, number: int) -> Any:
    def change(evidence: Any) -> None:
        log = evidence[part]["logs"]
        log.append(
            {
                "id": len(log) + 1,
                "event": event,
                "deviceId": device,
                "stage": number,
                "message": "",
            }
        )

    return change


def drop_lines(part: str, event: str) -> Any:
    def change(evidence: Any) -> None:
        log = evidence[part]["logs"]
        evidence[part]["logs"] = [line for line in log if line["event"] != event]

    return change


WRONG_ENDS = {
    "not completed": (
        "Good update: deployment",
        put("Paused", "good", "status", "status"),
    ),
    "one pending": (
        "Good update: counts",
        put({"total": 20, "success": 19, "pending": 1}, "good", "status", "progress"),
    ),
    "a target failed": (
        "Good update: each target",
        put("failed", "good", "targets", 4, "status"),
    ),
    "a target is missing": (
        "Good update: each target",
        lambda e: e["good"]["targets"].pop(),
    ),
    "nobody was left out": ("Good update: excluded", put([], "good", "excluded")),
    "a stage opened too early": (
        "Good update: stages in order",
        swap_lines("good", ("stage.passed", None, 1), ("stage.opened", None, 2)),
    ),
    "another size of a stage": (
        "Good update: stages in order",
        put(3, "good", "status", "stages", 0, "size"),
    ),
    "offered before its stage": (
        "Good update: no stage too large",
        swap_lines(
            "good", ("stage.opened", None, 2), ("device.notified", "sensor-03", 2)
        ),
    ),
    "too many in a stage": (
        "Good update: no stage too large",
        add_line("good", "device.notified", "sensor-09", 1),
    ),
    "proof before the claim": (
        "Good update: claim, then proof",
        swap_lines(
            "good",
            ("device.claimed", "sensor-05", 2),
            ("device.updated", "sensor-05", 2),
        ),
    ),
    "a device ran something else": (
        "Good update: what devices ran",
        put(BAD, "good", "devicesAfter", 7, "firmwareChecksum"),
    ),
    "not rolled back": (
        "Bad update: deployment",
        put("Failed", "bad", "status", "status"),
    ),
    "no breach": ("Bad update: measured breach", drop_lines("bad", "device.failed")),
    "rolled back by hand": (
        "Bad update: measured breach",
        put("deployment.rollback", "bad", "audit", 0, "verb"),
    ),
    "one canary too many": (
        "Bad update: canary only",
        add_line("bad", "device.notified", "sensor-20", 1),
    ),
    "a second stage": (
        "Bad update: canary only",
        add_line("bad", "stage.opened", None, 2),
    ),
    "no canary at all": (
        "Bad update: canary only",
        drop_lines("bad", "device.notified"),
    ),
    "a return without proof": (
        "Bad update: canaries are back",
        drop_lines("bad", "device.returned"),
    ),
    "a canary is still on its way": (
        "Bad update: canaries are back",
        put("rolling_back", "bad", "targets", 1, "status"),
    ),
    "a canary failed on the bad image": (
        "Bad update: canaries are back",
        lambda e: (
            put("failed", "bad", "targets", 0, "status")(e),
            put(BAD, "devices", 0, "firmwareChecksum")(e),
        ),
    ),
    "another device was touched": (
        "Bad update: others untouched",
        put("rolled_back", "bad", "targets", 9, "status"),
    ),
    "another device ran the bad image": (
        "Bad update: others untouched",
        put("2.6.0", "devices", 9, "previousFirmwareVersion"),
    ),
    "a device still runs the bad image": (
        "End: what devices run",
        put(BAD, "devices", 0, "firmwareChecksum"),
    ),
    "a gateway took it": (
        "End: other model untouched",
        put(GOOD, "devices", 20, "firmwareChecksum"),
    ),
    "a device is not healthy": (
        "End: health",
        put("Unhealthy", "health", "sensor-02", "status"),
    ),
    "a device is silent": (
        "End: health",
        put(BEFORE, "health", "sensor-02", "lastHeartbeat"),
    ),
    "an agent boots the bad image": (
        "End: slots on disk",
        put(BAD, "slots", "sensor-01", "current", "imageSha256"),
    ),
    "an agent holds what it was not offered": (
        "End: slots on disk",
        put(BAD, "slots", "sensor-03", "previous", "sha256"),
    ),
    "two eyes": ("Four eyes", put("release", "firmware", 0, "approvedBy")),
    "nothing known of the health": ("End: health", lambda e: e.pop("health")),
}


def test_the_right_end_is_found_right() -> None:
    wrong = [each for each in judge(right_evidence()) if not each.is_right]

    assert wrong == []


@pytest.mark.parametrize("end", WRONG_ENDS)
def test_a_wrong_end_is_found_wrong(end: str) -> None:
    name, change = WRONG_ENDS[end]
    evidence = copy.deepcopy(right_evidence())
    change(evidence)

    wrong = [each.name for each in judge(evidence) if not each.is_right]

    assert name in wrong


def test_each_check_can_fail() -> None:
    assert {name for name, _ in WRONG_ENDS.values()} == {name for name, _ in CHECKS}


def test_a_canary_may_fail_on_its_former_image() -> None:
    evidence = right_evidence()
    evidence["bad"]["targets"][0]["status"] = "failed"

    assert all(each.is_right for each in judge(evidence))
