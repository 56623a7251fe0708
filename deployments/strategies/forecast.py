"""How long a plan takes if nothing goes wrong. Standard library only."""

from datetime import timedelta

from deployments.strategies.types import Plan


def forecast(
    plan: Plan,
    *,
    device_time: timedelta,
    spread: timedelta = timedelta(0),
    devices_per_minute: int | None = None,
) -> timedelta:
    """Return the time from the start to the passing of the last gate.

    Args:
        device_time: from the order of a device to its proof.
        spread: over which the orders of a stage are drawn.
        devices_per_minute: the most orders in a minute; None without a limit.

    Returns:
        The sum over the stages, those that are in flight together side by side.
        Approvals, windows and devices that are offline are not foreseen.

    Source: FR-FW-007, estimated time to completion.
    """
    ends: list[timedelta] = []
    last_order = timedelta(0)
    earlier = 0
    for number, stage in enumerate(plan.stages):
        before = number - plan.in_flight
        opens = max(ends[: before + 1], default=timedelta(0))
        orders = spread
        if devices_per_minute:
            paced = timedelta(minutes=(stage.boundary - earlier) / devices_per_minute)
            last_order = max(last_order, opens) + paced
            orders = max(orders, last_order - opens)
        earlier = stage.boundary
        ends.append(opens + orders + device_time + stage.wait)
    return max(ends)
