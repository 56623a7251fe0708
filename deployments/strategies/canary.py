"""Canary: rising percentages of the fleet (specification, Deployment Patterns 3)."""

from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

from deployments.strategies.types import Plan, Stage


@dataclass(frozen=True, slots=True)
class CanaryParameters:
    """Percentages of 1-100: the first step, then the steps that follow.

    A list of steps that does not end at 100 gets 100 as its last.
    """

    initial_percentage: int
    increments: tuple[int, ...]
    wait: timedelta

    def __post_init__(self) -> None:
        steps = (self.initial_percentage, *self.increments)
        if any(not 1 <= step <= 100 for step in steps):
            raise ValueError("percentages lie between 1 and 100")
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError("each percentage must be higher than the one before")

    @property
    def steps(self) -> tuple[int, ...]:
        """All percentages, the last one 100."""
        steps = (self.initial_percentage, *self.increments)
        return steps if steps[-1] == 100 else (*steps, 100)


def plan_canary(device_count: int, parameters: CanaryParameters) -> Plan:
    """Cut the fleet into cumulative percentage stages.

    Args:
        device_count: eligible devices, 1 or more.

    Returns:
        Cumulative boundaries that end at device_count. Shares round up: 10 % of 3
        devices is 1. A stage that would add no device vanishes. The last stage has
        nothing to wait for.

    Raises:
        ValueError: no device.

    Source: specification, Deployment Patterns 3; FR-FW-003.
    """
    if device_count < 1:
        raise ValueError("a plan needs at least one device")
    stages: list[Stage] = []
    reached = 0
    for percent in parameters.steps:
        boundary = -(-device_count * percent // 100)
        if boundary == reached:
            continue
        reached = boundary
        wait = timedelta(0) if boundary == device_count else parameters.wait
        stages.append(Stage(len(stages) + 1, f"{percent} %", boundary, wait))
    return Plan(tuple(stages))
