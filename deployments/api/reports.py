"""What a device says about an order, read leniently.

`sequence` and `status` alone are required, and refused if they are wrong: without them
a report says nothing. Whatever else cannot be used is left out and named.
"""

import re
from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from deployments.choices import ReportStatus
from deployments.services.reports import DeviceReport
from health.api.serializers import ChecksumField, IgnoredOutput
from health.heartbeat import (
    MAX_BOOT_ID_LENGTH,
    MAX_VERSION_LENGTH,
    PERCENT_SLACK,
    read_boot_id,
    read_checksum,
)
from hotswap.common.api.lenient import Ignored, LenientReader, clean_text, named
from hotswap.common.api.serializers import (
    CamelSerializer,
    StrictCharField,
    StrictChoiceField,
    StrictFloatField,
    StrictIntegerField,
)

REQUIRED = ("sequence", "status")
MAX_SEQUENCE = 2**53
MAX_MESSAGE_LENGTH = 500
MAX_TIME_LENGTH = 64
MAX_DURATIONS = 16
MAX_DURATION_NAME_LENGTH = 32
ERROR_CODE = re.compile(r"^[a-z0-9_]{1,32}\Z")


class RequiredInput(CamelSerializer):
    """What a report must say."""

    sequence = StrictIntegerField(min_value=1, max_value=MAX_SEQUENCE)
    status = StrictChoiceField(choices=ReportStatus.choices)


class ReportInput(RequiredInput):
    """What a report may say; `read_report` reads it, more leniently."""

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


class ReportOutput(CamelSerializer):
    applied = serializers.BooleanField()
    ignored = IgnoredOutput(
        many=True, required=False, help_text="only if anything was left out"
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
    said = body
    if isinstance(body, Mapping):
        said = {name: body[name] for name in REQUIRED if name in body}
    required = RequiredInput(data=said)
    required.is_valid(raise_exception=True)
    reader = LenientReader(body)
    taken: dict[str, Any] = {
        "progressPercentage": reader.number(
            "progressPercentage", 0, 100, slack=PERCENT_SLACK
        ),
        "bootId": read_boot_id(reader),
        "firmwareVersion": reader.text("firmwareVersion", MAX_VERSION_LENGTH),
        "firmwareChecksum": read_checksum(reader, "firmwareChecksum"),
        "errorCode": _error_code(reader),
        "message": _message(reader),
        # By the device's own clock: whatever it is goes on record.
        "occurredAt": reader.text("occurredAt", MAX_TIME_LENGTH),
        "durations": _durations(reader),
    }
    reader.leave_out_unknown((*REQUIRED, *taken))
    report = DeviceReport(
        sequence=said["sequence"],
        status=ReportStatus(said["status"]),
        body=said
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
