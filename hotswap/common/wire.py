"""Frozen dataclasses as they go on the wire: camelCase, in the order of their fields.

Rules:
- A field goes out under its name in camelCase, and always: what is not known is null.
- `Wire` in its annotation says what a type does not: another name, a sentence for the
  description of the API, that it is left out where it is None, or that the fields of an
  inner dataclass, or the entries of a dictionary, stand among those of the outer one.
- Times and ids are left as they are; whoever renders the JSON writes them.
"""

import re
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from functools import cache
from types import NoneType
from typing import Any, get_type_hints
from uuid import UUID


def camelize(name: str) -> str:
    """Write `release_notes` as `releaseNotes`."""
    return re.sub(r"_([a-z0-9])", lambda match: match.group(1).upper(), name)


@dataclass(frozen=True, slots=True)
class Wire:
    """How a field goes on the wire, as the metadata of `Annotated`.

    Attributes:
        keys: of a flat dictionary, all of which it has; they go out in camelCase.
    """

    name: str = ""
    is_flat: bool = False
    is_optional: bool = False
    help_text: str = ""
    keys: tuple[str, ...] = ()


# What goes out as it is, and is most of what there is.
PLAIN = frozenset({NoneType, bool, int, float, str, datetime, UUID})
FLAT = Wire(is_flat=True)
OPTIONAL = Wire(is_optional=True)


@dataclass(frozen=True, slots=True)
class WireField:
    """One field of a dataclass: its attribute, its name on the wire, its type."""

    attribute: str
    name: str
    annotation: Any
    wire: Wire


@cache
def wire_fields(read: Any) -> tuple[WireField, ...]:
    """Return the fields of a dataclass in their order."""
    hints = get_type_hints(read, include_extras=True)
    found = []
    for field in fields(read):
        annotation = hints[field.name]
        metadata = getattr(annotation, "__metadata__", ())
        wire = next((each for each in metadata if isinstance(each, Wire)), Wire())
        if metadata:
            annotation = annotation.__origin__
        name = wire.name or camelize(field.name)
        found.append(WireField(field.name, name, annotation, wire))
    return tuple(found)


@cache
def _plan(read: Any) -> tuple[tuple[str, str, bool, bool], ...]:
    """Return what `to_wire` needs of each field, without looking it up again."""
    return tuple(
        (field.attribute, field.name, field.wire.is_flat, field.wire.is_optional)
        for field in wire_fields(read)
    )


def to_wire(read: Any) -> dict[str, Any]:
    """Return a dataclass as the object that is sent."""
    shown: dict[str, Any] = {}
    for attribute, name, is_flat, is_optional in _plan(read.__class__):
        value = getattr(read, attribute)
        kind = value.__class__
        if kind in PLAIN:
            if value is not None or not is_optional:
                shown[name] = value
        elif is_flat and kind is dict:
            shown |= {camelize(key): _to_wire(each) for key, each in value.items()}
        elif is_flat:
            shown.update(to_wire(value))
        elif kind is tuple:
            shown[name] = [_to_wire(each) for each in value]
        else:
            shown[name] = _to_wire(value)
    return shown


def _to_wire(value: Any) -> Any:
    return to_wire(value) if is_dataclass(value) else value
