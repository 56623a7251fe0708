"""Holds each answer of the API to its description, `docs/openapi.yaml`.

An answer may have no field that the description does not name, must have each that it
requires, and its times and ids have their forms. What it calls a free map is free.
Standard library, PyYAML and jsonschema: no Django.
"""

import json
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import best_match

DESCRIPTION = Path(__file__).parents[1] / "docs" / "openapi.yaml"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z\Z")
FORMATS = FormatChecker(formats=())


@FORMATS.checks("date-time")
def is_time(value: object) -> bool:
    return not isinstance(value, str) or TIME.match(value) is not None


@FORMATS.checks("uuid", raises=ValueError)
def is_uuid(value: object) -> bool:
    return not isinstance(value, str) or str(UUID(value)) == value


@cache
def description() -> dict[str, Any]:
    """Return the description as it is checked in."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: dict[str, Any] = yaml.load(DESCRIPTION.read_text(), Loader=loader)
    return found


@cache
def component(name: str) -> Any:
    """Return a schema by its name, closed, with whatever it refers to within it."""
    return closed(description()["components"]["schemas"][name])


def closed(schema: Any) -> Any:
    """Write out the references of a schema; let an object have no other fields."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return component(schema["$ref"].rpartition("/")[2])
    shown = {name: closed(each) for name, each in schema.items()}
    if "properties" in shown:
        shown.setdefault("additionalProperties", False)
    return shown


@cache
def operations() -> dict[tuple[str, int], list[tuple[re.Pattern[str], str]]]:
    """Return the paths of each method by their number of segments, literal ones first.

    Each with the pattern of its addresses.
    """
    found: dict[tuple[str, int], list[tuple[re.Pattern[str], str]]] = {}
    for path in sorted(description()["paths"], key=lambda path: path.count("{")):
        pattern = re.compile(re.sub(r"\{\w+\}", "[^/]+", path) + r"\Z")
        for method in description()["paths"][path]:
            found.setdefault((method, path.count("/")), []).append((pattern, path))
    return found


@lru_cache(maxsize=10_000)
def path_of(method: str, address: str) -> str | None:
    """Return the path that describes an address, None where it is of no operation."""
    candidates = operations().get((method, address.count("/")), [])
    return next((path for pattern, path in candidates if pattern.match(address)), None)


@cache
def validator(path: str, method: str, status: int, kind: str) -> Any:
    """Return what an answer is held to; None where no such answer is described."""
    responses = description()["paths"][path][method]["responses"]
    response = responses.get(str(status))
    if response is None and status >= 400:
        response = responses["default"]
    schema = (response or {}).get("content", {}).get(kind, {}).get("schema")
    if schema is None:
        return None
    return Draft202012Validator(closed(schema), format_checker=FORMATS)


def fault_of(path: str, method: str, status: int, kind: str, body: bytes) -> str:
    """Say in what a JSON answer is another than its operation describes; "" if in none.

    Args:
        path: as the description has it.
        method: in lower case.
        kind: the media type, without its parameters.
    """
    held = validator(path, method, status, kind)
    if held is None:
        return f"{status} {kind} is not described"
    answer = json.loads(body)
    if held.is_valid(answer):
        return ""
    error = best_match(held.iter_errors(answer))
    place = "/".join(str(each) for each in error.absolute_path)
    return f"{status}, at /{place}: {error.message}"


def check_answer(method: str, address: str, response: Any) -> None:
    """Fail if a JSON answer is another than its operation describes.

    Args:
        response: of Django.
    """
    kind = response.get("Content-Type", "").partition(";")[0]
    if response.streaming or not kind.endswith(("/json", "+json")):
        return
    method = method.lower()
    path = path_of(method, address.partition("?")[0])
    if path is None:
        return
    fault = fault_of(path, method, response.status_code, kind, response.content)
    assert not fault, f"{method} {path} {fault}"


def untyped(schema: Any, place: str = "") -> Iterator[str]:
    """Find what a schema leaves open: objects without fields, values of any type."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield from untyped(description()["components"]["schemas"][name], name)
        return
    choices = [*schema.get("oneOf", ()), *schema.get("anyOf", ())]
    for each in (*choices, *schema.get("allOf", ())):
        yield from untyped(each, place)
    for name, each in schema.get("properties", {}).items():
        yield from untyped(each, f"{place}.{name}")
    if "items" in schema:
        yield from untyped(schema["items"], place)
    values = schema.get("additionalProperties")
    if isinstance(values, dict) and values:
        yield from untyped(values, place)
    elif "object" in schema.get("type", ()) and "properties" not in schema:
        yield place
    if not schema.keys() & {"type", "enum", "const", "oneOf", "anyOf", "allOf"}:
        yield place
