"""Rolling: batch by batch (specification, Deployment Patterns 5)."""

from dataclasses import dataclass
from datetime import timedelta

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
