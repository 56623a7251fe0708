"""Blue-green: half, verify, switch, half, verify (Deployment Patterns 4)."""

from datetime import timedelta

from deployments.strategies.fields import Field, Kind, Parameters, StrategyDeclaration
from deployments.strategies.holds import hold_rule
from deployments.strategies.types import EmptyFleetError, Fleet, HoldRule, Plan, Stage

GREEN_STAGE = 1
"""When the gate of this stage opens, the green fleet goes live."""
BLUE_STAGE = 2
KEEP_GREEN, BOTH = "keep-green", "both"
"""What goes back when blue fails after the switch."""


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


def _plan(fleet: Fleet, parameters: Parameters) -> Plan:
    return plan_blue_green(
        fleet, verification=timedelta(seconds=parameters["verification_duration"])
    )


def _hold(parameters: Parameters) -> HoldRule | None:
    return hold_rule(
        parameters.get("switch_hold", 0.0),
        until_acknowledged=parameters.get("hold_until_acknowledged", False),
    )


BLUE_GREEN = StrategyDeclaration(
    name="BlueGreen",
    fields=(
        Field(
            "verification_duration",
            Kind.DURATION,
            7200.0,
            "Verify each half for",
            "of each half",
        ),
        Field("green_fleet", Kind.FLEET, None, "Green half"),
        Field(
            "switch_hold",
            Kind.DURATION,
            0.0,
            "Hold a fleet to drain for",
            "for draining, before each half and the switch",
            "Before each half is updated and before the switch; 0: not at all",
        ),
        Field(
            "hold_until_acknowledged",
            Kind.BOOLEAN,
            False,
            "Hold until somebody acknowledges",
            "a hold has no end by time",
        ),
        Field(
            "on_blue_failure",
            Kind.CHOICE,
            KEEP_GREEN,
            "If blue fails after the switch",
            "what goes back after the switch",
            choices=(
                (KEEP_GREEN, "blue goes back, green serves on"),
                (BOTH, "blue goes back, serves, then green goes back"),
            ),
        ),
    ),
    plan=_plan,
    summary="Half, verified, goes live; then the other half.",
    picture=(
        (2, 2, 55, 32, 1),
        (62, 2, 55, 32, 0.4),
    ),
    health_threshold_percent=99.5,
    hold=_hold,
)
