"""What commands print.

Rules:
- Results go to standard output, everything else to standard error.
- `--json` prints the documents of the API as they are; a list is one JSON array.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from hotswap.cli.client import CliError, NotConfirmedError


def print_json(value: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_rows(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool
) -> None:
    """Print a list: the whole documents, or a table of some of their fields."""
    if as_json:
        print_json(list(rows))
        return
    cells = [[as_text(row.get(name)) for name in columns] for row in rows]
    widths = [
        max(len(line[index]) for line in [list(columns), *cells])
        for index in range(len(columns))
    ]
    for line in [[name.upper() for name in columns], *cells]:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def print_document(document: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one resource: its document, or a line per field."""
    if as_json:
        print_json(document)
        return
    width = max(len(name) for name in document)
    for name, value in document.items():
        sys.stdout.write(f"{name.ljust(width)}  {as_text(value)}\n")


def as_text(value: Any) -> str:
    """Write a value of a document as people read it."""
    match value:
        case None | "":
            return "-"
        case True:
            return "yes"
        case False:
            return "no"
        case {} | [] if not value:
            return "-"
        case dict() if not any(map(_is_nested, value.values())):
            return ", ".join(f"{key}={each}" for key, each in value.items())
        case list() if not any(map(_is_nested, value)):
            return ", ".join(str(each) for each in value)
        case dict() | list():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def say(text: str) -> None:
    """Tell the person at the terminal."""
    sys.stderr.write(text + "\n")


def print_error(error: CliError) -> None:
    """Say what went wrong; as JSON where that was asked for."""
    if "--json" in sys.argv:
        document = error.document or {"code": error.code, "detail": str(error)}
        sys.stderr.write(json.dumps(document) + "\n")
    else:
        say(f"hotswap: {error}")


def confirm(question: str) -> None:
    """Ask a person; without one the answer is no.

    Raises:
        NotConfirmedError: it was not yes.
    """
    if not sys.stdin.isatty():
        raise NotConfirmedError(f"{question} Not confirmed: say --yes.")
    if not typer.confirm(question, err=True):
        raise NotConfirmedError("not confirmed; nothing was done")


def byte_progress() -> Progress:
    """Return a bar for bytes on their way, shown on a terminal only."""
    return _progress(DownloadColumn(), TransferSpeedColumn())


def count_progress() -> Progress:
    """Return a bar for things done, shown on a terminal only."""
    return _progress(MofNCompleteColumn())


def _progress(*columns: ProgressColumn) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
