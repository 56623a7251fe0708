"""Files of devices: how they are read in, and the file of keys that comes out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from django.conf import settings
from django.http import HttpResponse
from django.utils import timezone

from devices.choices import ImportFormat, ImportMode
from devices.exceptions import TooManyLinesError
from devices.models import DeviceImport
from devices.services import imports
from devices.services.imports import ImportOptions
from devices.spreadsheets import MAX_LINE_BYTES, read_spreadsheet, refuse_workbook
from hotswap.common.models import User

REQUIRED_COLUMNS = {
    ImportMode.CREATE: ("deviceId", "model"),
    ImportMode.UPSERT: ("deviceId",),
}


PIECE_BYTES = 256 * 1024


BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A whole body on disk; `charset` is what its sender says, if that is anything."""

    file: IO[bytes]
    format: ImportFormat
    digest: str
    charset: str | None = None


def lines_of(file: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Give number and bytes of each line of NDJSON that is not empty, without its end.

    None stands for the bytes of a line that is too long.
    """
    number = 0
    while True:
        raw: bytes | None = file.readline(MAX_LINE_BYTES + 2)
        if not raw:
            return
        number += 1
        if number == 1:
            raw = raw.removeprefix(BYTE_ORDER_MARK)
        if not raw.endswith(b"\n") and len(raw) > MAX_LINE_BYTES:
            rest = raw
            while rest and not rest.endswith(b"\n"):
                rest = file.readline(PIECE_BYTES)
            raw = None
        else:
            raw = raw.rstrip(b"\r\n")
            if not raw.strip():
                continue
        yield number, raw


def _at_most(
    limit: int, lines: Iterator[tuple[int, bytes | None]]
) -> Iterator[tuple[int, bytes | None]]:
    for count, line in enumerate(lines, 1):
        if count > limit:
            raise TooManyLinesError(f"a file may have {limit} devices at most")
        yield line


def take_file_in(
    *, actor: User, received: ReceivedFile, options: ImportOptions | None = None
) -> DeviceImport:
    """Read the header of a file and hand its lines over.

    Raises:
        InvalidInputError: the header is wrong, or there is no line.
        NotCsvError: a workbook, or another character set.
        TooManyLinesError: 413.
    """
    options = options or ImportOptions()
    refuse_workbook(received.file)
    if received.format is ImportFormat.CSV:
        required = REQUIRED_COLUMNS[options.mode]
        sheet = read_spreadsheet(received.file, received.charset, required)
        columns, lines = sheet.columns, sheet.records
    else:
        columns, lines = [], lines_of(received.file)
    return imports.begin_import(
        actor=actor,
        file_format=received.format,
        columns=columns,
        lines=_at_most(settings.IMPORT_MAX_LINES, lines),
        options=options,
    )


def keys_file(actor: User, import_id: Any) -> HttpResponse:
    """Give the keys of an import as a file to keep."""
    keys = imports.fetch_keys(actor=actor, import_id=import_id, now=timezone.now())
    name = f"device-keys-{import_id}.csv"
    return HttpResponse(
        keys,
        content_type="text/csv; charset=utf-8",
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="{name}"',
        },
    )
