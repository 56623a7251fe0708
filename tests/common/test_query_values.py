"""Values of queries and bodies that only look harmless."""

from urllib.parse import urlencode

import pytest

from tests.api import problem_of
from tests.callers import PersonCaller
from tests.description import description
from tests.devices.factories import DeviceFactory

LISTS = [
    (path.removeprefix("/api/v1"), [each["name"] for each in parameters])
    for path, methods in description()["paths"].items()
    if "{" not in path
    and (
        parameters := [
            each
            for each in methods.get("get", {}).get("parameters", ())
            if each["in"] == "query"
        ]
    )
]


@pytest.mark.parametrize(("path", "names"), LISTS, ids=[path for path, _ in LISTS])
@pytest.mark.parametrize("value", ["%", "%s", "%(a)s", "{}", "{0.a}"])
def test_what_messages_are_made_with_is_a_value_like_others(
    admin: PersonCaller, path: str, names: list[str], value: str
) -> None:
    for name in names:
        answer = admin.get(f"{path}?{urlencode({name: value})}")

        assert answer.status_code in (200, 400, 404), name


def test_a_refused_value_is_shown_as_it_was_sent(admin: PersonCaller) -> None:
    answer = admin.get(f"/deployments?{urlencode({'archived': '100 %s'})}")

    (error,) = problem_of(answer, 400)["errors"]
    assert "not '100 %s'" in error["detail"]


@pytest.mark.parametrize("blank", [" ", "\n", "\u0085"])
def test_the_length_of_a_text_counts_blanks_around_it(
    operator: PersonCaller, blank: str
) -> None:
    device = DeviceFactory.create()
    schemas = description()["components"]["schemas"]
    limit = schemas["RevocationInputRequest"]["properties"]["reason"]["maxLength"]

    answer = operator.post(
        f"/devices/{device.device_id}/revoke", {"reason": "r" + limit * blank}
    )

    (error,) = problem_of(answer, 400)["errors"]
    assert (error["pointer"], error["code"]) == ("/reason", "max_length")
