"""Bad requests: each gets a problem document that names what is wrong."""

import json

import pytest
from rest_framework import serializers

import hotswap.urls  # noqa: F401 - loads the serializers of all views
from hotswap.common.api.serializers import CamelSerializer, StrictChoiceField
from tests.api import Caller, pointers, problem_of
from tests.callers import PersonCaller

SURROGATE = b'"\\ud800"'


def model_body(value: bytes) -> bytes:
    return b'{"name": "m", "description": ' + value + b"}"


BAD_BODIES = {
    "not JSON": (b"{name", "malformed"),
    "nothing but a quote": (b'"', "malformed"),
    "two documents": (b"{}{}", "malformed"),
    "not UTF-8": (b'{"name": "\xff"}', "malformed"),
    "UTF-16": ('{"name": "m"}'.encode("utf-16"), "malformed"),
    "a key twice": (b'{"name": "a", "name": "b"}', "duplicate_key"),
    "a key twice, deep": (b'{"name": {"a": 1, "a": 2}}', "duplicate_key"),
    "NaN": (model_body(b"NaN"), "invalid_number"),
    "Infinity": (model_body(b"Infinity"), "invalid_number"),
    "-Infinity": (model_body(b"-Infinity"), "invalid_number"),
    "1e999": (model_body(b"1e999"), "invalid_number"),
    "an integer of 5,000 digits": (model_body(b"9" * 5000), "malformed"),
    "NUL": (model_body(b'"a\\u0000b"'), "invalid_character"),
    "raw NUL": (model_body(b'"a\x00b"'), "malformed"),
    "NUL in a key": (b'{"na\\u0000me": 1}', "invalid_character"),
    "a lone surrogate": (model_body(SURROGATE), "invalid_character"),
    "a lone surrogate in a key": (b'{"\\udfff": 1}', "invalid_character"),
    "33 levels": (model_body(b"[" * 32 + b"]" * 32), "too_deep"),
    "100,000 levels": (b"[" * 100_000 + b"]" * 100_000, "too_deep"),
    "100,000 objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_body_that_is_not_strict_json_is_refused(
    admin: PersonCaller, name: str
) -> None:
    body, code = BAD_BODIES[name]

    response = admin.request("POST", "/device-models", raw=body)

    problem_of(response, 400, code)


def test_32_levels_are_not_too_deep(admin: PersonCaller) -> None:
    response = admin.request(
        "POST", "/device-models", raw=model_body(b"[" * 31 + b"]" * 31)
    )

    assert pointers(problem_of(response, 400)) == {"/description": "invalid"}


@pytest.mark.parametrize("body", [[], "text", 5, True, None, [{}]])
@pytest.mark.parametrize(
    "path", ["/device-models", "/devices", "/device-groups", "/deployments"]
)
def test_a_body_that_is_no_object_is_refused(
    admin: PersonCaller, path: str, body: object
) -> None:
    response = admin.request("POST", path, raw=json.dumps(body).encode())

    document = problem_of(response, 400, "invalid")
    assert set(pointers(document)) == {""}


def test_unknown_fields_are_named_and_the_known_ones_listed(
    admin: PersonCaller,
) -> None:
    response = admin.post("/device-models", {"name": "m", "colour": "red", "a/b~c": 1})

    document = problem_of(response, 400, "invalid")
    assert pointers(document) == {"/colour": "unknown", "/a~1b~0c": "unknown"}
    assert "name, description" in document["errors"][0]["detail"]


def test_errors_within_a_nested_object_have_nested_pointers(
    operator: PersonCaller,
) -> None:
    body = {"deviceId": "d", "model": "m", "tags": {"site": 5, "a/b": 6}}

    response = operator.post("/devices", body)

    document = problem_of(response, 400, "invalid")
    assert set(pointers(document)) == {"/tags/site", "/tags/a~1b"}


def test_errors_within_a_list_point_to_the_item(operator: PersonCaller) -> None:
    group = operator.post("/device-groups", {"name": "g"}).json()

    response = operator.post(
        f"/device-groups/{group['id']}/devices", {"deviceIds": ["a", 5]}
    )

    assert pointers(problem_of(response, 400)) == {"/deviceIds/1": "invalid"}


def test_a_thousand_errors_are_cut_to_a_hundred(admin: PersonCaller) -> None:
    response = admin.post("/device-models", {f"x{n}": 1 for n in range(1000)})

    document = problem_of(response, 400)
    assert len(document["errors"]) == 100
    assert document["detail"].startswith("1,000 errors at least: x0: unknown field")
    assert document["detail"].endswith("; and 997 more")


def test_a_few_errors_are_all_named_in_the_detail(operator: PersonCaller) -> None:
    response = operator.post("/device-groups", {"name": 5, "type": "Odd"})

    assert problem_of(response, 400)["detail"] == (
        "2 errors: name: Not a valid string.; "
        "type: must be one of Static, Dynamic, not 'Odd'"
    )


def test_every_choice_of_the_api_tells_which_there_are() -> None:
    plain = [
        (each.__name__, name)
        for each in serializers_of_the_api()
        for name, field in each().fields.items()
        for one in (field, getattr(field, "child", None))
        if isinstance(one, serializers.ChoiceField)
        and not isinstance(one, StrictChoiceField)
    ]

    assert plain == []


def serializers_of_the_api() -> list[type[CamelSerializer]]:
    """Return every serializer that the views have loaded."""
    found: list[type[CamelSerializer]] = []
    waiting = [CamelSerializer]
    while waiting:
        each = waiting.pop()
        found.append(each)
        waiting += each.__subclasses__()
    return found


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_unknown_parameters_are_refused_by_every_method(
    operator: PersonCaller, device: object, method: str
) -> None:
    path = "/devices" if method == "POST" else "/devices/table-device"
    if method == "DELETE":
        path = "/device-groups/00000000-0000-4000-8000-000000000000"

    response = operator.request(method, f"{path}?dry=1", {})

    assert pointers(problem_of(response, 400)) == {"/dry": "unknown"}


def test_unknown_parameters_of_a_list_are_answered_with_the_known_ones(
    viewer: PersonCaller,
) -> None:
    response = viewer.get("/devices?colour=red&limit=3")

    document = problem_of(response, 400, "invalid")
    assert pointers(document) == {"/colour": "unknown", "/limit": "unknown"}
    for name in ("cursor", "pageSize", "count", "model", "region", "tag", "search"):
        assert name in document["errors"][0]["detail"]


def test_a_parameter_given_twice_is_refused(viewer: PersonCaller) -> None:
    response = viewer.get("/devices?region=US-EAST&region=EU")

    assert pointers(problem_of(response, 400)) == {"/region": "duplicate"}


def test_more_than_a_thousand_parameters_are_refused(viewer: PersonCaller) -> None:
    query = "&".join(f"a{n}=1" for n in range(2000))

    response = viewer.get(f"/devices?{query}")

    problem_of(response, 400)


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "?", ""],
)
def test_another_content_type_is_refused(
    admin: PersonCaller, content_type: str
) -> None:
    response = admin.request(
        "POST", "/device-models", raw=b"name=m", content_type=content_type
    )

    problem_of(response, 415, "unsupported_media_type")


def test_firmware_must_come_as_a_form(admin: PersonCaller) -> None:
    response = admin.post("/firmware", {"version": "1.0.0", "model": "m"})

    problem_of(response, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/devices", {"GET", "HEAD", "POST"}),
        ("PUT", "/auth/token", {"POST"}),
        ("OPTIONS", "/devices", {"GET", "HEAD", "POST"}),
        ("TRACE", "/devices", {"GET", "HEAD", "POST"}),
        ("POST", "/audit-events", {"GET", "HEAD"}),
        ("BREW", "/signing-keys", {"GET", "HEAD"}),
    ],
)
def test_a_method_that_a_route_lacks_is_405_and_names_the_others(
    admin: PersonCaller, method: str, path: str, allowed: set[str]
) -> None:
    response = admin.request(method, path)

    problem_of(response, 405, "method_not_allowed")
    assert set(response["Allow"].split(", ")) == allowed


def test_nobody_learns_the_methods_of_a_route_without_a_token(
    anonymous: Caller, db: None
) -> None:
    problem_of(anonymous.delete("/devices"), 401, "not_authenticated")


def test_head_is_answered_like_get_without_a_body(viewer: PersonCaller) -> None:
    response = viewer.request("HEAD", "/devices?count=true")

    assert response.status_code == 200
    assert response.content == b""


@pytest.mark.parametrize(
    "path",
    [
        "/api/",
        "/api/v2/devices",
        "/api/v1/devices/",
        "/api/v1/nothing",
        "/api/v1/firmware/not-a-uuid",
        "/api/v1/firmware/00000000-0000-0000-0000-00000000000G",
        "/api/v1/deployments/1/status",
        "/api/v1/devices/a/b/c",
        "/api/v1/devices/%ff%fe",
    ],
)
def test_an_unknown_address_is_a_problem_document(
    admin: PersonCaller, path: str
) -> None:
    problem_of(admin.get(path), 404)


@pytest.mark.parametrize(
    "path",
    ["/devices/a%00b", "/devices?search=a%00b", "/devices?%00=1", "/a%00b"],
)
def test_nul_in_an_address_is_refused(admin: PersonCaller, path: str) -> None:
    problem_of(admin.get(path), 400, "invalid")


@pytest.mark.parametrize("path", ["/devices/%ED%A0%80", "/devices?search=%ED%A0%80"])
def test_half_a_character_in_an_address_does_no_harm(
    admin: PersonCaller, path: str
) -> None:
    assert admin.get(path).status_code in {200, 400, 404}


def test_a_json_body_over_2_mib_is_413(admin: PersonCaller) -> None:
    body = model_body(b'"' + b"x" * (2 * 1024 * 1024) + b'"')

    response = admin.request("POST", "/device-models", raw=body)

    problem_of(response, 413, "too_large")


@pytest.mark.parametrize(
    "query",
    [
        "cursor=x",
        "cursor=%25%25%25",
        "cursor=cD0lMDA%3D",  # a position of NUL
        "cursor=bz0tMQ%3D%3D",  # an offset of -1
        "cursor=bz14",  # an offset of "x"
        "cursor=cj0x",  # only that the list is read backwards
        "cursor=cD14",  # a position of "x"
        "cursor=cD05OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5",
        "cursor=8J+Yig%3D%3D",
        "pageSize=0",
        "pageSize=201",
        "pageSize=-1",
        "pageSize=ten",
        "pageSize=1.5",
        "pageSize=%D9%A3",
        "pageSize=99999999999999999999",
        "pageSize=",
        "count=yes",
        "count=1",
    ],
)
@pytest.mark.parametrize(
    "path", ["/devices", "/firmware", "/audit-events", "/deployments", "/device-groups"]
)
def test_bad_page_parameters_never_break_a_list(
    admin: PersonCaller, path: str, query: str
) -> None:
    response = admin.get(f"{path}?{query}")

    name = query.partition("=")[0]
    if name == "cursor" and response.status_code == 200:
        # Made up, but of the type of the column: a place in the list like any other.
        assert response.json()["results"] is not None
    else:
        assert set(pointers(problem_of(response, 400))) == {f"/{name}"}


@pytest.mark.parametrize(
    "header", ["abc", '"abc', "'abc'", '"a", b', '"a" "b"', ",", "", '"a b"']
)
def test_an_if_match_that_is_no_list_of_etags_is_refused(
    operator: PersonCaller, device: object, header: str
) -> None:
    response = operator.patch(
        "/devices/table-device", {"enabled": False}, headers={"If-Match": header}
    )

    problem_of(response, 400, "invalid")


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "nonsense", "*/*"])
def test_the_form_of_an_answer_does_not_depend_on_accept(
    viewer: PersonCaller, accept: str
) -> None:
    response = viewer.get("/devices", headers={"Accept": accept})

    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"


def test_a_nul_in_the_address_is_refused_with_the_name_of_the_parameter(
    viewer: PersonCaller,
) -> None:
    refused = viewer.get("/devices?search=a%00b")

    assert pointers(problem_of(refused, 400)) == {"/search": "invalid_character"}


def test_a_wrong_host_is_a_problem_document_too(anonymous: Caller, db: None) -> None:
    response = anonymous.get("/signing-keys", headers={"Host": "evil.example"})

    problem_of(response, 400)


def test_a_refusal_of_one_field_names_it(
    operator: PersonCaller, device: object
) -> None:
    taken = {"deviceId": "table-device", "model": "sensor-v1"}

    exists = operator.post("/devices", taken)
    unknown = operator.post("/devices", {"deviceId": "new", "model": "no-such"})

    assert pointers(problem_of(exists, 409)) == {"/deviceId": "device_exists"}
    assert pointers(problem_of(unknown, 422)) == {"/model": "unknown_model"}


def test_every_problem_has_a_trace_id_of_its_own(anonymous: Caller, db: None) -> None:
    first = problem_of(anonymous.get("/devices"), 401)
    second = problem_of(anonymous.get("/devices"), 401)

    assert first["traceId"] != second["traceId"]
