"""The description of the API is true, checked in, and free of warnings."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import call_command

from hotswap.common.wire import camelize
from hotswap.urls import SchemaView
from tests.api import pointers, problem_of
from tests.callers import PersonCaller
from tests.common.test_roles import ROWS
from tests.description import DESCRIPTION, description, fault_of, untyped

# Maps and values that are free because nobody but their owner, or the entry itself,
# knows what is in them.
FREE = {
    "AuditOutput.details",
    "ChangedDeviceOutput.metadata",
    "DeliveryOutput.payload",
    "DeviceDetailOutput.metadata",
    "DeviceOutput.metadata",
    "HistoryOutput.details",
    "LineChangeOutput.from",
    "LineChangeOutput.to",
    "ListedDeviceOutput.metadata",
    "RegisteredDeviceOutput.metadata",
    "get /api/v1/devices/{deviceId}/export 200",
    "get /api/v1/firmware/{firmwareId}/sbom 200",
    "get /api/v1/people/{personId}/export 200",
}
HINT = "run `python manage.py spectacular --file docs/openapi.yaml`"


@pytest.fixture
def document() -> Any:
    return description()


def test_the_description_is_checked_in_as_it_is_generated(tmp_path: Path) -> None:
    generated = tmp_path / "openapi.yaml"

    call_command("spectacular", file=str(generated), validate=True, fail_on_warn=True)

    assert generated.read_text() == DESCRIPTION.read_text(), HINT


def test_it_is_openapi_3_1(document: Any) -> None:
    assert document["openapi"].startswith("3.1")


def test_it_describes_every_route(document: Any) -> None:
    described = {
        (path, method.upper())
        for path, methods in document["paths"].items()
        for method in methods
    }

    served = {
        ("/" + re.sub(r"<\w+:(\w+)>", lambda x: f"{{{camelize(x[1])}}}", address), m)
        for address, m, *_ in ROWS
        if address.startswith("api/") and not address.endswith(("/schema", "/docs"))
    }

    assert described == served


def test_every_operation_has_a_title_and_stands_with_its_kind(document: Any) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            title = operation.get("summary", "")
            assert title, (method, path)
            assert title[0].isupper(), title
            assert len(title) <= 90, title
            (tag,) = operation["tags"]
            assert tag[0].isupper()
            assert tag not in ("Common", "Health"), (method, path)


def test_every_operation_describes_its_problems_and_its_token(document: Any) -> None:
    anonymous = {
        (address, method)
        for address, method, status, *_ in ROWS
        if status in {"200", "400"}
    }
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            problem = operation["responses"]["default"]["content"]
            assert list(problem) == ["application/problem+json"], (path, method)
            is_open = (path.removeprefix("/"), method.upper()) in anonymous
            assert bool(operation.get("security")) != is_open, (path, method)


def test_no_answer_is_left_untyped(document: Any) -> None:
    found = {
        place or f"{method} {path} {status}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for status, response in operation["responses"].items()
        for content in response.get("content", {}).values()
        for place in untyped(content.get("schema", {}))
    }

    assert found == FREE


PAIR = {"access": "a", "refresh": "b", "expiresIn": 60, "role": "Viewer"}


@pytest.mark.parametrize(
    ("status", "kind", "body", "fault"),
    [
        (200, "application/json", PAIR, ""),
        (200, "application/json", {"access": "a"}, "is a required property"),
        (200, "application/json", PAIR | {"refresh": 1}, "is not of type"),
        (200, "application/json", PAIR | {"x": 1}, "'x' was unexpected"),
        (200, "application/problem+json", {}, "is not described"),
        (202, "application/json", {}, "is not described"),
        (400, "application/problem+json", {}, "is a required property"),
    ],
)
def test_an_answer_that_is_not_the_described_one_is_a_fault(
    status: int, kind: str, body: Any, fault: str
) -> None:
    found = fault_of(
        "/api/v1/auth/refresh", "post", status, kind, json.dumps(body).encode()
    )

    assert fault in found
    assert bool(found) == bool(fault)


def test_lists_describe_their_filters_and_pages(document: Any) -> None:
    operation = document["paths"]["/api/v1/devices"]["get"]

    names = {parameter["name"] for parameter in operation["parameters"]}

    assert names == {
        *("cursor", "pageSize", "count", "model", "region", "status", "enabled"),
        *("firmwareVersion", "firmwareChecksum", "component", "group", "tag", "search"),
        *("keyExpiring", "certificateExpiring", "alarm", "health", "sort", "include"),
    }


def test_what_is_bounded_says_so(document: Any) -> None:
    parameters = {
        (path, method, each["name"]): each["schema"]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for each in operation.get("parameters", ())
    }
    bounds = {
        "pageSize": {"minimum": 1, "maximum": 200},
        "cursor": {"minLength": 1},
        "Idempotency-Key": {"minLength": 1, "maxLength": 255},
        "stage": {"minimum": 1, "maximum": 10_000},
    }

    for (path, method, name), schema in parameters.items():
        wanted = bounds.get(name, {})
        assert schema.items() >= wanted.items(), (path, method, name)
        assert name != "If-Match" or "pattern" in schema


def test_bodies_that_refuse_unknown_fields_say_so(document: Any) -> None:
    schemas = document["components"]["schemas"]
    lenient = {
        name
        for name, schema in schemas.items()
        if name.endswith("Request") and schema.get("additionalProperties") is not False
    }

    assert lenient == {"HeartbeatInputRequest", "ReportInputRequest"}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/deployments", "firmwareId"),
        ("/deployments", "status"),
        ("/audit-events", "to"),
        ("/audit-events", "actor"),
        ("/devices", "enabled"),
        ("/devices/export", "status"),
        ("/rollbacks", "from"),
    ],
)
def test_an_empty_filter_is_refused_by_name(
    admin: PersonCaller, path: str, name: str
) -> None:
    problem = problem_of(admin.get(f"{path}?{name}="), 400, "invalid")

    assert pointers(problem) == {f"/{name}": "empty"}


def test_an_empty_text_is_no_filter(viewer: PersonCaller) -> None:
    assert viewer.get("/devices?search=&model=").status_code == 200


def test_the_server_gives_the_same_description(
    viewer: PersonCaller, document: Any
) -> None:
    response = viewer.get("/schema")

    assert response.status_code == 200
    assert yaml.safe_load(response.content) == document


def test_the_server_makes_the_description_once(
    viewer: PersonCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SchemaView, "made", {})
    first = viewer.get("/schema")
    monkeypatch.setattr(SchemaView.generator_class, "get_schema", pytest.fail)

    second = viewer.get("/schema")

    assert first.status_code == second.status_code == 200
    assert second.content == first.content
    assert second["Content-Type"] == first["Content-Type"]


def test_the_page_of_the_description_loads_nothing_from_elsewhere(
    viewer: PersonCaller,
) -> None:
    page = viewer.get("/docs").content.decode()

    assert "swagger-ui" in page
    assert "https://" not in page


@pytest.mark.django_db
def test_a_filter_that_has_choices_names_them(
    document: Any, admin: PersonCaller
) -> None:
    chosen = [
        (path, each["name"], each["schema"])
        for path, methods in document["paths"].items()
        for each in methods.get("get", {}).get("parameters", ())
        if "{" not in path
        and each["in"] == "query"
        and "enum" in {**each["schema"], **each["schema"].get("items", {})}
    ]

    assert len(chosen) > 8
    for path, name, schema in chosen:
        response = admin.get(f"{path.removeprefix('/api/v1')}?{name}=nonsense")
        detail = problem_of(response, 400)["detail"]
        for choice in schema.get("enum") or schema["items"]["enum"]:
            assert choice in detail, (path, name, detail)
        assert "'nonsense'" in detail
