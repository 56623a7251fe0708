"""What comes over a socket and is hardly HTTP, made by chance."""

import random
from collections.abc import Callable

HOST = b"Host: 127.0.0.1\r\n"
JSON = b"Content-Type: application/json\r\n"
PATHS = (
    *(b"/", b"/health", b"/metrics", b"/api/v1/devices", b"/api/v1/auth/token"),
    *(b"/api/v1/auth/refresh", b"/api/v1/firmware", b"/admin/login/", b"/static/x"),
)
POSTED = (b"/api/v1/auth/token", b"/api/v1/auth/refresh", b"/admin/login/")
NUMBERS = (
    *(b"-1", b"+5", b"0x10", b"1e3", b"5 5", b"5,6", b"", b"\xb2", b"9" * 30),
    *(b"00000000000000000005", b"18446744073709551616", b"5;a=b"),
)
CHUNKS = (
    *(b"5\r\n{}\r\n0\r\n\r\n", b"zz\r\n{}\r\n0\r\n\r\n", b"-2\r\n{}\r\n0\r\n\r\n"),
    *(b"2\r\n{}0\r\n\r\n", b"2\n{}\n0\n\n", b"FFFFFFFFFFFFFFFFF\r\n{}\r\n0\r\n\r\n"),
    *(b"2;" + b"a" * 20_000 + b"\r\n{}\r\n0\r\n\r\n", b"2\r\n{}\r\n"),
    *(b"1\r\n{\r\n" * 500 + b"0\r\n\r\n", b"2\r\n{}\r\n0\r\n" + b"t: 1\r\n" * 2_000),
    b"2\r\n{}\r\n0\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\n",
)
LINES = (
    *(b"Host: a\r\nHost: b\r\n", b"a b: c\r\n", b": empty\r\n", b"noColon\r\n"),
    *(b"x: a\r\n folded\r\n", b"x : 1\r\n", b"x: \x00\r\n", b"\x00x: 1\r\n"),
    *(b"x: " + b"a" * 100_000 + b"\r\n", b"x: 1\r\n" * 5_000, b"x: a\rb\r\n"),
    *(b"Connection: close, Host\r\n", b"Upgrade: h2c\r\nConnection: Upgrade\r\n"),
    *(b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n",),
    *(b"Expect: 200-maybe\r\n", b"TE: trailers\r\n", b"\xff\xfe: \xff\r\n"),
    *(b"Content-Length: 2\r\nContent-Length: 3\r\n", b"Content-Length: 0\r\n" * 3),
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    b"Transfer-Encoding: xchunked\r\n",
    b"Transfer-Encoding: chunked, gzip\r\n",
)
FIRST_LINES = (
    *(b"GET\r\n", b"GET /health\r\n", b"GET /health HTTP/9.9\r\n", b"\r\n" * 500),
    *(
        b"GET /health HTTP/1.0\r\n",
        b"GET  /health  HTTP/1.1\r\n",
        b"HTTP/1.1 200 OK\r\n",
    ),
    *(b"G\x00T /health HTTP/1.1\r\n", b"GET /\xff\xfe HTTP/1.1\r\n"),
    *(b"GET /a b HTTP/1.1\r\n", b"GET /health HTTP/1.1\n", b" GET / HTTP/1.1\r\n"),
    *(b"GET http://other/health HTTP/1.1\r\n", b"CONNECT a:1 HTTP/1.1\r\n"),
    *(b"OPTIONS * HTTP/1.1\r\n", b"A" * 50_000, b"GET /" + b"a" * 100_000),
    b"GET /" + b"%00" * 3_000 + b" HTTP/1.1\r\n",
)
STARTS = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(512),
    b"\x05\x01\x00",
    b"SSH-2.0-x\r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET /health HTTP/1.1\r\n\r\n",
    b"(){:;}; x\r\n\r\n",
    b"\x00" * 5_000,
)


def _head(chance: random.Random) -> bytes:
    return b"GET " + chance.choice(PATHS) + b" HTTP/1.1\r\n" + HOST


def _posted(chance: random.Random) -> bytes:
    return b"POST " + chance.choice(POSTED) + b" HTTP/1.1\r\n" + HOST + JSON


def _line(chance: random.Random) -> bytes:
    return _head(chance) + chance.choice(LINES) + b"\r\n"


def _line_of_post(chance: random.Random) -> bytes:
    return _posted(chance) + chance.choice(LINES) + b"\r\n{}"


def _first_line(chance: random.Random) -> bytes:
    return chance.choice(FIRST_LINES) + HOST + b"\r\n"


def _length(chance: random.Random) -> bytes:
    number = chance.choice(NUMBERS)
    return _posted(chance) + b"Content-Length: " + number + b"\r\n\r\n{}   "


def _too_short(chance: random.Random) -> bytes:
    return _posted(chance) + b"Content-Length: 5000\r\n\r\n" + b"{" * 20


def _too_long(chance: random.Random) -> bytes:
    return _posted(chance) + b"Content-Length: 2\r\n\r\n{}" + b"{}" * 2_000


def _chunks(chance: random.Random) -> bytes:
    chunks = chance.choice(CHUNKS)
    return _posted(chance) + b"Transfer-Encoding: chunked\r\n\r\n" + chunks


def _start(chance: random.Random) -> bytes:
    return chance.choice(STARTS)


def _noise(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(1, 3_000))


def _many(chance: random.Random) -> bytes:
    """Give several requests at once, of which some are wrong."""
    return b"".join(
        chance.choice((_head(chance) + b"\r\n", _line(chance), _chunks(chance)))
        for _ in range(5)
    )


def _flipped(chance: random.Random) -> bytes:
    whole = bytearray(_posted(chance) + b"Content-Length: 2\r\n\r\n{}")
    for _ in range(chance.choice((1, 1, 2, 5))):
        whole[chance.randrange(len(whole))] = chance.randrange(256)
    return bytes(whole)


def _cut(chance: random.Random) -> bytes:
    whole = _posted(chance) + b"Content-Length: 2\r\n\r\n{}"
    return whole[: chance.randrange(1, len(whole))]


KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    *(_line, _line_of_post, _first_line, _length, _too_short, _too_long, _chunks),
    *(_start, _noise, _many, _flipped, _cut),
)


def raw_stream(chance: random.Random) -> bytes:
    """Return the bytes that a client sends before it sends no more."""
    return chance.choice(KINDS)(chance)
