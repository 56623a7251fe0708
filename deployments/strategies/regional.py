"""Regional: one region after the other (specification, Deployment Patterns 2)."""

from datetime import timedelta

from deployments.strategies.types import Fleet, Plan, Stage, nothing_after_the_last


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
