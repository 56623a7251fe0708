"""Logs: one JSON object a line with the keys of the specification (Logging).

Rules:
- Every line of a process is one, whoever writes it: warnings, uncaught exceptions and
  the libraries' own loggers come the same way. On a terminal lines are plain and
  coloured.
- Messages are constant; what varies has a key of its own. What is bound to the context
  of a request or a task (`structlog.contextvars`) is in each of its lines.
- What a client sends gets into the log in small pieces: no query strings, which can
  hold anything, no long texts, and no traceback for what is the client's fault.
- No secret and no name or address of a person: people appear under their pseudonym.
"""

import logging
import logging.config
import os
import re
import sys
import threading
from collections.abc import MutableMapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

import structlog
from opentelemetry import trace

# `json` or `plain`; whatever else is said, plain on a terminal and else JSON.
LOG_FORMAT = os.environ.get("HOTSWAP_LOG_FORMAT", "auto")
MAX_CHARACTERS = 1000
# The start of every line, in this order; the rest follows.
FIRST_KEYS: Final = ("timestamp", "level", "message", "logger", "traceId", "requestId")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_SNAKE = re.compile(r"_([a-z0-9])")
_LEVELS = {"warn": "WARNING", "exception": "ERROR", "notset": "DEBUG"}
# What PostgreSQL adds to an error: the values of the row that it refused.
_ROW_VALUES = re.compile(r"^(DETAIL|CONTEXT): .*$", re.MULTILINE)

Fields = MutableMapping[str, Any]
logger = logging.getLogger(__name__)


def _cut(text: str) -> str:
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]}... ({len(text)} characters)"


def without_row_values(text: str) -> str:
    """Take out of an error of PostgreSQL what it says of the values of a row."""
    return _ROW_VALUES.sub(r"\1: (omitted)", text)


def _shown(value: Any) -> Any:
    # Of a request (Django gives it to its own lines) only where it went.
    if hasattr(value, "method") and hasattr(value, "path"):
        return _cut(f"{value.method} {value.path}")
    return _cut(value) if isinstance(value, str) else value


class ClientFaultFilter(logging.Filter):
    """Make a refused request (4xx) one line of a warning, whoever logs it."""

    def filter(self, record: logging.LogRecord) -> bool:
        # The middleware of the log has said it already, with all of its context.
        if getattr(getattr(record, "request", None), "is_logged", False):
            return False
        status = getattr(record, "status_code", None)
        if isinstance(status, int) and 400 <= status < 500:
            record.exc_info = None
            if record.levelno > logging.WARNING:
                record.levelno = logging.WARNING
                record.levelname = logging.getLevelName(logging.WARNING)
        return True


def _add_extras(_: Any, __: str, event: Fields) -> Fields:
    """Take over what the record carries beside its message."""
    # Aside, so that a key of the same name is not taken for it.
    event["_message"] = event.pop("event", "")
    record = event.get("_record")
    if record is None:
        return event
    request = getattr(record, "request", None)
    if trace_id := getattr(request, "hotswap_trace_id", None):
        # Its span is over by the time that Django logs its end.
        event["traceId"] = trace_id
    for key, value in vars(record).items():
        if key not in _STANDARD and not key.startswith("_"):
            event.setdefault(key, value)
    return event


def _add_trace(_: Any, __: str, event: Fields) -> Fields:
    context = trace.get_current_span().get_span_context()
    if context.is_valid and "traceId" not in event:
        event["traceId"] = trace.format_trace_id(context.trace_id)
    return event


def _format_exception(_: Any, __: str, event: Fields) -> Fields:
    given = event.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()
    elif isinstance(given, BaseException):
        given = (type(given), given, given.__traceback__)
    if isinstance(given, tuple) and given[0] is not None:
        text = logging.Formatter().formatException(given)
        event["exception"] = without_row_values(text)
    return event


def _to_specified_keys(_: Any, __: str, event: Fields) -> dict[str, Any]:
    """Rename to the keys of the specification, in the order of its example."""
    level = str(event.pop("level", "info")).lower()
    named: dict[str, Any] = {
        "timestamp": event.pop("timestamp"),
        "level": _LEVELS.get(level, level.upper()),
        "message": _cut(str(event.pop("_message", ""))),
        "logger": event.pop("logger", ""),
    }
    for key, value in event.items():
        if key not in {"_record", "_from_structlog"}:
            name = _SNAKE.sub(lambda found: found[1].upper(), key)
            named.setdefault(name, value if name == "exception" else _shown(value))
    first = {key: named.pop(key) for key in FIRST_KEYS if key in named}
    return first | named


def _add_time(_: Any, __: str, event: Fields) -> Fields:
    record = event.get("_record")
    at = (
        datetime.now(UTC)
        if record is None
        else datetime.fromtimestamp(record.created, UTC)
    )
    event["timestamp"] = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return event


class JSONFormatter(structlog.stdlib.ProcessorFormatter):
    """Write one object a line."""

    def __init__(self) -> None:
        super().__init__(
            processors=[
                *_FINISH,
                structlog.processors.JSONRenderer(default=str),
            ],
            foreign_pre_chain=_GATHER,
        )


class PlainFormatter(structlog.stdlib.ProcessorFormatter):
    """Write lines for people, coloured."""

    def __init__(self) -> None:
        super().__init__(
            processors=[
                *_FINISH,
                structlog.dev.ConsoleRenderer(
                    event_key="message", timestamp_key="timestamp", sort_keys=False
                ),
            ],
            foreign_pre_chain=_GATHER,
        )


_GATHER: Final[list[Any]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
]
_FINISH: Final[list[Any]] = [
    _add_time,
    _add_extras,
    _add_trace,
    _format_exception,
    _to_specified_keys,
]


def formatter() -> logging.Formatter:
    """Return the formatter of this process, by `HOTSWAP_LOG_FORMAT` and its stream."""
    is_plain = LOG_FORMAT == "plain" or (
        LOG_FORMAT != "json" and sys.stderr is not None and sys.stderr.isatty()
    )
    return PlainFormatter() if is_plain else JSONFormatter()


def configure(configuration: dict[str, Any]) -> None:
    """Set up the logs of this process; Django calls it with its `LOGGING`."""
    logging.config.dictConfig(configuration)
    # In place of the library's own loggers, which would print.
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_GATHER,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def line_of(message: str, name: str) -> str:
    """Return a line of the log without writing it; no lock is taken.

    Args:
        name: of its logger.
    """
    record = logging.LogRecord(name, logging.INFO, "", 0, message, (), None)
    return formatter().format(record)


def log_everything() -> None:
    """Let warnings and uncaught exceptions of this process be lines of its log."""
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_of_thread
    sys.unraisablehook = _log_unraisable


def _log_uncaught(
    kind: type[BaseException], error: BaseException, where: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logger.critical("Uncaught exception", exc_info=(kind, error, where))


def _log_uncaught_of_thread(found: threading.ExceptHookArgs) -> None:
    if issubclass(found.exc_type, SystemExit) or found.exc_value is None:
        return
    logger.critical(
        "Uncaught exception in a thread",
        exc_info=(found.exc_type, found.exc_value, found.exc_traceback),
        extra={"ofThread": found.thread.name if found.thread else ""},
    )


def _log_unraisable(found: Any) -> None:
    logger.error(
        "Exception that nobody can catch",
        exc_info=(found.exc_type, found.exc_value, found.exc_traceback),
    )
