"""Collect what the end of the story is judged by, as plain JSON."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from hotswap.demo.client import Client
from hotswap.demo.fleet import (
    FACTORY_VERSION,
    GATEWAY,
    SENSOR,
    TRACKER,
    DemoDevice,
    DemoFiles,
    Kind,
    read_slots,
)
from hotswap.demo.pace import PERCENTAGES
from hotswap.demo.seed import BAD_VERSION, GOOD_VERSION

HEARTBEAT_SECONDS = 30.0


def collect_deployment(admin: Client, deployment_id: str) -> dict[str, Any]:
    """Read one deployment back: status, targets, log (oldest first), audit."""
    path = f"deployments/{deployment_id}"
    return {
        "status": admin.get(f"{path}/status"),
        "targets": list(admin.every(f"{path}/devices")),
        "logs": list(admin.every(f"{path}/logs"))[::-1],
        "audit": list(admin.every("audit-events", objectId=deployment_id)),
    }


def collect(
    *,
    admin: Client,
    files: DemoFiles,
    roster: Sequence[DemoDevice],
    good: dict[str, Any],
    bad: dict[str, Any],
) -> dict[str, Any]:
    """Put all evidence together.

    Args:
        good, bad: what was collected of the two deployments, each at its end.
    """
    firmware = list(admin.every("firmware"))
    checksums = {(f["model"], f["version"]): f["checksum"] for f in firmware}
    powered = [each for each in roster if each.kind is not Kind.SPARE]
    sensors = [each.device_id for each in powered if each.model == SENSOR]
    agents = [each.device_id for each in roster if each.kind is Kind.AGENT]
    return {
        "percentages": list(PERCENTAGES),
        "versions": {
            "factory": FACTORY_VERSION,
            "good": GOOD_VERSION,
            "bad": BAD_VERSION,
        },
        "checksums": {
            "good": checksums[SENSOR, GOOD_VERSION],
            "bad": checksums[SENSOR, BAD_VERSION],
            "gateway": checksums[GATEWAY, FACTORY_VERSION],
        },
        "sensors": sensors,
        "agents": agents,
        "gateways": [each.device_id for each in powered if each.model == GATEWAY],
        "trackers": [each.device_id for each in powered if each.model == TRACKER],
        "spares": [each.device_id for each in roster if each.kind is Kind.SPARE],
        "firmware": firmware,
        "good": good,
        "bad": bad,
        "devices": list(admin.every("devices")),
        "health": {name: admin.get(f"devices/{name}/health") for name in sensors},
        "slots": {name: read_slots(files.agent(name) / "data") for name in agents},
    }


def wait_for_heartbeats(
    admin: Client, since: str, pause: Callable[[float], None]
) -> None:
    """Wait until each device that is on was heard after a moment, or time is up."""
    moment = datetime.fromisoformat(since)
    deadline = time.monotonic() + HEARTBEAT_SECONDS
    while time.monotonic() < deadline:
        heard = [
            admin.get(f"devices/{each['deviceId']}/health")["lastHeartbeat"]
            for each in admin.every("devices", model=SENSOR)
            if each["status"] != "never_seen"
        ]
        if all(at is not None and datetime.fromisoformat(at) > moment for at in heard):
            return
        pause(0.5)
