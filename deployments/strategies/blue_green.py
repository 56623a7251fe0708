"""Blue-green: half, verify, switch, half, verify (Deployment Patterns 4)."""

from datetime import timedelta

from deployments.strategies.types import Fleet, Plan, Stage

GREEN_STAGE = 1
"""When the gate of this stage opens, the green fleet goes live."""


def plan_blue_green(fleet: Fleet, *, verification: timedelta) -> Plan:
    """Cut the fleet into a green half, updated first, and the blue rest.

    Args:
        verification: how long each half is watched once it has settled.

    Returns:
        Two stages; the green one has the odd device. A single device is all green.

    Raises:
        ValueError: no device.

    Source: specification, Deployment Patterns 4; FR-FW-003.
    """
    fleet.check()
    count = fleet.device_count
    green = Stage(GREEN_STAGE, "green", -(-count // 2), verification)
    if green.boundary == count:
        return Plan((green,))
    return Plan((green, Stage(2, "blue", count, verification)))
