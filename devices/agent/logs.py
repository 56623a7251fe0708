"""Write one line per event to standard error, plain or as JSON.

The keys of the JSON are those of the server's lines: `timestamp`, `level`, `message`,
`logger`, `traceId`, `deviceId`, `deploymentId`, then what the event has.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal

# `auto` is plain on a terminal and JSON elsewhere.
LogFormat = Literal["auto", "plain", "json"]
LOG_FORMATS: tuple[LogFormat, ...] = ("auto", "plain", "json")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_SNAKE = re.compile(r"_([a-z0-9])")
_COLOURS = {"WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}
_context: ContextVar[Mapping[str, str]] = ContextVar("log_context")


def bind(**values: str) -> None:
    """Add to every further line of this thread, where it is not empty.

    Args:
        values: by the names that they have in JSON, except that they are in snake_case.
    """
    bound = {**_context.get({}), **values}
    _context.set({name: value for name, value in bound.items() if value})


class PlainFormatter(logging.Formatter):
    """`time level message key=value ...`.

    Attributes:
        is_coloured: for a terminal.
    """

    is_coloured: bool = False

    def format(self, record: logging.LogRecord) -> str:
        """Give one line."""
        level = record.levelname.lower().ljust(7)
        if self.is_coloured and record.levelname in _COLOURS:
            level = f"\033[{_COLOURS[record.levelname]}m{level}\033[0m"
        words = [_time(record), level, record.getMessage()]
        words += [f"{name}={_word(value)}" for name, value in _extra(record).items()]
        line = " ".join(words)
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Give one line."""
        fields: dict[str, object] = {
            "timestamp": _time(record),
            "level": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
        }
        for name, value in {**_context.get({}), **_extra(record)}.items():
            fields.setdefault(_SNAKE.sub(lambda found: found[1].upper(), name), value)
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def set_up_logging(log_format: LogFormat) -> None:
    """Send every record of this process to standard error, warnings included."""
    handler = logging.StreamHandler(sys.stderr)
    is_terminal = sys.stderr.isatty()
    plain = PlainFormatter()
    plain.is_coloured = is_terminal
    is_json = log_format == "json" or (log_format == "auto" and not is_terminal)
    handler.setFormatter(JsonFormatter() if is_json else plain)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught


def _log_uncaught(
    kind: type[BaseException], error: BaseException, where: TracebackType | None
) -> None:
    logging.getLogger("devices.agent").critical(
        "uncaught exception", exc_info=(kind, error, where)
    )


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _word(value: object) -> str:
    """Quote what is not one plain word, so that a line stays a line."""
    text = str(value)
    is_plain = text.isprintable() and not set(text) & set(' "=')
    return text if is_plain else json.dumps(text)


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(record).items()
        if name not in _STANDARD and value is not None
    }
