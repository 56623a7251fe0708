"""Dataclasses go out in camelCase, in their order, as their annotations say."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from deployments.choices import TargetStatus
from deployments.reads.status import StatusCounts
from hotswap.common.api.outputs import output_of
from hotswap.common.wire import FLAT, OPTIONAL, Wire, to_wire

AT = datetime(2026, 5, 1, tzinfo=UTC)
ID = UUID(int=7)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf."""

    full_name: str
    note: Annotated[str | None, OPTIONAL] = None


@dataclass(frozen=True, slots=True)
class Inner:
    """Some numbers."""

    at_most: int
    by_name: dict[str, int]


@dataclass(frozen=True, slots=True)
class Outer:
    """All kinds of fields."""

    start: Annotated[datetime, Wire(name="from")]
    id: UUID
    leaf: Leaf | None
    leaves: tuple[Leaf, ...]
    inner: Annotated[Inner, FLAT]
    either: Leaf | Inner


def outer(leaf: Leaf | None) -> Outer:
    return Outer(
        start=AT,
        id=ID,
        leaf=leaf,
        leaves=(Leaf("a"), Leaf("b", "c")),
        inner=Inner(1, {"snake_key": 2}),
        either=Inner(3, {}),
    )


def test_a_dataclass_is_sent_in_camel_case_and_in_its_order() -> None:
    sent = to_wire(outer(None))

    assert sent == {
        "from": AT,
        "id": ID,
        "leaf": None,
        "leaves": [{"fullName": "a"}, {"fullName": "b", "note": "c"}],
        "atMost": 1,
        "byName": {"snake_key": 2},
        "either": {"atMost": 3, "byName": {}},
    }
    assert list(sent) == ["from", "id", "leaf", "leaves", "atMost", "byName", "either"]


def test_its_serializer_names_the_same_fields_and_sends_the_same() -> None:
    serializer = output_of(Outer)(outer(Leaf("x")))

    assert list(serializer.fields) == list(to_wire(outer(None)))
    assert serializer.data == to_wire(outer(Leaf("x")))
    assert serializer.fields["leaf"].allow_null
    assert not output_of(Leaf)().fields["note"].required
    assert type(serializer).__name__ == "OuterOutput"


def test_the_counts_by_status_are_of_every_status() -> None:
    counts = StatusCounts(total=0, **dict.fromkeys(TargetStatus.values, 0))

    assert list(counts.by_status) == TargetStatus.values
