"""One JSON document, written while what it holds is read."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder

Sections = Iterable[tuple[str, Iterable[Any]]]


def json_pieces(head: Mapping[str, Any], sections: Sections) -> Iterator[str]:
    """Give out an object as the pieces of its text.

    Args:
        head: the first fields; one at least.
        sections: names and rows of further fields, each a list.
    """
    yield _text(head).removesuffix("}")
    for name, rows in sections:
        yield f", {_text(name)}: ["
        for number, row in enumerate(rows):
            yield f"{', ' if number else ''}{_text(row)}"
        yield "]"
    yield "}"


def _text(value: Any) -> str:
    return json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False)
