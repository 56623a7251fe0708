"""Judge the end of the story. Pure: plain JSON in, a list of findings out.

The evidence is what the API and the devices' own files said, collected by
`hotswap.demo.evidence`. Nothing here asks anybody anything, so each finding can be
tried against a wrong end.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from health.triggers import BY_NAME

Evidence = Mapping[str, Any]
OPENED, PASSED = "stage.opened", "stage.passed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that must hold; `differences` is empty if it does."""

    name: str
    seen: str
    differences: tuple[str, ...] = ()

    @property
    def is_right(self) -> bool:
        return not self.differences


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a check returns: what it saw, and what differs from what must be."""

    text: str
    differences: tuple[str, ...] = ()


def judge(evidence: Evidence) -> list[Finding]:
    """Judge everything; a check that cannot even be made counts as wrong."""
    findings = []
    for name, check in CHECKS:
        try:
            seen = check(evidence)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            seen = _Seen("not to be judged", (f"{type(error).__name__}: {error}",))
        findings.append(Finding(name, seen.text, seen.differences))
    return findings


# --- the good update ------------------------------------------------------------


def _good_completed(evidence: Evidence) -> _Seen:
    return _status(evidence["good"], "Completed")


def _good_all_succeeded(evidence: Evidence) -> _Seen:
    progress = evidence["good"]["status"]["progress"]
    total = len(evidence["sensors"])
    expected = dict.fromkeys(progress, 0) | {"total": total, "success": total}
    return _Seen(
        f"{progress['success']} of {progress['total']} devices succeeded",
        _differing(expected, progress),
    )


def _good_targets(evidence: Evidence) -> _Seen:
    targets = _by_device(evidence["good"]["targets"])
    differences = _other_members(evidence["sensors"], targets)
    differences += _wrong(targets, lambda t: t["status"] == "success", "status")
    former = evidence["versions"]["factory"]
    differences += _wrong(targets, lambda t: t["fromVersion"] == former, "fromVersion")
    return _Seen(f"{len(targets)} targets, each proved", tuple(differences))


def _good_left_out(evidence: Evidence) -> _Seen:
    others = [*evidence["gateways"], *evidence["trackers"]]
    expected = dict.fromkeys(others, "wrong_model")
    expected |= dict.fromkeys(evidence["spares"], "disabled")
    seen = {x["deviceId"]: x["code"] for x in evidence["good"]["excluded"]}
    return _Seen(
        f"{len(seen)} devices excluded with a reason", _differing(expected, seen)
    )


def _good_proof_follows_claim(evidence: Evidence) -> _Seen:
    logs = evidence["good"]["logs"]
    claimed = _first_ids(logs, "device.claimed")
    proved = _first_ids(logs, "device.updated")
    differences = [
        f"{name}: claim {claimed.get(name)}, proof {proved.get(name)}"
        for name in evidence["sensors"]
        if not claimed.get(name, 1e18) < proved.get(name, -1)
    ]
    return _Seen(
        f"{len(proved)} proofs, each after the device's claim", tuple(differences)
    )


def _good_devices_run_it(evidence: Evidence) -> _Seen:
    return _all_run_good(evidence, evidence["good"]["devicesAfter"])


def _good_stages(evidence: Evidence) -> _Seen:
    total = len(evidence["sensors"])
    expected = []
    reached = 0
    for percent in evidence["percentages"]:
        boundary = _share(total, percent)
        expected.append((f"{percent} %", boundary - reached, "passed"))
        reached = boundary
    stages = evidence["good"]["status"]["stages"]
    seen = [(s["name"], s["size"], s["status"]) for s in stages]
    differences = [] if seen == expected else [f"{seen} instead of {expected}"]
    differences += _stage_order(evidence["good"]["logs"], len(expected))
    return _Seen(
        " then ".join(f"{name} ({size})" for name, size, _ in seen),
        tuple(differences),
    )


def _good_stage_exposure(evidence: Evidence) -> _Seen:
    return _exposure(evidence["good"])


# --- the bad update -------------------------------------------------------------


def _bad_rolled_back(evidence: Evidence) -> _Seen:
    return _status(evidence["bad"], "RolledBack")


def _bad_by_itself(evidence: Evidence) -> _Seen:
    logs = evidence["bad"]["logs"]
    begun = [e for e in logs if e["event"] == "rollback.started"]
    breaches = [
        e
        for e in logs
        if e["event"] == "device.failed" and e["message"].split(":")[0] in BY_NAME
    ]
    differences = []
    if len(begun) != 1:
        differences.append(f"{len(begun)} rollbacks were started")
    if not breaches:
        differences.append("no device failed by what was measured of its program")
    elif begun and breaches[0]["id"] > begun[0]["id"]:
        differences.append("the rollback began before the first breach")
    differences += [
        f"{line['actorName']} did {line['verb']}"
        for line in evidence["bad"]["audit"]
        if line["actor"] is not None and line["verb"] != "deployment.created"
    ]
    seen = breaches[0]["message"].split(";")[0] if breaches else "nothing"
    return _Seen(seen, tuple(differences))


def _bad_exposure(evidence: Evidence) -> _Seen:
    exposed = _exposed(evidence["bad"]["logs"])
    total = len(evidence["sensors"])
    allowed = _share(total, evidence["percentages"][0])
    differences = []
    if not 0 < len(exposed) <= allowed:
        differences.append(f"{len(exposed)} devices got it, {allowed} may")
    counted = sum(stage["exposed"] for stage in evidence["bad"]["status"]["stages"])
    if counted != len(exposed):
        differences.append(f"the status counts {counted} exposed devices")
    opened = [e["stage"] for e in evidence["bad"]["logs"] if e["event"] == OPENED]
    if opened != [1]:
        differences.append(f"stages {opened} were opened")
    return _Seen(
        f"{len(exposed)} of {total} devices got it, {allowed} may", tuple(differences)
    )


def _bad_exposed_are_back(evidence: Evidence) -> _Seen:
    targets = _by_device(evidence["bad"]["targets"])
    running = {d["deviceId"]: d["firmwareChecksum"] for d in evidence["devices"]}
    good = evidence["checksums"]["good"]
    proved = _first_ids(evidence["bad"]["logs"], "device.returned")
    differences = []
    returned = 0
    for name in sorted(_exposed(evidence["bad"]["logs"])):
        status = targets[name]["status"]
        is_back = status == "rolled_back" and name in proved
        returned += is_back
        if not is_back and not (status == "failed" and running[name] == good):
            differences.append(f"{name}: {status}, runs {running[name][:12]}")
    return _Seen(f"{returned} devices proved their return", tuple(differences))


def _bad_others_untouched(evidence: Evidence) -> _Seen:
    exposed = _exposed(evidence["bad"]["logs"])
    targets = _by_device(evidence["bad"]["targets"])
    differences = _other_members(evidence["sensors"], targets)
    others = {name: row for name, row in targets.items() if name not in exposed}
    differences += _wrong(others, lambda t: t["status"] == "cancelled", "status")
    differences += _wrong(others, lambda t: t["attempt"] == 0, "attempt")
    # What ran before names 2.6.0 where it ever ran.
    former = {d["deviceId"]: d["previousFirmwareVersion"] for d in evidence["devices"]}
    expected = evidence["versions"]["factory"]
    differences += [
        f"{name}: ran {former[name]} before"
        for name in others
        if former[name] != expected
    ]
    return _Seen(f"{len(others)} devices were never touched", tuple(differences))


# --- the end --------------------------------------------------------------------


def _end_devices(evidence: Evidence) -> _Seen:
    return _all_run_good(evidence, evidence["devices"])


def _end_gateways(evidence: Evidence) -> _Seen:
    expected = evidence["checksums"]["gateway"]
    devices = _by_device(evidence["devices"])
    gateways = {name: devices[name] for name in evidence["gateways"]}
    differences = _wrong(
        gateways, lambda d: d["firmwareChecksum"] == expected, "firmwareVersion"
    )
    return _Seen(f"{len(gateways)} gateways kept theirs", tuple(differences))


def _end_health(evidence: Evidence) -> _Seen:
    since = evidence["bad"]["status"]["finishedAt"]
    version = evidence["versions"]["good"]
    health = evidence["health"]
    differences = _other_members(evidence["sensors"], health)
    differences += _wrong(health, lambda h: h["status"] == "Healthy", "status")
    differences += _wrong(
        health, lambda h: h["firmwareVersion"] == version, "firmwareVersion"
    )
    differences += [
        f"{name}: last heard at {row['lastHeartbeat']}"
        for name, row in health.items()
        if not _moment(row["lastHeartbeat"]) > _moment(since)
    ]
    return _Seen(
        f"{len(health)} devices healthy, heard since the rollback", tuple(differences)
    )


def _end_slots(evidence: Evidence) -> _Seen:
    good, bad = evidence["checksums"]["good"], evidence["checksums"]["bad"]
    version = evidence["versions"]["good"]
    exposed = _exposed(evidence["bad"]["logs"])
    returned = set(_first_ids(evidence["bad"]["logs"], "device.returned"))
    differences = _other_members(evidence["agents"], evidence["slots"])
    for name, slots in evidence["slots"].items():
        current = slots["current"] or {}
        if (
            current.get("version") != version
            or current.get("sha256") != good
            or current.get("imageSha256") != good
        ):
            differences.append(f"{name}: boots {current}")
        if slots["phase"] not in ("idle", None):
            differences.append(f"{name}: is {slots['phase']}")
        other = (slots["previous"] or {}).get("sha256")
        if name not in exposed and other == bad:
            differences.append(f"{name}: holds the bad image and was not offered it")
    canaries = sorted(returned & set(evidence["agents"]))
    return _Seen(
        f"{len(evidence['slots'])} agents boot {version}"
        + (f"; back from the bad one: {', '.join(canaries)}" if canaries else ""),
        tuple(differences),
    )


def _four_eyes(evidence: Evidence) -> _Seen:
    differences = [
        f"{f['model']} {f['version']}: {f['status']}, uploaded by {f['uploadedBy']}, "
        f"approved by {f['approvedBy']}"
        for f in evidence["firmware"]
        if f["status"] == "Approved"
        and (not f["approvedBy"] or f["approvedBy"] == f["uploadedBy"])
    ]
    approved = sum(f["status"] == "Approved" for f in evidence["firmware"])
    return _Seen(f"{approved} approvals, each by a second person", tuple(differences))


CHECKS: tuple[tuple[str, Callable[[Evidence], _Seen]], ...] = (
    ("Good update: deployment", _good_completed),
    ("Good update: counts", _good_all_succeeded),
    ("Good update: each target", _good_targets),
    ("Good update: excluded", _good_left_out),
    ("Good update: stages in order", _good_stages),
    ("Good update: no stage too large", _good_stage_exposure),
    ("Good update: claim, then proof", _good_proof_follows_claim),
    ("Good update: what devices ran", _good_devices_run_it),
    ("Bad update: deployment", _bad_rolled_back),
    ("Bad update: measured breach", _bad_by_itself),
    ("Bad update: canary only", _bad_exposure),
    ("Bad update: canaries are back", _bad_exposed_are_back),
    ("Bad update: others untouched", _bad_others_untouched),
    ("End: what devices run", _end_devices),
    ("End: other model untouched", _end_gateways),
    ("End: health", _end_health),
    ("End: slots on disk", _end_slots),
    ("Four eyes", _four_eyes),
)


# --- helpers --------------------------------------------------------------------


def _status(part: Mapping[str, Any], expected: str) -> _Seen:
    status = part["status"]["status"]
    reason = part["status"]["rollbackReason"] or part["status"]["failureReason"]
    if status == expected:
        return _Seen(status)
    return _Seen(status, (f"{expected} expected" + (f": {reason}" if reason else ""),))


def _share(total: int, percent: int) -> int:
    """Shares round up."""
    return -(-total * percent // 100)


def _stage_order(logs: Iterable[Mapping[str, Any]], count: int) -> list[str]:
    """Each stage opens once, after the one before it has passed."""
    events = [
        (e["event"], e["stage"])
        for e in sorted(logs, key=lambda e: e["id"])
        if e["event"] in (OPENED, PASSED)
    ]
    expected = [
        (event, number) for number in range(1, count + 1) for event in (OPENED, PASSED)
    ]
    return [] if events == expected else [f"the log says {events}"]


def _exposure(part: Mapping[str, Any]) -> _Seen:
    """No device is offered anything before its stage opened, nor too many."""
    logs = sorted(part["logs"], key=lambda e: e["id"])
    sizes = {s["number"]: s["size"] for s in part["status"]["stages"]}
    opened: set[int] = set()
    exposed: dict[int, set[str]] = {number: set() for number in sizes}
    differences = []
    for event in logs:
        if event["event"] == OPENED:
            opened.add(event["stage"])
        elif event["event"] == "device.notified":
            exposed[event["stage"]].add(event["deviceId"])
            if event["stage"] not in opened:
                differences.append(f"{event['deviceId']}: offered before its stage")
    differences += [
        f"stage {number}: {len(devices)} devices, planned {sizes[number]}"
        for number, devices in exposed.items()
        if len(devices) > sizes[number]
    ]
    return _Seen(
        ", ".join(f"{len(exposed[n])} of {sizes[n]}" for n in sizes),
        tuple(differences),
    )


def _exposed(logs: Iterable[Mapping[str, Any]]) -> set[str]:
    return {e["deviceId"] for e in logs if e["event"] == "device.notified"}


def _first_ids(logs: Iterable[Mapping[str, Any]], event: str) -> dict[str, int]:
    """Return the number of the first such line of each device."""
    found: dict[str, int] = {}
    for line in sorted(logs, key=lambda e: e["id"]):
        if line["event"] == event:
            found.setdefault(line["deviceId"], line["id"])
    return found


def _all_run_good(evidence: Evidence, devices: Iterable[Mapping[str, Any]]) -> _Seen:
    found = _by_device(devices)
    version, checksum = evidence["versions"]["good"], evidence["checksums"]["good"]
    sensors = {name: found[name] for name in evidence["sensors"]}
    differences = _wrong(
        sensors, lambda d: d["firmwareVersion"] == version, "firmwareVersion"
    )
    differences += _wrong(
        sensors, lambda d: d["firmwareChecksum"] == checksum, "firmwareChecksum"
    )
    right = len(sensors) - len({line.split(":")[0] for line in differences})
    return _Seen(f"{right} of {len(sensors)} run {version}", tuple(differences))


def _by_device(rows: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {row["deviceId"]: row for row in rows}


def _other_members(expected: Iterable[str], seen: Iterable[str]) -> list[str]:
    wanted, found = set(expected), set(seen)
    return [f"{name}: missing" for name in sorted(wanted - found)] + [
        f"{name}: not expected" for name in sorted(found - wanted)
    ]


def _wrong(
    rows: Mapping[str, Mapping[str, Any]],
    holds: Callable[[Mapping[str, Any]], bool],
    field: str,
) -> list[str]:
    return [
        f"{name}: {field} {row[field]!r}"
        for name, row in sorted(rows.items())
        if not holds(row)
    ]


def _differing(expected: Mapping[str, Any], seen: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(
        f"{name}: {seen.get(name)!r} instead of {expected.get(name)!r}"
        for name in sorted({*expected, *seen})
        if expected.get(name) != seen.get(name)
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
