"""Direct: every target at once (specification, Deployment Patterns 1)."""

from datetime import timedelta

from deployments.strategies.fields import Parameters, StrategyDeclaration
from deployments.strategies.types import Fleet, Plan, Stage


def plan_direct(fleet: Fleet) -> Plan:
    """Put all devices into one stage.

    Raises:
        ValueError: no device.
    """
    fleet.check()
    return Plan((Stage(1, "all devices", fleet.device_count, timedelta(0)),))


def _plan(fleet: Fleet, _: Parameters) -> Plan:
    return plan_direct(fleet)


DIRECT = StrategyDeclaration(
    name="Direct",
    fields=(),
    plan=_plan,
    summary="All at once. For one device, or a lab.",
    picture=((2, 2, 115, 32, 1),),
)
