"""Write one line per event to standard error, plain or as JSON."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["plain", "json"]
LOG_FORMATS: tuple[LogFormat, ...] = ("plain", "json")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class PlainFormatter(logging.Formatter):
    """`time level message key=value ...`."""

    def format(self, record: logging.LogRecord) -> str:
        """Give one line."""
        words = [_time(record), record.levelname.lower().ljust(7), record.getMessage()]
        words += [f"{name}={_word(value)}" for name, value in _extra(record).items()]
        line = " ".join(words)
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object: `at`, `level`, `message` and the variables."""

    def format(self, record: logging.LogRecord) -> str:
        """Give one line."""
        fields: dict[str, object] = {
            "at": _time(record),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def set_up_logging(log_format: LogFormat) -> None:
    """Send every record of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else PlainFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


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
