"""JSON that means exactly one thing, or is refused."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from hotswap.common.errors import TooLargeError

MAX_DEPTH = 32
# Of all objects of a document together. What anybody may send is checked key by key.
MAX_KEYS = 1000
# Lists and objects together: an empty one is three bytes to send, and much work.
MAX_CONTAINERS = 10_000
# Without its texts: what begins with so many of them, none of which has ended.
DEEP = re.compile(rb"(?:[^\[\]{}]*[\[{]){%d}" % (MAX_DEPTH + 1))
# One that does not end is one to the end, so that no other is looked for in it.
TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
SMALL_BODY_BYTES = 64 * 1024
WALKED = (str, list, dict)
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise _too_many_keys()
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ParseError(f"the key {key!r} appears twice", code="duplicate_key")
        found[key] = value
    return found


def _too_many_keys() -> ParseError:
    return ParseError(f"more than {MAX_KEYS:,} keys", code="too_many_keys")


def _too_deep() -> ParseError:
    return ParseError(f"nested more than {MAX_DEPTH} levels deep", code="too_deep")


def _refuse_constant(name: str) -> Any:
    raise ParseError(f"{name} is not a JSON number", code="invalid_number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ParseError(f"the number {text[:40]} is too large", code="invalid_number")
    return value


def check_text(text: str) -> None:
    """Refuse what the database cannot hold: NUL and lone surrogates."""
    found = UNSTORABLE.search(text)
    if found is not None:
        what = "NUL characters" if found[0] == "\x00" else "lone surrogates"
        raise ParseError(f"{what} are not allowed", code="invalid_character")


def _texts(value: Any) -> Iterator[str]:
    """Give every text in a document, keys as well.

    Raises:
        ParseError: it is nested too deep, or has too many keys.
    """
    # Iterative: the depth is the caller's to choose.
    waiting: list[tuple[Any, int]] = [(value, 1)]
    keys = 0
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict | list):
            if depth > MAX_DEPTH:
                raise _too_deep()
            if isinstance(item, dict):
                keys += len(item)
                if keys > MAX_KEYS:
                    raise _too_many_keys()
                waiting += [(key, depth) for key in item]
            parts = item.values() if isinstance(item, dict) else item
            waiting += [(part, depth + 1) for part in parts if isinstance(part, WALKED)]


def _no_number(_: str) -> None:
    return None


def _finite_or_null(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _storable(value: Any) -> Any:
    """Return what was parsed without the characters that the database cannot hold."""
    if isinstance(value, str):
        return UNSTORABLE.sub("", value)
    if isinstance(value, list):
        return [_storable(part) for part in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(part) for key, part in value.items()}
    return value


def parse_json_leniently(body: bytes) -> Any:
    """Read one JSON document of a device, in all that does not make it ambiguous.

    NaN and infinities, which careless programs write for a value that they lack, count
    as null. Characters that the database cannot hold (NUL, lone surrogates) are
    dropped. Of a key that appears twice the last value counts.

    Raises:
        ParseError: not UTF-8 JSON, nested more than 32 levels, or with more than 1,000
            keys or 10,000 lists and objects.
    """
    value = _load(body, parse_constant=_no_number, parse_float=_finite_or_null)
    for _ in _texts(value):
        pass
    return _storable(value)


def parse_json(body: bytes) -> Any:
    """Read one JSON document strictly.

    Raises:
        ParseError: not UTF-8 JSON, a key twice, NaN or infinity, NUL or a lone
            surrogate in a text, nested more than 32 levels, or with more than 1,000
            keys or 10,000 lists and objects.
    """
    value = _load(
        body,
        object_pairs_hook=_without_duplicates,
        parse_constant=_refuse_constant,
        parse_float=_finite,
    )
    for text in _texts(value):
        check_text(text)
    return value


def _check_containers(body: bytes) -> None:
    """Refuse more lists and objects than a document may have, before any is made."""
    if _count_containers(body) <= MAX_CONTAINERS:
        return
    bare = TEXT.sub(b"", body)
    if DEEP.match(bare):
        raise _too_deep()
    if _count_containers(bare) > MAX_CONTAINERS:
        raise ParseError(
            f"more than {MAX_CONTAINERS:,} lists and objects", code="too_many_lists"
        )


def _count_containers(body: bytes) -> int:
    return body.count(b"[") + body.count(b"{")


def _load(body: bytes, **hooks: Any) -> Any:
    _check_containers(body)
    try:
        return json.loads(body.decode("utf-8"), **hooks)
    except UnicodeDecodeError:
        raise ParseError("the body is not UTF-8", code="malformed") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise ParseError(
            f"malformed JSON: {_in_words(error)}", code="malformed"
        ) from None


# What Python's parser says, by how it begins, and what it means.
JSON_PROBLEMS = {
    "Expecting value": "a value is missing, or a text without quotation marks",
    "Expecting property name": "a name in double quotation marks is missing",
    "Expecting ',' delimiter": "a comma is missing",
    "Expecting ':' delimiter": "a colon is missing",
    "Illegal trailing comma": "there is a comma too many",
    "Extra data": "there is more after the end",
    "Unterminated string": "a text has no end",
    "Invalid control character": "a text holds a line break or a control character",
    "Invalid": "a text holds a backslash that means nothing",
}


def _in_words(error: ValueError) -> str:
    """Say where a document is wrong, and how."""
    if not isinstance(error, json.JSONDecodeError):
        return str(error)
    words = next(
        (
            words
            for begin, words in JSON_PROBLEMS.items()
            if error.msg.startswith(begin)
        ),
        error.msg,
    )
    return f"line {error.lineno}, column {error.colno}: {words}"


class StrictJSONParser(BaseParser):
    """Parse `application/json` bodies: of people 2 MiB at most, of others 64 KiB."""

    media_type = "application/json"

    @staticmethod
    def read(body: bytes) -> Any:
        """Read the document."""
        return parse_json(body)

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        context = parser_context or {}
        limit: int = getattr(
            context.get("view"),
            "max_body_bytes",
            settings.DATA_UPLOAD_MAX_MEMORY_SIZE,
        )
        body = stream.read(limit + 1)
        if len(body) > limit:
            drain(stream)
            raise TooLargeError(f"a JSON body may have {limit} bytes at most")
        return self.read(body)


class LenientJSONParser(StrictJSONParser):
    """Parse what devices say of themselves."""

    @staticmethod
    def read(body: bytes) -> Any:
        """Read the document."""
        return parse_json_leniently(body)


def drain(stream: IO[bytes], limit_bytes: int = 1 << 30) -> None:
    """Read and drop the rest of a body, so that the answer reaches its sender."""
    left = limit_bytes
    while left > 0:
        piece = stream.read(min(1 << 20, left))
        if not piece:
            return
        left -= len(piece)
