"""Cells of CSV files of devices, written so that they can be read again.

Rules:
- Cells are guarded (`hotswap.common.csv_cells`); reading takes that away again.
- Tags are `name=value` pairs between semicolons where that says the same again, else a
  JSON object.

Pure: standard library alone.
"""

import json
from contextlib import suppress
from typing import Any


def map_cell(found: dict[str, Any]) -> str:
    """Write a map as JSON; an empty one as an empty cell."""
    return json.dumps(found, ensure_ascii=False) if found else ""


def tags_cell(tags: dict[str, str]) -> str:
    """Write tags as pairs, or as JSON where pairs would not say the same."""
    pairs = ";".join(f"{name}={value}" for name, value in tags.items())
    if pairs.isprintable() and not pairs.startswith(("{", "'")):
        with suppress(ValueError):
            if read_pairs(pairs) == list(tags.items()):
                return pairs
    return map_cell(tags)


def read_pairs(cell: str) -> list[tuple[str, str]]:
    """Read `name=value` pairs.

    Raises:
        ValueError: a part is not of this form.
    """
    found = []
    for part in cell.split(";"):
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{part[:70]!r} is not of the form name=value")
        found.append((name.strip(), value.strip()))
    return found
