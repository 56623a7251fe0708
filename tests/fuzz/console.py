"""Requests to the pages of the console, as no form and no link of theirs makes them."""

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote_plus

from django.contrib import admin
from django.urls import URLPattern, get_resolver

from hotswap.common.console.pages.base import ConsoleAdmin
from tests.fuzz.requests import Request

FORM = "application/x-www-form-urlencoded"
CSRF = "a" * 32
HTMX = {"HX-Request": "true"}
# Of Django's lists, beside the filters that each has.
OF_LISTS = ("q", "o", "p", "all", "e", "_popup", "_to_field", "_facets", "before", "at")
PLACE = re.compile(r"<(?:\w+:)?(\w+)>|\(\?P<(\w+)>[^)]*\)")
UNKNOWN = (
    *("0", "-1", "x", "%00", "%ff", "9" * 400, "_2F", "..", "a/b", "%D9%A3", "%0a"),
    "00000000-0000-4000-8000-000000000000",
)
NUMBERS = (
    *(
        "0",
        "-1",
        "-0",
        "1e999",
        "NaN",
        "Infinity",
        "1_0",
        "0x1",
        " 5 ",
        "1.5",
        "٣",
        "²",
    ),
    *("9" * 30, "9" * 5000, "2147483648", "9223372036854775808", "1e400", "²"),
)
TIMES = (
    *("9999-12-31T23:59:59-23:59", "0001-01-01T00:00", "0001-01-01T00:00:00+23:59"),
    *("2030-02-30", "2030-01-01T25:00", "9999-12-31T23:59", "24:00", "99:99", "-1:00"),
    *(
        "P99999999999D",
        "PT9999999999999999H",
        "P1Y",
        "PT-1S",
        "10 weeks",
        "1e9 h",
        "9999-12-31",
    ),
    *(
        "9999999999999 days",
        "0",
        "Europe/Nowhere",
        "../../etc/passwd",
        "America/",
        "\x00",
    ),
)
TEXTS = (
    *(
        "",
        " ",
        "\x00",
        "a\x00b",
        "é",
        "\u202e",
        "\ud800",
        "a\r\nb: c",
        "%",
        "_",
        "\\",
        "'",
    ),
    *("(", "[[", "{", "null", "[]", "{}", '"', "<b>", "a:", ":b", ":", "=", "a=b\na=c"),
    *(
        "[" * 5000,
        "a" * 60_000,
        "a:b\n" * 5000,
        "-----BEGIN CERTIFICATE-----\n",
        "https://[",
    ),
    *("https://xn--/", "http://a:99999999/", "json://", "1.0.0-" + "9" * 500, "1..0"),
    *("00000000-0000-4000-8000-000000000000", "true", "on", "None", "x" * 300, "a@b"),
    *(
        '{"type": "public-key"}',
        '{"id": 1}',
        '[1, "a", null]',
        '{"a": NaN}',
        "deadbeef",
    ),
)
ODD = (*NUMBERS, *TIMES, *TEXTS)


@cache
def addresses() -> tuple[str, ...]:
    """Return every address of the console, its places unfilled."""
    return tuple(
        found
        for found in _walked(get_resolver().url_patterns)
        if found.startswith("/admin/")
        and "account/logout" not in found
        and not found.endswith("(?P<url>.*)")
    )


def _walked(patterns: Iterable[Any], start: str = "/") -> Iterator[str]:
    for each in patterns:
        here = start + str(each.pattern).replace("^", "").replace("$", "")
        if isinstance(each, URLPattern):
            yield here
        else:
            yield from _walked(each.url_patterns, here)


@cache
def lists() -> dict[str, ConsoleAdmin]:
    """Return the lists of the console by their address."""
    registered = admin.site._registry.values()
    return {
        each.url("changelist"): each
        for each in registered
        if isinstance(each, ConsoleAdmin)
    }


def known_keys() -> dict[str, tuple[str, ...]]:
    """Return the keys of a few objects of each list, by its address."""
    return {
        address: tuple(
            quote_plus(str(key))
            for key in each.model._default_manager.values_list("pk", flat=True)[:3]
        )
        for address, each in lists().items()
    }


def filled(chance: random.Random, place: str, keys: dict[str, tuple[str, ...]]) -> str:
    """Put names of what there is, or odd ones, into the places of an address."""
    known = next((keys[each] for each in keys if place.startswith(each)), ())

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        choices: tuple[str, ...] = UNKNOWN
        if name == "object_id" and known and chance.random() < 0.9:
            choices = known
        elif name == "app_label":
            choices = ("common", "devices")
        elif name.endswith("_id") and name != "object_id":
            choices = UNKNOWN[-1:]
        return chance.choice(choices)

    return PLACE.sub(value, place)


def query(chance: random.Random, path: str) -> str:
    """Return the query of a list with odd values."""
    shown = lists().get(path)
    filters = getattr(shown, "list_filter", ())
    names = [*OF_LISTS, *(each.parameter_name for each in filters)]
    names += ["firmwareId", "group", "next", "from", "to", "page", "hours", "stage"]
    chosen = chance.choices(names, k=chance.choice((1, 1, 2, 3)))
    return "&".join(f"{name}={_quoted(chance.choice(ODD))}" for name in chosen)


def _quoted(value: str) -> str:
    return quote_plus(value.encode("utf-8", "surrogatepass"))


class _Fields(HTMLParser):
    """Reads the names and values of the fields of all forms of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._select = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        name = given.get("name", "")
        if tag in ("input", "textarea", "button") and name:
            if given.get("type") in ("radio", "checkbox") and "checked" not in given:
                return
            self.found.append((name, given.get("value", "")))
        elif tag == "select" and name:
            self._select = name
            self.found.append((name, ""))
        elif tag == "option" and self._select and given.get("value"):
            is_first = self.found[-1] == (self._select, "")
            if is_first or "selected" in given:
                self.found[-1] = (self._select, given["value"])

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""


def fields_of(page: str) -> list[tuple[str, str]]:
    """Return the names and values that the forms of a page would send."""
    reader = _Fields()
    reader.feed(page)
    return [pair for pair in reader.found if pair[0] != "csrfmiddlewaretoken"]


def form(chance: random.Random, fields: list[tuple[str, str]]) -> bytes:
    """Return the form with one to four of its values odd, doubled, or left out."""
    given = list(fields) or [("x", "y")]
    for _ in range(chance.choice((1, 1, 2, 4))):
        place = chance.randrange(len(given))
        name, value = given[place]
        match chance.choice(("odd", "odd", "odd", "odd", "twice", "none", "name")):
            case "odd":
                given[place] = (name, chance.choice(ODD))
            case "twice":
                given.append((name, chance.choice((value, chance.choice(ODD)))))
            case "none" if len(given) > 1:
                del given[place]
            case _:
                given[place] = (name + chance.choice(("[]", "-0", "\x00")), value)
    return "&".join(f"{_quoted(n)}={_quoted(v)}" for n, v in given).encode()


def with_login(request: Request, session: str) -> Request:
    """Return the request as a browser sends it where somebody is logged in."""
    return replace(
        request,
        headers={
            "Cookie": f"sessionid={session}; csrftoken={CSRF}",
            "X-CSRFToken": CSRF,
            **request.headers,
        },
    )
