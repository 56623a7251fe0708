"""What a heartbeat says, read leniently. Pure: no models, no clock.

Rules:
- What can be used is taken; what cannot is left out and named. One odd metric does not
  silence a device.
- A heartbeat is refused only if nothing tells what sent it: it names neither a boot,
  nor a version, nor the checksum of an image.
- Unknown is not healthy: one that does not say its image and every measure that it
  must (`health.triggers`), or says one that cannot be read, is a sign of life and no
  proof.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from health.choices import SecureBoot
from health.triggers import APPLICATION_METRICS, FIELDS, REQUIRED, TRIGGERS
from hotswap.common.lenient import Ignored, LenientReader, clean_text

MAX_APPLICATION_METRICS = 64
MAX_METRIC_NAME_LENGTH = 64
MAX_VERSION_LENGTH = 64
MAX_BOOT_ID_LENGTH = 64
MAX_UPTIME_SECONDS = 2**53
MAX_SEQUENCE = 2**53
# So far beyond its bounds a measure is an error of rounding, as a share of their reach.
SLACK = 0.01
MAX_NUMBER = sys.float_info.max
# Beyond it, floating point does not tell integers apart.
MAX_EXACT = 2**53
CHECKSUM = re.compile(r"^[0-9a-f]{64}\Z")
KNOWN_FIELDS = (
    *(trigger.field for trigger in FIELDS),
    *("uptime", "bootId", "sequence"),
    *("firmwareVersion", "firmwareChecksum", "applicationMetrics", "secureBoot"),
    "otherSlotChecksum",
)


class UnusableHeartbeatError(ValueError):
    """Nothing in a heartbeat tells what sent it."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a device says of itself. Measures in their own units, uptime in seconds.

    What it did not say, or not readably, is None or empty.

    Attributes:
        measures: the values of the rollback triggers that it did say, by their names.
        unreadable: those that it need not say, and did say unreadably.
    """

    measures: Mapping[str, float]
    uptime: int | None
    boot_id: str
    firmware_version: str
    firmware_checksum: str
    application_metrics: dict[str, float]
    secure_boot: str
    sequence: int | None = None
    unreadable: frozenset[str] = frozenset()
    # Said by the first heartbeat of a boot and at each change, else None.
    other_slot_checksum: str | None = None

    @property
    def missing(self) -> str:
        """Name what keeps it from being proof of health; empty if nothing does."""
        lacks = [
            name
            for name, is_missing in (
                *((each.label, each.name not in self.measures) for each in REQUIRED),
                ("image", not self.firmware_checksum),
                *((each.label, each.name in self.unreadable) for each in TRIGGERS),
            )
            if is_missing
        ]
        return " and ".join(lacks)


def read_heartbeat(body: Any) -> tuple[Heartbeat, list[Ignored]]:
    """Read the body of a heartbeat.

    Returns:
        The heartbeat, and what was left out of it.

    Raises:
        UnusableHeartbeatError: it is no object, or says neither `bootId` nor
            `firmwareVersion` nor `firmwareChecksum`.

    Source: FR-FW-005.
    """
    if not isinstance(body, Mapping):
        raise UnusableHeartbeatError("a heartbeat is a JSON object")
    reader = LenientReader(body)
    metrics = _metrics(reader)
    values = {
        each.name: reader.number(
            each.field, each.minimum, each.maximum, slack=SLACK * each.reach
        )
        for each in FIELDS
    }
    beat = Heartbeat(
        measures=known_measures(values, metrics),
        uptime=reader.integer("uptime", 0, MAX_UPTIME_SECONDS),
        boot_id=read_boot_id(reader),
        firmware_version=reader.text("firmwareVersion", MAX_VERSION_LENGTH),
        firmware_checksum=read_checksum(reader, "firmwareChecksum"),
        application_metrics=metrics,
        secure_boot=_secure_boot(reader),
        sequence=reader.integer("sequence", 0, MAX_SEQUENCE),
        unreadable=_unreadable(body, values, metrics),
        other_slot_checksum=_other_slot(reader),
    )
    reader.leave_out_unknown(KNOWN_FIELDS)
    if not (beat.boot_id or beat.firmware_version or beat.firmware_checksum):
        raise UnusableHeartbeatError(
            "it says neither bootId nor firmwareVersion nor firmwareChecksum"
        )
    return beat, reader.ignored


def read_boot_id(reader: LenientReader) -> str:
    """Read the id of a boot: a text, or the number of a counter."""
    value = reader.given.get("bootId")
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value < 10**MAX_BOOT_ID_LENGTH:
            return str(value)
        reader.leave_out("bootId", "out_of_range")
        return ""
    return reader.text("bootId", MAX_BOOT_ID_LENGTH, cut=False)


def read_checksum(reader: LenientReader, name: str) -> str:
    """Read a SHA-256 in hexadecimal digits."""
    value = reader.given.get(name)
    if isinstance(value, str):
        digits = clean_text(value).lower()
        if CHECKSUM.match(digits):
            return digits
    if name in reader.given:
        reader.leave_out(name, "null" if value is None else "invalid")
    return ""


def _other_slot(reader: LenientReader) -> str | None:
    value = reader.given.get("otherSlotChecksum")
    if value is None or value == "":
        return value
    return read_checksum(reader, "otherSlotChecksum") or None


def _secure_boot(reader: LenientReader) -> str:
    value = reader.given.get("secureBoot", SecureBoot.UNKNOWN.value)
    if isinstance(value, str) and value in SecureBoot.values:
        return value
    reader.leave_out("secureBoot", "null" if value is None else "invalid")
    return SecureBoot.UNKNOWN.value


def _as_given(number: Any, value: float) -> float:
    """Return a number that was read as the integer that it was given as, if exact."""
    is_exact = isinstance(number, int) and number == value and abs(number) <= MAX_EXACT
    return number if is_exact else value


def known_measures(
    values: Mapping[str, float | None], metrics: Mapping[str, float]
) -> dict[str, float]:
    """Return the values of the rollback triggers that a heartbeat says, by their names.

    Args:
        said: those of its own fields, by the names of the triggers.
        metrics: its application metrics, as they were read.
    """
    known = {name: value for name, value in values.items() if value is not None}
    for field, trigger in APPLICATION_METRICS.items():
        if field in metrics:
            known[trigger.name] = metrics[field]
    return known


def _unreadable(
    body: Mapping[str, Any],
    values: Mapping[str, float | None],
    metrics: Mapping[str, float],
) -> frozenset[str]:
    """Name the optional measures that a heartbeat says and that cannot be read."""
    given = body.get("applicationMetrics")
    of_application = given if isinstance(given, Mapping) else {}
    found = {
        each.name
        for each in FIELDS
        if each.is_optional
        and body.get(each.field) is not None
        and values[each.name] is None
    }
    found |= {
        each.name
        for field, each in APPLICATION_METRICS.items()
        if of_application.get(field) is not None and field not in metrics
    }
    return frozenset(found)


def _metrics(reader: LenientReader) -> dict[str, float]:
    """Read the application's metrics.

    Those that are judged come first; then the others by their names.
    """
    given = reader.given.get("applicationMetrics", {})
    if not isinstance(given, Mapping):
        code = "null" if given is None else "invalid"
        reader.leave_out("applicationMetrics", code)
        return {}
    inner = LenientReader(given, "/applicationMetrics", reader.ignored)
    metrics: dict[str, float] = {}
    for name in sorted(given, key=lambda name: (name not in APPLICATION_METRICS, name)):
        key = clean_text(name)
        if not 1 <= len(key) <= MAX_METRIC_NAME_LENGTH:
            inner.leave_out(name, "too_long" if key else "invalid")
        elif len(metrics) == MAX_APPLICATION_METRICS:
            inner.leave_out(name, "too_many")
        else:
            trigger = APPLICATION_METRICS.get(name)
            value = (
                inner.number(name, -MAX_NUMBER, MAX_NUMBER)
                if trigger is None
                else inner.number(
                    name, trigger.minimum, trigger.maximum, slack=SLACK * trigger.reach
                )
            )
            if value is not None:
                metrics[key] = _as_given(given[name], value)
    return metrics
