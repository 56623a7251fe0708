"""How fast the story goes. Waits are compressed, and the console says so.

Sixty times faster: a poll a second instead of a minute, a heartbeat every five
seconds instead of minutes, twenty seconds of waiting instead of twenty minutes.
Without a person who watches, the waits are shorter still.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

CLOCK = "60x"
INITIAL_PERCENTAGE = 10
INCREMENTS = (30, 100)
PERCENTAGES = (INITIAL_PERCENTAGE, *INCREMENTS)
REGION_PAUSE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds.

    Attributes:
        wait: between a stage that has settled and the next.
        confirmation: how long a device proves itself after its claim.
        interlude: before each deployment, for people to look around.
    """

    wait: int
    confirmation: int
    interlude: float


FOR_PEOPLE = Pace(wait=20, confirmation=6, interlude=15.0)
FOR_CHECKS = Pace(wait=2, confirmation=4, interlude=0.0)

INTERVALS = {
    "HOTSWAP_POLL_SECONDS": "4",
    "HOTSWAP_POLL_SECONDS_DEPLOYING": "2",
    "HOTSWAP_HEARTBEAT_SECONDS": "5",
    "HOTSWAP_HEARTBEAT_SECONDS_DEPLOYING": "2",
    "HOTSWAP_HEARTBEAT_SECONDS_AFTER": "4",
    "HOTSWAP_ONLINE_FLOOR_SECONDS": "30",
}


def canary(name: str, firmware_id: str, pace: Pace) -> dict[str, Any]:
    """Return the request of a canary over everything that the firmware fits."""
    return {
        "name": name,
        "firmwareId": firmware_id,
        "strategy": "Canary",
        "targetAll": True,
        "acknowledge": ["whole_fleet"],
        "offlineDevices": "exclude",
        "initialPercentage": INITIAL_PERCENTAGE,
        "increments": list(INCREMENTS),
        "waitDuration": f"PT{pace.wait}S",
        "healthCriteria": {
            "confirmationDuration": f"PT{pace.confirmation}S",
            "heartbeatsRequired": 2,
            "watchDuration": "PT5M",
        },
        "rollbackThresholds": {
            "offlineAfter": "PT30S",
            "cpuUsage": 95,
            "cpuDuration": "PT30S",
            "memoryUsage": 90,
            "memoryDuration": "PT5S",
            "errorRate": 0.1,
            "errorDuration": "PT0S",
        },
        "deviceTimeout": "PT3M",
    }


def regional(name: str, firmware_id: str, regions: Sequence[str]) -> dict[str, Any]:
    """Return the request of a slow walk through regions whose devices come and go."""
    return {
        "name": name,
        "firmwareId": firmware_id,
        "strategy": "Regional",
        "regions": list(regions),
        "pauseDuration": f"PT{REGION_PAUSE_SECONDS}S",
        "acknowledge": ["whole_fleet"],
        "offlineDevices": "wait",
        "healthCriteria": {
            "confirmationDuration": "PT10S",
            "heartbeatsRequired": 2,
            "watchDuration": "PT2M",
        },
        "rollbackThresholds": {"offlineAfter": "PT3M", "successRate": 50},
        "healthThreshold": 50,
        "deviceTimeout": "PT5M",
    }
