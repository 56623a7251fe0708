"""How much one request can make the server do before it is refused."""

import json
import time
from typing import Any

import pytest
from rest_framework import serializers
from rest_framework.exceptions import ParseError

import hotswap.urls  # noqa: F401 - loads the serializers of all views
from hotswap.common.api.parsers import (
    MAX_CONTAINERS,
    MAX_KEYS,
    SMALL_BODY_BYTES,
    parse_json,
    parse_json_leniently,
)
from hotswap.common.api.serializers import BoundedListField, CamelSerializer
from tests.api import Caller, pointers, problem_of
from tests.callers import PersonCaller


def serializers_of_input() -> list[type[CamelSerializer]]:
    found, waiting = [], list(CamelSerializer.__subclasses__())
    while waiting:
        each = waiting.pop()
        waiting += each.__subclasses__()
        if each.__module__.partition(".")[0] != "tests":
            found.append(each)
    return [each for each in found if not each.__name__.endswith(("Output", "Brief"))]


# Read from the texts of a form, and what devices say of themselves.
NO_JSON_OF_PEOPLE = {"FirmwareInput", "ReportInput"}
# They take texts for numbers, 0 for false, numbers for texts, times without a zone.
COERCING = (
    *(serializers.BooleanField, serializers.CharField, serializers.ChoiceField),
    *(serializers.DateTimeField, serializers.FloatField, serializers.IntegerField),
    *(serializers.RegexField, serializers.UUIDField),
)


def test_what_people_send_is_taken_in_its_own_type_alone() -> None:
    lenient = []
    for each in serializers_of_input():
        if each.__name__ in NO_JSON_OF_PEOPLE:
            continue
        for name, field in each().fields.items():
            found: Any = field
            while isinstance(found, serializers.ListField | serializers.DictField):
                found = found.child
            if type(found) in COERCING and not found.read_only:
                lenient.append(f"{each.__name__}.{name}")

    assert lenient == []


@pytest.mark.parametrize("parse", [parse_json, parse_json_leniently])
@pytest.mark.parametrize(
    "document",
    [
        {str(number): 1 for number in range(MAX_KEYS + 1)},
        [{"a": 1, "b": 2}] * (MAX_KEYS // 2 + 1),
        {"a": [{"b": {"c": {}}}] * MAX_KEYS},
    ],
)
def test_a_document_has_a_thousand_keys_at_most(parse: Any, document: Any) -> None:
    with pytest.raises(ParseError) as refused:
        parse(json.dumps(document).encode())

    assert refused.value.get_codes() == "too_many_keys"


@pytest.mark.parametrize("parse", [parse_json, parse_json_leniently])
def test_a_thousand_keys_are_taken(parse: Any) -> None:
    document = {str(number): 1 for number in range(MAX_KEYS)}

    assert parse(json.dumps(document).encode()) == document


@pytest.mark.parametrize("parse", [parse_json, parse_json_leniently])
@pytest.mark.parametrize("piece", [b"[]", b"{}", b'{"a": []}'])
def test_a_document_has_ten_thousand_lists_and_objects_at_most(
    parse: Any, piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And more are refused before any of them is made."""
    monkeypatch.setattr("json.loads", pytest.fail)

    with pytest.raises(ParseError) as refused:
        parse(b"[" + b",".join([piece] * MAX_CONTAINERS) + b"]")

    assert refused.value.get_codes() == "too_many_lists"


@pytest.mark.parametrize("parse", [parse_json, parse_json_leniently])
def test_brackets_within_a_text_are_no_lists(parse: Any) -> None:
    document = ["[{" * MAX_CONTAINERS, '"[', "\\", '\\"{']

    assert parse(json.dumps(document).encode()) == document


def test_a_text_that_does_not_end_costs_next_to_nothing() -> None:
    began_at = time.thread_time()

    for end in (b"", b"\\"):
        with pytest.raises(ParseError):
            parse_json(b"[" * MAX_CONTAINERS + b'["' + b'\\"' * 900_000 + end)

    # Its escaped quotation marks as beginnings of texts took many minutes.
    assert time.thread_time() - began_at < 30


def test_keys_of_a_stranger_cost_next_to_nothing(anonymous: Caller) -> None:
    body = {f"key{number}": 1 for number in range(5000)}

    refused = anonymous.post("/auth/refresh", body)

    assert len(json.dumps(body)) > SMALL_BODY_BYTES
    problem_of(refused, 413, "too_large")
    problem_of(
        anonymous.post("/auth/refresh", dict(list(body.items())[:2000])),
        400,
        "too_many_keys",
    )


@pytest.mark.parametrize(
    "path",
    ["/auth/token", "/auth/refresh", "/auth/device-token", "/enrolments"],
)
def test_bodies_of_strangers_are_short(db: None, anonymous: Caller, path: str) -> None:
    most = anonymous.post(path, raw=b"x" * SMALL_BODY_BYTES)
    more = anonymous.post(path, raw=b"x" * (SMALL_BODY_BYTES + 1))

    problem_of(most, 400, "malformed")
    problem_of(more, 413, "too_large")


def test_bodies_of_devices_are_short(device_caller: Caller) -> None:
    for path in (
        "/devices/table-device/health",
        "/devices/table-device/updates/00000000-0000-4000-8000-000000000000/reports",
        "/devices/table-device/api-key",
    ):
        refused = device_caller.post(path, raw=b" " * (SMALL_BODY_BYTES + 1))

        problem_of(refused, 413, "too_large")


def test_people_may_send_more(operator: PersonCaller) -> None:
    ids = [f"device-{number:06d}" for number in range(10_000)]

    answer = operator.post(
        "/deployments/preview",
        {"firmwareId": "nothing:1.0.0", "strategy": "Direct", "targetDevices": ids},
    )

    assert answer.status_code == 422


@pytest.mark.parametrize("values", [["x"] * 32_000, [str(n) for n in range(32_000)]])
def test_a_list_is_counted_before_it_is_read(
    operator: PersonCaller, values: list[str]
) -> None:
    began = time.process_time()

    refused = operator.post("/device-groups/preview", {"rule": {"tags": {"a": values}}})

    assert pointers(problem_of(refused, 400)) == {"/rule/tags/a": "max_length"}
    # 19 s before; half a second on a busy machine.
    assert time.process_time() - began < 5


def test_the_errors_of_a_list_end_at_a_hundred(operator: PersonCaller) -> None:
    refused = operator.post(
        "/deployments/preview",
        {"firmwareId": "a:1.0.0", "strategy": "Direct", "targetDevices": [5] * 10_000},
    )

    document = problem_of(refused, 400)
    assert len(document["errors"]) == 100
    assert document["detail"].startswith("100 errors at least: ")


def test_every_list_that_is_sent_has_bounds() -> None:
    unbounded = [
        (each.__name__, name)
        for each in serializers_of_input()
        for name, field in each().fields.items()
        if not field.read_only
        and isinstance(field, serializers.ListField)
        and not isinstance(field, BoundedListField)
    ]

    assert unbounded == []
