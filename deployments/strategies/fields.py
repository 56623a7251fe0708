"""How a strategy declares its fields: once, beside its planner.

From the declaration are built what the API takes and describes, the fields of the
launch form, and the rows of the table in `docs/deployments.md`. Standard library only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from deployments.strategies.types import Fleet, HoldRule, Plan

Parameters = dict[str, Any]


class Kind(StrEnum):
    """What a field holds. Durations are stored as seconds."""

    INTEGER = "integer"
    INTEGERS = "integers"
    DURATION = "duration"
    BOOLEAN = "boolean"
    CHOICE = "choice"
    FLEET = "fleet"
    """The devices of a group, or those with a tag: `{"group": id}`, `{"tag": {}}`."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a strategy.

    Attributes:
        name: in snake_case, as it is stored; the API and the form write it in
            camelCase.
        default: as it is stored.
        label: in the launch form.
        meaning: in the table of the docs, after the name of the strategy.
        hint: below the field of the form.
        minimum, maximum: of an integer, or of each of the integers.
        choices: each value with its label in the form.
    """

    name: str
    kind: Kind
    default: Any
    label: str
    meaning: str = ""
    hint: str = ""
    minimum: int = 0
    maximum: int = 0
    choices: tuple[tuple[str, str], ...] = ()


def _one(_: Parameters) -> int:
    return 1


def _never(_: Parameters) -> None:
    return None


@dataclass(frozen=True, slots=True)
class StrategyDeclaration:
    """One strategy: its fields, its planner, its usual gate, and how it is shown.

    Attributes:
        name: as the API says it.
        summary: one sentence for whoever chooses a strategy.
        picture: bars on a ground of 120 x 36: left, top, width, height, opacity.
        in_flight: how many stages may be unfinished at once.
        hold: whether fleets are held.
        gate_alias: another name of `health_threshold` in this strategy, if any.
        orders_regions: the order of the regions is that of its stages.
    """

    name: str
    fields: tuple[Field, ...]
    plan: Callable[[Fleet, Parameters], Plan]
    summary: str
    picture: tuple[tuple[float, float, float, float, float], ...]
    health_threshold_percent: float = 99.0
    in_flight: Callable[[Parameters], int] = _one
    hold: Callable[[Parameters], HoldRule | None] = _never
    gate_alias: str = ""
    orders_regions: bool = False

    @property
    def defaults(self) -> Parameters:
        """The parameters of a launch that names none."""
        return {field.name: field.default for field in self.fields}
