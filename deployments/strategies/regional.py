"""Regional: one region after the other (specification, Deployment Patterns 2)."""

from datetime import timedelta

from deployments.strategies.fields import Field, Kind, Parameters, StrategyDeclaration
from deployments.strategies.types import Fleet, Plan, Stage, nothing_after_the_last

WHOLE_DEPLOYMENT, FAILED_REGION = "deployment", "region"
"""What goes back when a region fails."""


def plan_regional(fleet: Fleet, *, pause: timedelta) -> Plan:
    """Make each region a stage, in the order given.

    Args:
        pause: how long a region is watched, once it has settled, before the next one.

    Returns:
        Cumulative boundaries. A region without devices vanishes. The last region has
        nothing to wait for.

    Raises:
        ValueError: no device.

    Source: specification, Deployment Patterns 2; FR-FW-003.
    """
    fleet.check()
    stages: list[Stage] = []
    reached = 0
    for region, device_count in fleet.by_region:
        if device_count:
            reached += device_count
            stages.append(Stage(len(stages) + 1, region, reached, pause))
    return Plan(nothing_after_the_last(stages))


def _plan(fleet: Fleet, parameters: Parameters) -> Plan:
    return plan_regional(fleet, pause=timedelta(seconds=parameters["pause_duration"]))


REGIONAL = StrategyDeclaration(
    name="Regional",
    fields=(
        Field(
            "pause_duration",
            Kind.DURATION,
            1800.0,
            "Pause between regions",
            "between regions",
        ),
        Field(
            "rollback_scope",
            Kind.CHOICE,
            WHOLE_DEPLOYMENT,
            "If a region fails, goes back",
            "what goes back",
            choices=(
                (WHOLE_DEPLOYMENT, "everything"),
                (FAILED_REGION, "that region alone"),
            ),
        ),
    ),
    plan=_plan,
    summary="One region after the other, with a pause in between.",
    picture=(
        (2, 2, 25, 32, 1),
        (32, 2, 25, 32, 0.75),
        (62, 2, 25, 32, 0.5),
        (92, 2, 25, 32, 0.3),
    ),
    gate_alias="health_check_threshold",
    orders_regions=True,
)
