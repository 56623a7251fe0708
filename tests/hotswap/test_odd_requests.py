"""Requests that Django refuses before any view, and what the log says of them."""

import json
from typing import Any

import pytest
from django.conf import settings
from django.http import HttpResponse
from django.test import RequestFactory
from django.utils.log import log_response

from hotswap.common.logs import ClientFaultFilter, JSONFormatter
from tests.api import PROBLEM, PROBLEM_KEYS, Caller
from tests.wsgi import call

# The handler looks after the connections of its thread.
pytestmark = pytest.mark.django_db
MANY = "&".join(f"a{number}=1" for number in range(1001))


@pytest.mark.parametrize("charset", ["utf-8", "latin-1", "hex", "idna", "\xb3"])
@pytest.mark.parametrize("query", ["", MANY, "a=%41"])
def test_a_charset_of_the_body_decides_nothing_about_the_query(
    charset: str, query: str
) -> None:
    status, _, content = call(
        "/health", query=query, CONTENT_TYPE=f"x/y; charset={charset}"
    )

    assert (status, json.loads(content)) == (200, {"status": "ok"})


@pytest.mark.parametrize("charset", ["hex", "latin-1"])
@pytest.mark.parametrize(
    "kind", ["multipart/form-data; boundary=x", "application/x-www-form-urlencoded"]
)
def test_a_form_in_no_encoding_is_no_fault_of_the_server(
    kind: str, charset: str
) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n'

    status, _, _ = call(
        "/admin/login/",
        body=body,
        CONTENT_TYPE=f"{kind}; charset={charset}",
        HTTP_COOKIE=f"csrftoken={'a' * 32}",
    )

    assert status == 403


def test_what_cannot_be_made_a_request_of_is_refused() -> None:
    status, headers, content = call("/\u20ac")

    assert status == 400
    assert headers["Content-Type"] == PROBLEM
    assert json.loads(content).keys() == PROBLEM_KEYS


@pytest.mark.parametrize(
    ("path", "query", "variables", "expected"),
    [
        ("/api/v1/devices", f"{MANY}&x=%00", {}, 400),
        ("//api/v1/devices", "", {}, 404),
        ("http://testserver/api/v1/devices", "", {}, 404),
        ("/api/v1/nothing", "", {}, 404),
        ("/api/v1/devices", "", {"HTTP_HOST": "other.example"}, 400),
    ],
)
def test_programs_are_refused_with_a_problem_document(
    path: str, query: str, variables: dict[str, Any], expected: int
) -> None:
    status, headers, content = call(path, query=query, **variables)

    assert status == expected
    assert headers["Content-Type"] == PROBLEM
    assert json.loads(content).keys() == PROBLEM_KEYS


def test_a_middleware_that_refuses_answers_programs_in_their_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As in production: the first middleware asks for the host.
    monkeypatch.setattr(settings, "SECURE_SSL_REDIRECT", True)

    status, headers, _ = call("/api/v1/devices", HTTP_HOST="other.example")

    assert (status, headers["Content-Type"]) == (400, PROBLEM)


def test_people_are_refused_with_a_page() -> None:
    status, headers, _ = call("/nothing")

    assert (status, headers["Content-Type"]) == (404, "text/html; charset=utf-8")


def logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return what the log of the server has of it."""
    configured: Any = settings.LOGGING["handlers"]
    assert configured["stderr"]["filters"] == ["client_faults"]
    client_faults = ClientFaultFilter()
    records = [each for each in caplog.records if client_faults.filter(each)]
    return [json.loads(JSONFormatter().format(record)) for record in records]


def test_a_wrong_host_is_one_short_line(caplog: pytest.LogCaptureFixture) -> None:
    call("/api/v1/devices", HTTP_HOST="x" * 60_000)

    lines = logged(caplog)
    assert [line["level"] for line in lines] == ["WARNING"]
    assert "exception" not in lines[0]
    assert len(json.dumps(lines)) < 3000


def test_query_strings_stay_out_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    anonymous = Caller()

    anonymous.get("/nothing?password=secret")
    anonymous.get("/devices?password=secret")

    lines = logged(caplog)
    assert len(lines) == 2
    assert lines[0]["request"] == "GET /api/v1/nothing"
    assert "secret" not in json.dumps(lines)


def test_a_fault_of_the_server_keeps_its_traceback(
    rf: RequestFactory, caplog: pytest.LogCaptureFixture
) -> None:
    log_response(
        "%s",
        "broken",
        response=HttpResponse(status=500),
        request=rf.get("/"),
        exception=ValueError(),
    )

    (line,) = logged(caplog)
    assert line["level"] == "ERROR"
    assert "ValueError" in line["exception"]
