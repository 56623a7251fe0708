"""Canary: rising percentages of the fleet (specification, Deployment Patterns 3)."""

from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

from deployments.strategies.fields import Field, Kind, Parameters, StrategyDeclaration
from deployments.strategies.types import (
    Fleet,
    ParameterError,
    Plan,
    Stage,
    nothing_after_the_last,
    share_of,
)


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
            raise ParameterError("increments", "percentages lie between 1 and 100")
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise ParameterError(
                "increments", "each percentage must be higher than the one before"
            )

    @property
    def steps(self) -> tuple[int, ...]:
        """All percentages, the last one 100."""
        steps = (self.initial_percentage, *self.increments)
        return steps if steps[-1] == 100 else (*steps, 100)


def plan_canary(fleet: Fleet, parameters: CanaryParameters) -> Plan:
    """Cut the fleet into cumulative percentage stages.

    Returns:
        Cumulative boundaries that end at the number of devices. Shares round up: 10 %
        of 3 devices is 1. A stage that would add no device vanishes. The last stage
        has nothing to wait for.

    Raises:
        ValueError: no device.

    Source: specification, Deployment Patterns 3; FR-FW-003.
    """
    fleet.check()
    stages: list[Stage] = []
    reached = 0
    for percent in parameters.steps:
        boundary = share_of(fleet.device_count, percent)
        if boundary == reached:
            continue
        reached = boundary
        stages.append(Stage(len(stages) + 1, f"{percent} %", boundary, parameters.wait))
    return Plan(nothing_after_the_last(stages))


def _plan(fleet: Fleet, parameters: Parameters) -> Plan:
    return plan_canary(
        fleet,
        CanaryParameters(
            parameters["initial_percentage"],
            tuple(parameters["increments"]),
            timedelta(seconds=parameters["wait_duration"]),
        ),
    )


CANARY = StrategyDeclaration(
    name="Canary",
    fields=(
        Field(
            "initial_percentage",
            Kind.INTEGER,
            10,
            "First stage, %",
            "the first stage, percent of all",
            minimum=1,
            maximum=100,
        ),
        Field(
            "increments",
            Kind.INTEGERS,
            [30, 50, 100],
            "Then, % of all",
            "then, rising; where they end below 100 a last stage of 100 % is added, "
            "and a warning `stage_added` says so",
            "Rising, separated by commas; 100 is added at the end",
            minimum=1,
            maximum=100,
        ),
        Field(
            "wait_duration",
            Kind.DURATION,
            3600.0,
            "Wait between stages",
            "between stages",
        ),
    ),
    plan=_plan,
    summary="A few first; each step opens when the one before has proved itself.",
    picture=(
        (2, 28, 25, 6, 1),
        (32, 21, 25, 13, 1),
        (62, 13, 25, 21, 1),
        (92, 2, 25, 32, 1),
    ),
)
