"""Direct: every target at once (specification, Deployment Patterns 1)."""

from datetime import timedelta

from deployments.strategies.types import Fleet, Plan, Stage


def plan_direct(fleet: Fleet) -> Plan:
    """Put all devices into one stage.

    Raises:
        ValueError: no device.
    """
    fleet.check()
    return Plan((Stage(1, "all devices", fleet.device_count, timedelta(0)),))
