"""Which strategies there are, in the order in which people choose among them.

One more costs a module beside the others that declares its fields, a line below, its
word in `choices.Strategy` (with a migration of the column's choices), a line of
`static/hotswap/console.css` where it has fields, its rows in `docs/deployments.md`,
and a new `docs/openapi.yaml`. What is missing is said by
`tests/deployments/strategies/test_declarations.py`.
"""

from deployments.strategies.blue_green import BLUE_GREEN
from deployments.strategies.canary import CANARY
from deployments.strategies.direct import DIRECT
from deployments.strategies.fields import Parameters, StrategyDeclaration
from deployments.strategies.regional import REGIONAL
from deployments.strategies.rolling import ROLLING
from deployments.strategies.types import Fleet, Plan

STRATEGIES: dict[str, StrategyDeclaration] = {
    each.name: each for each in (CANARY, REGIONAL, ROLLING, BLUE_GREEN, DIRECT)
}


def make_plan(strategy: str, fleet: Fleet, parameters: Parameters) -> Plan:
    """Cut a fleet into the stages of the strategy.

    Raises:
        ParameterError: a parameter does not make sense, alone or for this fleet.
        ValueError: there is no device.
    """
    return STRATEGIES[strategy].plan(fleet, parameters)
