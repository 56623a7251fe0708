"""CSV files as spreadsheets write them, read record by record.

Rules:
- A file is read while it is taken in, in bounded memory, and each record is kept in one
  form, whatever the file looked like: a JSON array of its cells.
- The separator is the comma, the semicolon or the tab, by the header. Names of columns
  are known in any case, with blanks, hyphens and underscores.
- The character set is what the sender says, else what the file's own mark says, else
  UTF-8. It is not guessed: a wrong guess would change names without a word.
- A cell may hold line breaks between quotes. A quote that is never closed spoils the
  line on which it stands, and no other.
"""

import csv
import io
import json
import re
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from devices.exceptions import EmptyImportError, NotCsvError
from hotswap.common.errors import FieldError, InvalidInputError
from hotswap.common.pluralize import counted

MAX_LINE_BYTES = 128 * 1024
TEXT_COLUMNS = ("deviceId", "model", "region", "firmwareVersion")
TAGS, METADATA, TAG, ENABLED = "tags", "metadata", "tag:", "enabled"
KNOWN_COLUMNS = (*TEXT_COLUMNS, ENABLED, TAGS, METADATA)
# An export has them; what they say is not for people to decide.
IGNORED_COLUMNS = ("status", "lastSeenAt")
SEPARATORS = ",;\t"
MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
# Workbooks: a zip archive (.xlsx, .ods), and the older compound file (.xls).
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
CHARACTER_SETS = {
    "utf-8": "utf-8",
    "us-ascii": "utf-8",
    "utf-16": "utf-16",
    "windows-1252": "cp1252",
    "cp1252": "cp1252",
}
SAVE_AS = "save it as CSV UTF-8 (comma delimited)"
_SPOKEN = {
    re.sub("[ _-]", "", name).casefold(): name
    for name in (*KNOWN_COLUMNS, *IGNORED_COLUMNS)
}


# Made once: `json.dumps` makes one for each call that has options.
_encoded = json.JSONEncoder(ensure_ascii=False).encode


class _MalformedError(ValueError):
    """Why a record is none."""


def refuse_workbook(file: IO[bytes]) -> None:
    """Refuse a file of Excel or the like, by its first bytes.

    Raises:
        NotCsvError: it is one (400).
    """
    begins = file.read(4)
    file.seek(0)
    if begins in WORKBOOKS:
        raise NotCsvError(f"the file is a workbook and not CSV: {SAVE_AS}, send that")


@dataclass(slots=True)
class _Lines:
    """The lines of a text with their numbers, which can be put back."""

    text: io.TextIOWrapper
    number: int = 0
    _again: deque[str | None] = field(default_factory=deque)

    def next(self) -> str | None:
        """Return the next line with its end, "" at the end of the file.

        None stands for one that is too long.
        """
        line = self._again.popleft() if self._again else self._read()
        if line != "":
            self.number += 1
        return line

    def put_back(self, lines: list[str | None]) -> None:
        """Have lines given out again, in this order."""
        self._again.extendleft(reversed(lines))
        self.number -= len(lines)

    def _read(self) -> str | None:
        try:
            line = self.text.readline(MAX_LINE_BYTES + 2)
            if line.endswith(("\n", "\r")) or len(line) <= MAX_LINE_BYTES:
                return line
            while line and not line.endswith(("\n", "\r")):
                line = self.text.readline(MAX_LINE_BYTES)
        except UnicodeError:
            named = self.text.encoding.removesuffix("-sig").upper()
            raise NotCsvError(
                f"the file is not in {named} (after line {self.number}): {SAVE_AS}, or "
                "name its character set, as in Content-Type: text/csv; "
                "charset=windows-1252",
                code="wrong_encoding",
            ) from None
        return None


@dataclass(frozen=True, slots=True)
class Spreadsheet:
    """The columns of a file, and its records one by one.

    Attributes:
        columns: their names, in the spelling of the API.
        records: number of the line on which each begins, and its form to be kept; None
            for one that is too long. Records without any text are left out.
    """

    columns: list[str]
    records: Iterator[tuple[int, bytes | None]]


def read_spreadsheet(
    file: IO[bytes], charset: str | None, required: tuple[str, ...] = ()
) -> Spreadsheet:
    """Read the header of a CSV file, and the rest as it is asked for.

    Args:
        charset: what the sender says; one of `CHARACTER_SETS`.
        required: columns that must be there.

    Raises:
        EmptyImportError: there is no line.
        NotCsvError: it is in another character set; of the rest when that is read.
        InvalidInputError: the header names no columns, unknown ones, one twice, or not
            all that are needed; each with its name.
    """
    begins = file.read(4)
    file.seek(0)
    encoding = CHARACTER_SETS[charset] if charset else "utf-8"
    for mark, named in MARKS.items():
        if begins.startswith(mark):
            encoding = named
    lines = _Lines(io.TextIOWrapper(file, encoding=encoding, newline=""))
    first = _first_line(lines)
    if first == "":
        raise EmptyImportError("the file is empty")
    columns, separator = _header(first, required)
    return Spreadsheet(columns, _records(lines, separator, len(columns)))


def _first_line(lines: _Lines) -> str | None:
    while (line := lines.next()) is not None and line:
        text = line.strip().strip('"').lower()
        # Excel's own line about the separator: the header tells the same.
        if text and not re.fullmatch("sep=[,;\t]?", text):
            return line
    return line


def _header(line: str | None, required: tuple[str, ...]) -> tuple[list[str], str]:
    """Return the names of the columns, and the separator by which most are known."""
    try:
        if line is None:
            raise _MalformedError("it is too long")
        if "\x00" in line:
            raise _MalformedError("NUL characters are not allowed")
        columns, separator = _reading(line)
    except _MalformedError as error:
        raise InvalidInputError(
            f"the first line must name the columns: {error}", code="malformed_header"
        ) from None
    errors = []
    for number, name in enumerate(columns):
        if not name:
            errors.append(
                FieldError("", "required", f"column {number + 1} has no name")
            )
        elif name in columns[:number]:
            errors.append(_column(name, "duplicate", "is there twice"))
        elif name.startswith(TAG):
            if not 1 <= len(name.removeprefix(TAG)) <= 64 or ":" in name[len(TAG) :]:
                errors.append(
                    _column(name, "invalid", "must name a tag of 1 to 64 characters")
                )
        elif not _is_known(name):
            known = ", ".join((*KNOWN_COLUMNS, f"{TAG}NAME"))
            errors.append(_column(name, "unknown", f"is unknown; known are: {known}"))
    errors += [
        _column(name, "required", "is missing")
        for name in required
        if name not in columns
    ]
    if errors:
        raise InvalidInputError(
            errors[0].detail, code="malformed_header", errors=errors
        )
    return columns, separator


def _reading(line: str) -> tuple[list[str], str]:
    """Read a header by the separator by which most of its columns are known.

    Raises:
        _MalformedError: by none is any known, and it is malformed by the first.
    """
    found: tuple[list[str], str] | None = None
    most = 0
    for separator in SEPARATORS:
        with suppress(_MalformedError):
            names = _names(line, separator)
            known = sum(map(_is_known, set(names)))
            if known > most:
                found, most = (names, separator), known
    return found or (_names(line, SEPARATORS[0]), SEPARATORS[0])


def _is_known(name: str) -> bool:
    return name in (*KNOWN_COLUMNS, *IGNORED_COLUMNS) or name.startswith(TAG)


def _names(line: str, separator: str) -> list[str]:
    names = [_name(cell) for cell in _cells(line, separator)]
    while names and not names[-1]:
        names.pop()
    return names


def _name(cell: str) -> str:
    """Return a name in the spelling of the API, if it is known in another one."""
    cell = cell.strip()
    before, colon, tag = cell.partition(":")
    if colon and before.strip().casefold() == "tag":
        return f"{TAG}{tag.strip()}"
    return _SPOKEN.get(re.sub("[ _-]", "", cell).casefold(), cell)


def _column(name: str, code: str, detail: str) -> FieldError:
    shown = name[:80]
    pointer = shown.replace("~", "~0").replace("/", "~1")
    return FieldError(f"/{pointer}", code, f"the column {shown!r} {detail}")


def _cells(text: str, separator: str) -> list[str]:
    try:
        rows = list(csv.reader([text], delimiter=separator, strict=True))
    except csv.Error as error:
        raise _MalformedError(f"malformed CSV: {error}") from None
    return rows[0] if rows else []


def _records(
    lines: _Lines, separator: str, width: int
) -> Iterator[tuple[int, bytes | None]]:
    while (line := lines.next()) != "":
        number = lines.number
        if line is None:
            yield number, None
            continue
        if not line.strip():
            continue
        try:
            cells = _record(lines, line, separator)
        except _MalformedError as error:
            yield number, kept(str(error))
            continue
        if not any(map(str.strip, cells)):
            continue
        while len(cells) > width and not cells[-1].strip():
            cells.pop()
        yield number, kept(cells)


def kept(record: list[str] | str) -> bytes:
    """Write a record in the form that is kept: its cells, or why it is none."""
    return _encoded(record).encode()


def _record(lines: _Lines, line: str, separator: str) -> list[str]:
    """Read the record that begins with a line, and further lines if its quotes say so.

    Where they are never closed, the further lines are put back.
    """
    if line.count('"') % 2 == 0:
        return _cells(line, separator)
    further: list[str | None] = []
    size = len(line)
    while size <= MAX_LINE_BYTES:
        more = lines.next()
        if more == "":
            break
        further.append(more)
        if more is None:
            break
        size += len(more)
        if more.count('"') % 2 == 1:
            try:
                return _cells("".join((line, *filter(None, further))), separator)
            except _MalformedError:
                break
    lines.put_back(further)
    return _cells(line, separator)


def cells_of(raw: bytes, width: int) -> list[str]:
    """Return the cells of a record as it was kept.

    Raises:
        ValueError: it is malformed, or has more or fewer cells than the header; the
            first argument is the code, the second the sentence.
    """
    record: Any = json.loads(raw)
    if isinstance(record, str):
        raise ValueError("malformed", record)
    if len(record) != width:
        raise ValueError(
            "wrong_columns",
            f"the line has {counted(len(record), 'cell')}, the header {width}",
        )
    return list(record)
