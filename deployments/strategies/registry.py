"""Which planner serves which strategy, with its parameters as plain JSON."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from deployments.strategies.blue_green import plan_blue_green
from deployments.strategies.canary import CanaryParameters, plan_canary
from deployments.strategies.direct import plan_direct
from deployments.strategies.holds import hold_rule
from deployments.strategies.regional import plan_regional
from deployments.strategies.rolling import RollingParameters, plan_rolling
from deployments.strategies.types import Fleet, HoldRule, Plan

Parameters = dict[str, Any]


def _never(_: Parameters) -> None:
    return None


@dataclass(frozen=True, slots=True)
class StrategyEntry:
    """One strategy: its fields with their defaults, its planner, its usual gate.

    `in_flight` tells how many stages may be unfinished at once, `hold` whether fleets
    are held.
    """

    defaults: Parameters
    plan: Callable[[Fleet, Parameters], Plan]
    health_threshold_percent: float = 99.0
    in_flight: Callable[[Parameters], int] = lambda _: 1
    hold: Callable[[Parameters], HoldRule | None] = _never


def _canary(fleet: Fleet, parameters: Parameters) -> Plan:
    return plan_canary(
        fleet,
        CanaryParameters(
            parameters["initial_percentage"],
            tuple(parameters["increments"]),
            timedelta(seconds=parameters["wait_duration"]),
        ),
    )


def _regional(fleet: Fleet, parameters: Parameters) -> Plan:
    return plan_regional(fleet, pause=timedelta(seconds=parameters["pause_duration"]))


def _blue_green(fleet: Fleet, parameters: Parameters) -> Plan:
    return plan_blue_green(
        fleet, verification=timedelta(seconds=parameters["verification_duration"])
    )


def _blue_green_hold(parameters: Parameters) -> HoldRule | None:
    return hold_rule(
        parameters.get("switch_hold", 0.0),
        until_acknowledged=parameters.get("hold_until_acknowledged", False),
    )


def _rolling(fleet: Fleet, parameters: Parameters) -> Plan:
    return plan_rolling(
        fleet,
        RollingParameters(
            parameters["batch_size"],
            timedelta(seconds=parameters["batch_wait_duration"]),
            parameters["max_concurrent_batches"],
        ),
    )


# Durations are seconds. The defaults are the samples of the specification.
STRATEGIES: dict[str, StrategyEntry] = {
    "Direct": StrategyEntry({}, lambda fleet, _: plan_direct(fleet)),
    "Regional": StrategyEntry(
        {"pause_duration": 1800.0, "rollback_scope": "deployment"}, _regional
    ),
    "Canary": StrategyEntry(
        {
            "initial_percentage": 10,
            "increments": [30, 50, 100],
            "wait_duration": 3600.0,
        },
        _canary,
    ),
    "BlueGreen": StrategyEntry(
        {
            "verification_duration": 7200.0,
            "green_fleet": None,
            "switch_hold": 0.0,
            "hold_until_acknowledged": False,
            "on_blue_failure": "keep-green",
        },
        _blue_green,
        health_threshold_percent=99.5,
        hold=_blue_green_hold,
    ),
    "Rolling": StrategyEntry(
        {
            "batch_size": 100,
            "batch_wait_duration": 900.0,
            "max_concurrent_batches": 3,
        },
        _rolling,
        in_flight=lambda parameters: int(parameters["max_concurrent_batches"]),
    ),
}


def make_plan(strategy: str, fleet: Fleet, parameters: Parameters) -> Plan:
    """Cut a fleet into the stages of the strategy.

    Raises:
        ParameterError: a parameter does not make sense, alone or for this fleet.
        ValueError: there is no device.
    """
    return STRATEGIES[strategy].plan(fleet, parameters)
