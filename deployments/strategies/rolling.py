"""Rolling: batch by batch (specification, Deployment Patterns 5)."""

from dataclasses import dataclass
from datetime import timedelta

from deployments.strategies.fields import Field, Kind, Parameters, StrategyDeclaration
from deployments.strategies.types import Fleet, ParameterError, Plan, Stage

MAX_BATCHES = 1000


@dataclass(frozen=True, slots=True)
class RollingParameters:
    """Devices in a batch, how long each batch is verified, batches at once."""

    batch_size: int
    batch_wait: timedelta
    max_concurrent_batches: int


def plan_rolling(fleet: Fleet, parameters: RollingParameters) -> Plan:
    """Cut the fleet into batches of one size; the last may be smaller.

    Returns:
        Cumulative boundaries, and how many batches may be unfinished at once. Every
        batch is verified, the last one too.

    Raises:
        ParameterError: `batchSize` makes more than 1,000 batches.
        ValueError: no device.

    Source: specification, Deployment Patterns 5; FR-FW-003.
    """
    fleet.check()
    count, size = fleet.device_count, parameters.batch_size
    batches = -(-count // size)
    if batches > MAX_BATCHES:
        raise ParameterError(
            "batchSize",
            f"{size} makes {batches} batches of {count} devices; {MAX_BATCHES} are "
            f"the most, so at least {-(-count // MAX_BATCHES)} are needed",
        )
    return Plan(
        tuple(
            Stage(
                number,
                f"batch {number}",
                min(number * size, count),
                parameters.batch_wait,
            )
            for number in range(1, batches + 1)
        ),
        in_flight=parameters.max_concurrent_batches,
    )


def _plan(fleet: Fleet, parameters: Parameters) -> Plan:
    return plan_rolling(
        fleet,
        RollingParameters(
            parameters["batch_size"],
            timedelta(seconds=parameters["batch_wait_duration"]),
            parameters["max_concurrent_batches"],
        ),
    )


ROLLING = StrategyDeclaration(
    name="Rolling",
    fields=(
        Field(
            "batch_size",
            Kind.INTEGER,
            100,
            "Devices in a batch",
            "devices",
            minimum=1,
            maximum=100_000,
        ),
        Field(
            "batch_wait_duration",
            Kind.DURATION,
            900.0,
            "Verify each batch for",
            "of each batch",
        ),
        Field(
            "max_concurrent_batches",
            Kind.INTEGER,
            3,
            "Batches at once",
            minimum=1,
            maximum=100,
        ),
    ),
    plan=_plan,
    summary="Batches of one size, a few of them at once.",
    picture=(
        (2, 2, 50, 8, 1),
        (2, 14, 50, 8, 1),
        (2, 26, 50, 8, 1),
        (58, 2, 50, 8, 0.5),
        (58, 14, 50, 8, 0.5),
    ),
    in_flight=lambda parameters: int(parameters["max_concurrent_batches"]),
)
