"""Blue-green: half, verify, switch, half, verify (Deployment Patterns 4)."""

from datetime import timedelta

from deployments.strategies.types import EmptyFleetError, Fleet, Plan, Stage

GREEN_STAGE = 1
"""When the gate of this stage opens, the green fleet goes live."""
BLUE_STAGE = 2


def plan_blue_green(fleet: Fleet, *, verification: timedelta) -> Plan:
    """Cut the fleet into a green half, updated first, and the blue rest.

    The green one are the devices that were named as such, else a drawn half.

    Args:
        verification: how long each half is watched once it has settled.

    Returns:
        Two stages. A drawn green half has the odd device; a single device is all
        green.

    Raises:
        EmptyFleetError: all devices, or none, were named as green.
        ValueError: no device.

    Source: specification, Deployment Patterns 4; FR-FW-003.
    """
    fleet.check()
    count = fleet.device_count
    size = -(-count // 2) if fleet.green_count is None else fleet.green_count
    if fleet.green_count is not None and not 0 < size < count:
        empty = "blue" if size else "green"
        raise EmptyFleetError(
            "greenFleet",
            f"{size} of {count} devices are green, so the {empty} fleet has none",
        )
    green = Stage(GREEN_STAGE, "green", size, verification)
    if green.boundary == count:
        return Plan((green,))
    return Plan((green, Stage(BLUE_STAGE, "blue", count, verification)))
