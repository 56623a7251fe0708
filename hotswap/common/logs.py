"""Log lines as JSON with the keys of the specification (Logging).

What a client sends gets into the log in small pieces: no query strings, which can hold
anything, no long texts, and no traceback for what is the client's fault.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from django.http import HttpRequest
from opentelemetry import trace

MAX_CHARACTERS = 1000
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def _cut(text: str) -> str:
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]}... ({len(text)} characters)"


def _shown(value: Any) -> Any:
    if isinstance(value, HttpRequest):
        return _cut(f"{value.method} {value.path}")
    return _cut(value) if isinstance(value, str) else value


class ClientFaultFilter(logging.Filter):
    """Make a refused request (4xx) one line of a warning, whoever logs it."""

    def filter(self, record: logging.LogRecord) -> bool:
        status = getattr(record, "status_code", None)
        if isinstance(status, int) and 400 <= status < 500:
            record.exc_info = None
            if record.levelno > logging.WARNING:
                record.levelno = logging.WARNING
                record.levelname = logging.getLevelName(logging.WARNING)
        return True


class JSONFormatter(logging.Formatter):
    """Write one object a line: timestamp, level, message, traceId and the extras."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": _cut(record.getMessage()),
        }
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            line["traceId"] = trace.format_trace_id(context.trace_id)
        line.update(
            {
                key: _shown(value)
                for key, value in vars(record).items()
                if key not in _STANDARD
            }
        )
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
