"""Bodies as the description has them, but for one value that is far too long."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.description import closed, description
from tests.fuzz.names import ADMIN, DEVICE, Names
from tests.fuzz.requests import Request

JSON = "application/json"
# As much as a body may have: of a person, and of all others.
MOST_BYTES, LITTLE_BYTES = 2_000_000, 64_000
# What patterns and parsers of numbers, times, versions and names might choke on.
PIECES = (
    *("a", "9", " ", "1.", "P1", "-", "a@", "(", "[[", "%", "\\", "é", "\u0301", "0"),
    *("PT9H", "a.a-", "https://a", "+00:00", "::", "/..", "\t", "a: b\n", "TZ;"),
    "-----BEGIN CERTIFICATE-----\n",
)
TEXTS = {
    "date-time": "2030-01-01T00:00:00Z",
    "uuid": "7f6b1c7e-3f0a-4b52-9d7e-0c8f4a4a2f10",
    "date": "2030-01-01",
    "email": "a@example.com",
    "uri": "https://127.0.0.1/a",
}


@dataclass(frozen=True, slots=True)
class Giant:
    """A request, who sends it, the path of the description, and what is too long."""

    request: Request
    caller: str
    path: str
    place: str


def giants(names: Names, chance: random.Random) -> Iterator[Giant]:
    """Give, for each text and list in a JSON body, a request where it is a giant."""
    for path, methods in description()["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get(JSON)
            if content is None:
                continue
            schemes = {name for each in operation.get("security", ()) for name in each}
            caller = ADMIN if "personToken" in schemes else DEVICE
            most = MOST_BYTES if "personToken" in schemes else LITTLE_BYTES
            schema = closed(content["schema"])
            for place, part in _places(schema):
                body = _with(_example(schema, names), place, _giant(part, most, chance))
                yield Giant(
                    request=Request(
                        method=method.upper(),
                        target=_target(path, caller, names, chance),
                        headers={"Content-Type": JSON},
                        body=json.dumps(body, ensure_ascii=False).encode(),
                    ),
                    caller=caller,
                    path=path,
                    place="/".join(str(each) for each in place),
                )


def _first_choice(schema: Any) -> Any:
    """Return the first schema that is not null of those that a value may follow."""
    for word in ("oneOf", "anyOf", "allOf"):
        choices = [each for each in schema.get(word, ()) if each.get("type") != "null"]
        if choices:
            return _first_choice(choices[0])
    return schema


def _type(schema: Any) -> str:
    found = schema.get("type", "string")
    return found if isinstance(found, str) else next(t for t in found if t != "null")


def _places(
    schema: Any, place: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Give the place and the schema of each text and each list."""
    schema = _first_choice(schema)
    match _type(schema):
        case "string":
            yield place, schema
        case "array":
            yield place, schema
            yield from _places(schema["items"], (*place, 0))
        case "object":
            for name, part in schema.get("properties", {}).items():
                if not part.get("readOnly"):
                    yield from _places(part, (*place, name))


def _example(schema: Any, names: Names, name: str = "") -> Any:
    """Return something that the schema allows, or nearly so."""
    schema = _first_choice(schema)
    if "enum" in schema:
        return schema["enum"][0]
    match _type(schema):
        case "object":
            parts = schema.get("properties", {})
            return {
                each: _example(parts[each], names, each)
                for each in schema.get("required", ())
                if each in parts
            }
        case "array":
            return [_example(schema["items"], names, name)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case _:
            known = names.known.get(name)
            return known[0] if known else TEXTS.get(schema.get("format", ""), "a")


def _giant(schema: Any, most_bytes: int, chance: random.Random) -> Any:
    if _type(schema) == "array":
        item = _example(schema["items"], Names(own={}, known={}))
        length = len(json.dumps(item)) + 2
        return [item] * min(most_bytes // 2 // length, 9000)
    piece = chance.choice(PIECES)
    length = len(json.dumps(piece, ensure_ascii=False).encode()) - 2
    return piece * (most_bytes // 2 // length)


def _with(body: Any, place: tuple[str | int, ...], value: Any) -> Any:
    """Return the body with a value at a place, made where it is not there yet."""
    if not place:
        return value
    first, *rest = place
    if isinstance(first, int):
        return [_with(None, tuple(rest), value)]
    known = body if isinstance(body, dict) else {}
    return {**known, first: _with(known.get(first), tuple(rest), value)}


def _target(path: str, caller: str, names: Names, chance: random.Random) -> str:
    parts = []
    for part in path.split("/"):
        name = part.strip("{}")
        if not part.startswith("{"):
            parts.append(part)
        elif caller == DEVICE and name in names.own:
            parts.append(names.own[name])
        else:
            parts.append(str(chance.choice(names.of(name, path) or ("x",))))
    return "/".join(parts)
