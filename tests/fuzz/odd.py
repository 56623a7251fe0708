"""Requests that no client sends by mistake, made by chance."""

import base64
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tests.fuzz.requests import Request

MANY = "&".join(f"a{number}=1" for number in range(1001))
QUERIES = (
    *("%00", "a%00b=1", "pageSize=%00", MANY, f"{MANY}&x=%00", "%zz%", "%ff%fe=%ff"),
    *("pageSize=1&pageSize=2", "&".join(["tag=a:b"] * 30), "&&&==;;", "a" * 60_000),
    *("count=TRUE", "pageSize=-1", "pageSize=1e9", "pageSize=%D9%A3", "cursor="),
    *("cursor=%F0%9F%92%A9", "cursor=" + "A" * 5000, "sort=", "status[]=x", "=", "?"),
    *("to=9999-12-31T23:59:59-23:59", "from=0001-01-01T00:00:00%2B23:59"),
    *("group=%2e%2e", "search=%25%5C_", "stage=" + "9" * 400, "firmware=:", "tag=:"),
)
TAILS = ("/", "//", "/..", "/%2e%2e/", "%00", "%ff", "/%F0%9F%92%A9", ";a=b", "%0d%0a")
TARGETS = (
    *("*", "/", "//", "/api", "/api/", "/api/v1", "/api/v1/", "/API/V1/devices"),
    *("http://testserver/api/v1/devices", "//other/api/v1/devices", "/%00", "/%"),
    *("/api/v1/devices/..%2f..%2fadmin", "/api/v1/" + "a" * 8000, "/api/v1/%E2%82%AC"),
    *("/health?%00", "/metrics?a=%ff", "/admin/login/?next=%00", "/static/%00"),
    *("/static/../hotswap", "/static/%2e%2e/%2e%2e/manage.py", "/admin/%00/"),
)
METHODS = ("HEAD", "OPTIONS", "TRACE", "CONNECT", "BREW", "get", "PUT", "P\xb3")
HEADERS: dict[str, Sequence[str]] = {
    "Host": ("", "a b", "x" * 9000, "testserver:99999", "testserver,testserver", "[::"),
    "Content-Type": (
        *("", "x", "application/json; charset=hex", "application/json; charset=\xb3"),
        *("multipart/form-data", "multipart/form-data; boundary=" + "x" * 300),
        *(
            "application/x-www-form-urlencoded",
            "text/csv; charset=utf-7",
            "a/b;;=\xff",
        ),
        *(
            "multipart/form-data; boundary=x",
            "application/x-ndjson",
            "TEXT/CSV",
        ),
    ),
    "Content-Length": ("", "-1", "abc", "\xb3", "1" * 30, "1e3", "0x10", "5", "100000"),
    "Transfer-Encoding": ("chunked", "gzip, chunked", "\xb3"),
    "Authorization": (
        *("Bearer", "Bearer a b", "Basic eDp5", "Bearer " + "a" * 9000, "Bearer \xff"),
        *("Bearer e30.e30.e30", "Bearer ..", "Bearer, Bearer", "\xb3 a", " "),
    ),
    "If-Match": ("", "*", '"', 'W/"a"', '"\xff"', '"a", "b', "a" * 9000, '"a"' * 2000),
    "If-None-Match": ("", "*", '"\xff"', "a" * 9000),
    "Idempotency-Key": ("", " ", "a" * 256, "\xff", "a\tb", "a,a"),
    "Range": (
        "bytes=-1",
        "bytes=\xb3-",
        "bytes=" + "9" * 400 + "-",
        "lines=1",
    ),
    "Accept": ("", "image/png", ";;;", "a" * 9000),
    "Accept-Encoding": ("identity;q=0", "br;q=\xb3", "*;q=0"),
    "Accept-Language": ("\xff", "a" * 5000, ",;q="),
    "Content-Encoding": ("gzip", "br"),
    "Cookie": ("sessionid=\xff; csrftoken=" + "a" * 64, ";;;=", "a" * 9000),
    "Traceparent": ("00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\xff", "00"),
    "X-Forwarded-For": ("\xff", "1.2.3.4, 5", "a" * 5000),
    "X-Forwarded-Proto": ("https", "\xff"),
    "X-HotSwap-Proxy": ("a;b;c;d", ";;;", "\xff", ","),
    "X-CSRFToken": ("\xff", "a" * 64),
    "Expect": ("100-continue", "\xff"),
    "X-HTTP-Method-Override": ("DELETE",),
}
BODIES = (
    *(b"", b"{", b"[" * 20_000, b"null", b"\xff\xfe{}", b'{"a": 1, "a": 2}', b"\x00"),
    *(b'{"a": NaN}', b'{"a": 1e999}', b'{"a": ' + b"9" * 5000 + b"}", b'"\\ud800"'),
    *(b'{"\\u0000": 1}', b"\xef\xbb\xbf{}", b"{}" + b" " * 70_000, b"a=b&%00=%ff"),
    *(b"{" + b'"a":{' * 5000, b'["' + b"a" * 100_000 + b'"]', "{}".encode("utf-16")),
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nb',
    b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nb\r\n--x--\r\n',
    b"deviceId,model\r\n\xff,\x00\r\n" + b'"' * 5000,
    b'{"deviceId": "a"}\n\xff\n{}\nnull\n',
)


def _query(chance: random.Random, request: Request) -> Request:
    mark = "&" if "?" in request.target else "?"
    return replace(request, target=f"{request.target}{mark}{chance.choice(QUERIES)}")


def _cursor(chance: random.Random, request: Request) -> Request:
    inside = chance.choice(("o=1&p=", "r=1&p=2026", "p=%00", "o=-1", "o=9" * 50, "p=a"))
    made_up = base64.b64encode(inside.encode()).decode()
    return replace(request, target=f"{request.target}?cursor={made_up}")


def _tail(chance: random.Random, request: Request) -> Request:
    return replace(request, target=request.target + chance.choice(TAILS))


def _target(chance: random.Random, request: Request) -> Request:
    return replace(request, target=chance.choice(TARGETS))


def _method(chance: random.Random, request: Request) -> Request:
    return replace(request, method=chance.choice(METHODS))


def _header(chance: random.Random, request: Request) -> Request:
    name = chance.choice(sorted(HEADERS))
    value = chance.choice(HEADERS[name])
    return replace(request, headers={**request.headers, name: value})


def _body(chance: random.Random, request: Request) -> Request:
    return replace(request, body=chance.choice(BODIES))


def _piece(chance: random.Random, request: Request) -> Request:
    """Cut the body short, or change a byte in it."""
    body = bytearray(request.body or b'{"model": "sensor-v1"}')
    place = chance.randrange(len(body))
    if chance.random() < 0.5:
        return replace(request, body=bytes(body[:place]))
    body[place] = chance.randrange(256)
    return replace(request, body=bytes(body))


TWISTS: tuple[Callable[[random.Random, Request], Request], ...] = (
    *(
        _query,
        _cursor,
        _tail,
        _target,
        _method,
        _header,
        _header,
        _header,
        _body,
        _piece,
    ),
)


def twisted(chance: random.Random, request: Request) -> Request:
    """Return the request with one to three things about it that are odd."""
    for twist in chance.choices(TWISTS, k=chance.choice((1, 1, 2, 3))):
        request = twist(chance, request)
    return request


def plain(chance: random.Random, route: tuple[str, str], names: Any) -> Request:
    """Return an ordinary request of a route.

    Args:
        names: gives what a parameter of a path may be, by parameter and path.
    """
    path, method = route
    parts = []
    for part in path.split("/"):
        is_place = part.startswith("{")
        known = names(part.strip("{}"), path) if is_place else (part,)
        parts.append(str(chance.choice(known or ("x",))))
    headers = {"Host": "testserver"}
    if method != "GET":
        headers["Content-Type"] = "application/json"
    body = b"" if method == "GET" else chance.choice((b"", b"{}", b'{"reason": "r"}'))
    return Request(method, "/".join(parts), headers, body)
