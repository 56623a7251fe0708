"""Direct: every target at once (specification, Deployment Patterns 1)."""

from datetime import timedelta

from deployments.strategies.types import Plan, Stage


def plan_direct(device_count: int) -> Plan:
    """Put all devices into one stage.

    Raises:
        ValueError: no device.
    """
    if device_count < 1:
        raise ValueError("a plan needs at least one device")
    return Plan((Stage(1, "all devices", device_count, timedelta(0)),))
