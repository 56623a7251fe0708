"""Cells of CSV files of devices, written so that they can be read again.

Rules:
- A cell that a spreadsheet would take for a formula begins with an apostrophe; so does
  one that begins with an apostrophe itself. Reading takes it away again.
- Tags are `name=value` pairs between semicolons where that says the same again, else a
  JSON object.

Pure: standard library alone.
"""

import csv
import io
import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

FORMULAS = ("=", "+", "-", "@", "\t", "\r", "'")


def guarded(cell: str) -> str:
    """Write a cell so that no spreadsheet computes it."""
    return f"'{cell}" if cell.startswith(FORMULAS) else cell


def unguarded(cell: str) -> str:
    """Return a cell as it was before it was guarded."""
    is_guarded = cell.startswith("'") and cell[1:].startswith(FORMULAS)
    return cell[1:] if is_guarded else cell


def csv_lines(rows: Iterable[Iterable[str]]) -> bytes:
    """Write rows as CSV in UTF-8, each cell guarded."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(map(guarded, row) for row in rows)
    return text.getvalue().encode()


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
