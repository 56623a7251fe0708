"""One JSON document, written while what it holds is read."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.http import StreamingHttpResponse
from django.utils.http import content_disposition_header

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


def json_file(pieces: Iterator[str], filename: str) -> StreamingHttpResponse:
    """Send a document as a file to keep, while it is written."""
    disposition = content_disposition_header(as_attachment=True, filename=filename)
    return StreamingHttpResponse(
        pieces,
        content_type="application/json",
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": disposition or "attachment",
        },
    )


def _text(value: Any) -> str:
    return json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False)
