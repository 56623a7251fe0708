"""Which planner serves which strategy, with its parameters as plain JSON."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from deployments.strategies.canary import CanaryParameters, plan_canary
from deployments.strategies.direct import plan_direct
from deployments.strategies.types import Plan

Parameters = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StrategyEntry:
    """One strategy: its fields with their defaults, and its planner."""

    defaults: Parameters
    plan: Callable[[int, Parameters], Plan]


def _canary(device_count: int, parameters: Parameters) -> Plan:
    return plan_canary(
        device_count,
        CanaryParameters(
            parameters["initial_percentage"],
            tuple(parameters["increments"]),
            timedelta(seconds=parameters["wait_duration"]),
        ),
    )


# Durations are seconds. The defaults are the samples of the specification.
STRATEGIES: dict[str, StrategyEntry] = {
    "Direct": StrategyEntry({}, lambda count, _: plan_direct(count)),
    "Canary": StrategyEntry(
        {
            "initial_percentage": 10,
            "increments": [30, 50, 100],
            "wait_duration": 3600.0,
        },
        _canary,
    ),
}


def make_plan(strategy: str, device_count: int, parameters: Parameters) -> Plan:
    """Cut a fleet of this size into the stages of the strategy.

    Raises:
        ValueError: the parameters do not make sense, or there is no device.
    """
    return STRATEGIES[strategy].plan(device_count, parameters)
