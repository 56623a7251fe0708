"""What a line of the log is: its keys, and what never gets into it."""

import json
import logging
import secrets
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from django.db import IntegrityError, transaction

from hotswap.common.logs import ClientFaultFilter, JSONFormatter, PlainFormatter
from hotswap.common.models import User
from tests.callers import PersonCaller
from tests.common.factories import PersonFactory
from tests.live import PROJECT_DIR, clean_environment


def line_of(record: logging.LogRecord) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(JSONFormatter().format(record))
    return line


def record_of(message: str, **extra: Any) -> logging.LogRecord:
    record = logging.LogRecord("some.name", logging.WARNING, "", 0, message, (), None)
    vars(record).update(extra)
    return record


@pytest.fixture(autouse=True)
def no_context() -> Iterator[None]:
    structlog.contextvars.clear_contextvars()
    yield
    structlog.contextvars.clear_contextvars()


def test_a_line_begins_with_the_keys_of_the_specification() -> None:
    with structlog.contextvars.bound_contextvars(request_id="r-1", device_id="d-1"):
        line = line_of(record_of("Something happened", deploymentId="x", odd_one=3))

    assert list(line)[:5] == ["timestamp", "level", "message", "logger", "requestId"]
    assert (line["level"], line["message"]) == ("WARNING", "Something happened")
    assert line["timestamp"].endswith("Z")
    assert (line["deviceId"], line["deploymentId"], line["oddOne"]) == ("d-1", "x", 3)


def test_what_varies_takes_no_key_of_the_line() -> None:
    line = line_of(record_of("Message", event="an event", level="x", timestamp=1))

    assert (line["message"], line["event"]) == ("Message", "an event")
    assert line["level"] == "WARNING"


def test_lines_on_a_terminal_are_plain() -> None:
    line = PlainFormatter().format(record_of("Message", deploymentId="x"))

    assert "Message" in line
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(line)


@pytest.mark.django_db
def test_the_values_of_a_refused_row_stay_out(caplog: pytest.LogCaptureFixture) -> None:
    # Made up, so that no line of this source has it.
    name = secrets.token_hex(8)
    PersonFactory.create(username=name)
    try:
        with transaction.atomic():
            User.objects.create_user(name)
    except IntegrityError:
        logging.getLogger("x").exception("Refused")

    (line,) = [line_of(each) for each in caplog.records]
    assert "IntegrityError" in line["exception"]
    assert name not in json.dumps(line)


def test_a_refusal_is_one_line_with_the_trace_of_its_problem(
    operator: PersonCaller, caplog: pytest.LogCaptureFixture
) -> None:
    problem = operator.get("/devices/none?search=secret").json()

    records = [each for each in caplog.records if ClientFaultFilter().filter(each)]
    (line,) = [line_of(each) for each in records]
    assert line["level"] == "WARNING"
    assert line["traceId"] == problem["traceId"]
    assert line["userId"] == str(operator.person.pseudonym)
    assert len(line["requestId"]) == 36
    assert (line["code"], line["request"]) == (400, "GET /api/v1/devices/none")


PROGRAM = """
import sys, threading, warnings
import django
django.setup()
from hotswap.common.logs import log_everything
log_everything()
warnings.warn("something is old")
thread = threading.Thread(target=lambda: 1 / 0, name="a thread")
thread.start()
thread.join()
raise ValueError("nobody catches it")
"""


def test_warnings_and_uncaught_exceptions_are_lines() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=PROJECT_DIR,
        env={
            **clean_environment(),
            "DJANGO_SETTINGS_MODULE": "hotswap.settings.test",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["WARNING", "CRITICAL", "CRITICAL"]
    assert "something is old" in lines[0]["message"]
    assert "ZeroDivisionError" in lines[1]["exception"]
    assert "nobody catches it" in lines[2]["exception"]
    assert not done.stdout
