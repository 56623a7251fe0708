"""What devices say: heartbeats and reports.

Rules:
- A report is read leniently: `sequence` and `status` alone are required, and refused
  if they are wrong, as without them it says nothing. Whatever else cannot be used is
  left out and named. Heartbeats are read so by `health.heartbeat`.
- The fast path takes only what is right in every field (`read_plain_...`). It means
  the same to both: a test draws bodies and compares.
- Both are frozen dataclasses filled by hand. A decoder such as msgspec's refuses a
  whole message for one bad field, and takes duplicate keys without a word.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from rest_framework import serializers

from deployments.choices import ReportStatus
from deployments.services.reports import DeviceReport
from health.api.serializers import ChecksumField, IgnoredOutput
from health.choices import SecureBoot
from health.heartbeat import (
    CHECKSUM,
    MAX_BOOT_ID_LENGTH,
    MAX_VERSION_LENGTH,
    SLACK,
    Heartbeat,
    known_measures,
    read_boot_id,
    read_checksum,
)
from health.triggers import APPLICATION_METRICS, FIELDS
from hotswap.common.api.serializers import (
    CamelSerializer,
    StrictCharField,
    StrictChoiceField,
    StrictFloatField,
    StrictIntegerField,
)
from hotswap.common.lenient import Ignored, LenientReader, clean_text, named

REQUIRED = ("sequence", "status")
MAX_SEQUENCE = 2**53
MAX_MESSAGE_LENGTH = 500
MAX_TIME_LENGTH = 64
MAX_DURATIONS = 16
MAX_DURATION_NAME_LENGTH = 32
ERROR_CODE = re.compile(r"^[a-z0-9_]{1,32}\Z")
# What the fast path reads.
MAX_METRICS = 64
MAX_EXACT = 2**53
MEASURES = {each.field: each for each in FIELDS}
NUMBERS = frozenset(
    {"uptime", *(each.field for each in FIELDS if not each.is_optional)}
)
TEXTS = frozenset({"bootId", "firmwareVersion", "firmwareChecksum"})
OTHERS = MEASURES.keys() | {"applicationMetrics", "secureBoot", "otherSlotChecksum"}
NUMERIC = NUMBERS | MEASURES.keys()
REPORTED = frozenset({"sequence", "status"})
# By the device's own clock, so whatever it is goes on record and decides nothing.
MAY_BE_REPORTED = REPORTED | {"progressPercentage", "occurredAt"} | TEXTS


class RequiredInput(CamelSerializer):
    """What a report must say."""

    sequence = StrictIntegerField(min_value=1, max_value=MAX_SEQUENCE)
    status = StrictChoiceField(choices=ReportStatus.choices)


class ReportInput(RequiredInput):
    """What a report may say; `read_report` reads it, more leniently."""

    takes_unknown = True

    progress_percentage = StrictFloatField(min_value=0, max_value=100, required=False)
    boot_id = StrictCharField(max_length=MAX_BOOT_ID_LENGTH, required=False)
    firmware_version = StrictCharField(max_length=MAX_VERSION_LENGTH, required=False)
    firmware_checksum = ChecksumField(required=False)
    error_code = serializers.RegexField(ERROR_CODE, required=False)
    message = StrictCharField(
        max_length=MAX_MESSAGE_LENGTH, required=False, allow_blank=True
    )
    occurred_at = serializers.DateTimeField(required=False)
    durations = serializers.DictField(
        child=StrictFloatField(min_value=0), required=False
    )
    spans_exported = serializers.BooleanField(
        required=False,
        help_text="whether a collector has taken the spans of the device's own work",
    )


class ReportOutput(CamelSerializer):
    applied = serializers.BooleanField()
    ignored = IgnoredOutput(
        many=True, required=False, help_text="only if anything was ignored"
    )


def report_output(applied: bool, ignored: list[Ignored]) -> dict[str, Any]:
    """Answer a report; what went as it should is not mentioned."""
    shown: dict[str, Any] = {"applied": applied}
    if ignored:
        shown["ignored"] = named(ignored)
    return shown


def read_report(body: Any) -> tuple[DeviceReport, list[Ignored]]:
    """Read the body of a report.

    Returns:
        The report, which holds what was taken of the body, and what was left out.

    Raises:
        ValidationError: it is no object, or `sequence` or `status` cannot be used.

    Source: FR-FW-004, step 8.
    """
    given = body
    if isinstance(body, Mapping):
        given = {name: body[name] for name in REQUIRED if name in body}
    required = RequiredInput(data=given)
    required.is_valid(raise_exception=True)
    reader = LenientReader(body)
    taken: dict[str, Any] = {
        "progressPercentage": reader.number(
            "progressPercentage", 0, 100, slack=100 * SLACK
        ),
        "bootId": read_boot_id(reader),
        "firmwareVersion": reader.text("firmwareVersion", MAX_VERSION_LENGTH),
        "firmwareChecksum": read_checksum(reader, "firmwareChecksum"),
        "errorCode": _error_code(reader),
        "message": _message(reader),
        # By the device's own clock: whatever it is goes on record.
        "occurredAt": reader.text("occurredAt", MAX_TIME_LENGTH),
        "durations": _durations(reader),
        "spansExported": _spans_exported(reader),
    }
    reader.leave_out_unknown((*REQUIRED, *taken))
    report = DeviceReport(
        sequence=given["sequence"],
        status=ReportStatus(given["status"]),
        body=given
        | {name: value for name, value in taken.items() if value not in (None, "")},
        progress_percent=taken["progressPercentage"],
        boot_id=taken["bootId"],
        error_code=taken["errorCode"],
        message=taken["message"],
        durations=taken["durations"],
    )
    return report, reader.ignored


def _error_code(reader: LenientReader) -> str:
    value = reader.given.get("errorCode", "")
    if isinstance(value, str) and (not value or ERROR_CODE.match(value)):
        return value
    reader.leave_out("errorCode", "null" if value is None else "invalid")
    return ""


def _message(reader: LenientReader) -> str:
    """Read the words for people, of as many lines as there are."""
    value = reader.given.get("message", "")
    if not isinstance(value, str):
        reader.leave_out("message", "null" if value is None else "invalid")
        return ""
    text = value.strip()
    if len(text) > MAX_MESSAGE_LENGTH:
        reader.leave_out("message", "too_long")
    return text[:MAX_MESSAGE_LENGTH]


def _spans_exported(reader: LenientReader) -> bool | None:
    value = reader.given.get("spansExported")
    if value is None or isinstance(value, bool):
        if "spansExported" in reader.given and value is None:
            reader.leave_out("spansExported", "null")
        return value
    reader.leave_out("spansExported", "invalid")
    return None


def _durations(reader: LenientReader) -> dict[str, float] | None:
    """Read the durations by their names, in seconds, the first sixteen of them."""
    given = reader.given.get("durations")
    if not isinstance(given, Mapping):
        if "durations" in reader.given:
            reader.leave_out("durations", "null" if given is None else "invalid")
        return None
    inner = LenientReader(given, "/durations", reader.ignored)
    durations: dict[str, float] = {}
    for name in sorted(given):
        key = clean_text(name)
        if not 1 <= len(key) <= MAX_DURATION_NAME_LENGTH:
            inner.leave_out(name, "too_long" if key else "invalid")
        elif len(durations) == MAX_DURATIONS:
            inner.leave_out(name, "too_many")
        else:
            seconds = inner.number(name, 0)
            if seconds is not None:
                durations[key] = seconds
    return durations


def read_plain_heartbeat(given: dict[str, Any] | None) -> Heartbeat | None:
    """Read a heartbeat that is right in every field; None where anything is odd.

    What it reads, `health.heartbeat.read_heartbeat` reads the same.
    """
    if given is None or not (
        NUMBERS | TEXTS <= given.keys() <= NUMBERS | TEXTS | OTHERS
    ):
        return None
    metrics = given.get("applicationMetrics", {})
    secure_boot = given.get("secureBoot", SecureBoot.UNKNOWN.value)
    other_slot = given.get("otherSlotChecksum")
    if (
        not all(_is_number(given[key]) for key in given.keys() & NUMERIC)
        or not _are_right(given)
        or not all(
            MEASURES[key].minimum <= given[key] <= MEASURES[key].maximum
            for key in given.keys() & MEASURES.keys()
        )
        or not isinstance(given["uptime"], int)
        or not 0 <= given["uptime"] <= MAX_EXACT
        or not isinstance(secure_boot, str)
        or secure_boot not in SecureBoot.values
        or not _is_slot(other_slot)
        or not isinstance(metrics, dict)
        or len(metrics) > MAX_METRICS
        or not all(_is_plain(key) for key in metrics)
        or not all(_is_number(value) for value in metrics.values())
        or not all(
            each.minimum <= metrics[key] <= each.maximum
            for key, each in APPLICATION_METRICS.items()
            if key in metrics
        )
    ):
        return None
    values = {
        each.name: float(given[key]) for key, each in MEASURES.items() if key in given
    }
    return Heartbeat(
        measures=known_measures(values, metrics),
        uptime=given["uptime"],
        boot_id=given["bootId"],
        firmware_version=given["firmwareVersion"],
        firmware_checksum=given["firmwareChecksum"],
        application_metrics=metrics,
        secure_boot=secure_boot,
        other_slot_checksum=other_slot,
    )


def read_plain_report(given: dict[str, Any] | None) -> DeviceReport | None:
    """Read a report of progress with plain fields; None for whatever else there is.

    What it reads, `read_report` reads the same.
    """
    if given is None or not REPORTED <= given.keys() <= MAY_BE_REPORTED:
        return None
    sequence, status = given["sequence"], given["status"]
    progress = given.get("progressPercentage", 0)
    occurred_at = given.get("occurredAt", "unsaid")
    if (
        isinstance(sequence, bool)
        or not isinstance(sequence, int)
        or not 1 <= sequence <= MAX_EXACT
        or not isinstance(status, str)
        or status not in ReportStatus.values
        or status == ReportStatus.FAILED
        or not _is_number(progress)
        or not 0 <= progress <= 100
        or not isinstance(occurred_at, str)
        or not _is_plain(occurred_at)
        or not _are_right(given)
    ):
        return None
    return DeviceReport(
        sequence=sequence,
        status=ReportStatus(status),
        body=given,
        progress_percent=float(progress) if "progressPercentage" in given else None,
        boot_id=given.get("bootId", ""),
    )


def _are_right(given: dict[str, Any]) -> bool:
    """Tell whether boot, checksum and version have their forms, if given."""
    texts = [given[key] for key in TEXTS & given.keys()]
    if not all(isinstance(text, str) for text in texts):
        return False
    boot, checksum = given.get("bootId"), given.get("firmwareChecksum")
    if boot is not None and not _is_plain(boot):
        return False
    if checksum is not None and not CHECKSUM.match(checksum):
        return False
    return "firmwareVersion" not in given or _is_plain(given["firmwareVersion"])


@lru_cache(maxsize=1000)
def _is_plain(text: str) -> bool:
    """Tell whether a text is stored as it is."""
    return 0 < len(text) <= MAX_VERSION_LENGTH and clean_text(text) == text


def _is_slot(value: Any) -> bool:
    """Tell whether a value is a checksum, or says that there is none or nothing."""
    is_text = isinstance(value, str)
    return value is None or (is_text and (not value or bool(CHECKSUM.match(value))))


def _is_number(value: Any) -> bool:
    """Tell whether a value is a number that a float holds exactly enough."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) <= MAX_EXACT
