"""Cells of CSV files, written so that no spreadsheet computes them.

Pure: standard library alone.
"""

import csv
import io
from collections.abc import Iterable

# The mark by which spreadsheets know that a file is UTF-8.
MARK = b"\xef\xbb\xbf"
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "'")


def guarded(cell: str) -> str:
    """Write a cell with an apostrophe where it would be taken for a formula."""
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
