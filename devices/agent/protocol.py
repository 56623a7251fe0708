"""Translate between the wire (camelCase JSON) and the agent's own dataclasses.

Rules:
- Reading is strict about types and lenient about unknown keys, so that a newer
  server can say more.
- What cannot be read raises `ProtocolError`, which names the key.
- What goes into an address or a header is held to its characters: it is saved, and sent
  again after every restart.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

TRACEPARENT = re.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
SIGNATURE_ALGORITHM = "RSA-PKCS1v15-SHA256"
UPDATE_ID = re.compile("[A-Za-z0-9_-]{1,64}")
MAX_SECONDS = 1e9


def trace_id_of(traceparent: str) -> str:
    """Give the trace of a W3C context, "" of none."""
    return traceparent[3:35]


class ProtocolError(ValueError):
    """Something the server said does not follow the protocol."""


class Action(StrEnum):
    """What an order asks for."""

    INSTALL = "install"
    ROLLBACK = "rollback"


class Source(StrEnum):
    """Where the image of an order comes from."""

    DOWNLOAD = "download"
    SLOT = "slot"


class Status(StrEnum):
    """Words of a report, in the order an update goes through them."""

    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    INSTALLING = "installing"
    REBOOTING = "rebooting"
    CONFIRMING = "confirming"
    FAILED = "failed"


class ErrorCode(StrEnum):
    """Why an update failed, as the server counts it.

    Codes that begin with `path_` say that the bytes did not get through, not that
    anything is wrong with the image.
    """

    MANIFEST_REFUSED = "manifest_refused"
    WRONG_MODEL = "wrong_model"
    SECURITY_VERSION_TOO_LOW = "security_version_too_low"
    SEQUENCE_REPLACED = "sequence_replaced"
    UNKNOWN_KEY = "unknown_key"
    DOWNLOAD_FAILED = "download_failed"
    SIZE_MISMATCH = "size_mismatch"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    SIGNATURE_INVALID = "signature_invalid"
    INSTALL_FAILED = "install_failed"
    SELF_TEST_FAILED = "self_test_failed"
    DEVICE_STORAGE_FULL = "device_storage_full"
    DEVICE_STATE_UNKNOWN = "device_state_unknown"
    DEVICE_FELL_BACK = "device_fell_back"
    IMAGE_NOT_KEPT = "image_not_kept"
    PATH_UNAUTHORIZED = "path_unauthorized"
    PATH_NOT_FOUND = "path_not_found"
    PATH_SERVER_ERROR = "path_server_error"
    PATH_FOREIGN_HOST = "path_foreign_host"
    PATH_NOT_FIRMWARE = "path_not_firmware"


@dataclass(frozen=True, slots=True)
class FirmwareOffer:
    """The image that an order names.

    Of one in a slot only version, model and digest are said.
    """

    version: str
    model: str
    size_bytes: int
    sha256: str
    signature: str
    signature_algorithm: str
    key_id: str
    download_url: str


@dataclass(frozen=True, slots=True)
class Order:
    """One order to this device, as received."""

    update_id: str
    action: Action
    firmware: FirmwareOffer
    manifest: str
    manifest_signature: str
    reboot_required: bool
    traceparent: str = ""
    source: Source = Source.DOWNLOAD
    deployment_id: str = ""


@dataclass(frozen=True, slots=True)
class HeartbeatAnswer:
    """What the server answers to a heartbeat."""

    update_available: bool
    next_heartbeat_seconds: float | None


@dataclass(frozen=True, slots=True)
class PollAnswer:
    """What the server answers to a poll: an order, as JSON, or nothing."""

    instruction: Mapping[str, Any] | None
    poll_interval_seconds: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """One report of an update.

    Attributes:
        sequence: counts from 1 within the update.
        durations_seconds: of the steps that are over.
        spans_exported: whether a collector has taken the spans of this update; None
            where the device sends none.
    """

    sequence: int
    status: Status
    boot_id: str
    firmware_version: str
    firmware_checksum: str
    occurred_at: str
    progress_percentage: int | None = None
    error_code: ErrorCode | None = None
    message: str = ""
    durations_seconds: tuple[tuple[str, float], ...] = ()
    spans_exported: bool | None = None

    def to_wire(self) -> dict[str, Any]:
        """Give the JSON object of this report, without empty keys."""
        wire: dict[str, Any] = {
            "sequence": self.sequence,
            "status": self.status.value,
            "bootId": self.boot_id,
            "firmwareVersion": self.firmware_version,
            "firmwareChecksum": self.firmware_checksum,
            "occurredAt": self.occurred_at,
        }
        if self.progress_percentage is not None:
            wire["progressPercentage"] = self.progress_percentage
        if self.error_code is not None:
            wire["errorCode"] = self.error_code.value
        if self.message:
            wire["message"] = self.message[:500]
        if self.durations_seconds:
            wire["durations"] = dict(self.durations_seconds)
        if self.spans_exported is not None:
            wire["spansExported"] = self.spans_exported
        return wire


@dataclass(frozen=True, slots=True)
class EnrolmentAnswer:
    """What the server answers to an enrolment.

    `api_key` is "" while a person has yet to approve the device.
    """

    api_key: str
    retry_after_seconds: float | None


EnrolmentCall = Callable[[Mapping[str, Any]], EnrolmentAnswer]
"""Sends the JSON object of an enrolment."""


def parse_order(instruction: Mapping[str, Any]) -> Order:
    """Read the instruction of a poll.

    Raises:
        ProtocolError: a key is missing or has the wrong type.
    """
    firmware = _value(instruction, "firmware", dict)
    action = _value(instruction, "action", str)
    if action not in set(Action):
        raise ProtocolError(f"action: {action[:64]!r} is not known")
    source = _value({"source": Source.DOWNLOAD.value, **instruction}, "source", str)
    if source not in set(Source):
        raise ProtocolError(f"source: {source[:64]!r} is not known")
    traceparent = instruction.get("traceparent")
    return Order(
        update_id=_identifier(instruction, "updateId"),
        action=Action(action),
        firmware=_parse_offer(firmware, is_fetched=source != Source.SLOT),
        manifest=_value(instruction, "manifest", str),
        manifest_signature=_value(instruction, "manifestSignature", str),
        reboot_required=_value(instruction, "rebootRequired", bool),
        # It becomes a header: anything but the W3C form is left out.
        traceparent=traceparent
        if isinstance(traceparent, str) and TRACEPARENT.fullmatch(traceparent)
        else "",
        source=Source(source),
        deployment_id=_word(instruction.get("deploymentId")),
    )


def _word(value: object) -> str:
    """Give an id that decides nothing, "" unless it is of the usual characters."""
    is_word = isinstance(value, str) and UPDATE_ID.fullmatch(value)
    return str(value) if is_word else ""


def _parse_offer(firmware: Mapping[str, Any], *, is_fetched: bool) -> FirmwareOffer:
    version = _value(firmware, "version", str)
    model = _value(firmware, "model", str)
    sha256 = _value(firmware, "checksum", str)
    if not is_fetched:
        return FirmwareOffer(version, model, 0, sha256, "", "", "", "")
    return FirmwareOffer(
        version=version,
        model=model,
        size_bytes=_value(firmware, "size", int),
        sha256=sha256,
        signature=_value(firmware, "signature", str),
        signature_algorithm=_value(firmware, "signatureAlgorithm", str),
        key_id=_value(firmware, "keyId", str),
        download_url=_value(firmware, "downloadUrl", str),
    )


def order_to_wire(order: Order) -> dict[str, Any]:
    """Give the JSON object that `parse_order` reads back to the same order."""
    firmware = order.firmware
    return {
        "updateId": order.update_id,
        "action": order.action.value,
        "source": order.source.value,
        "firmware": {
            "version": firmware.version,
            "model": firmware.model,
            "size": firmware.size_bytes,
            "checksum": firmware.sha256,
            "signature": firmware.signature,
            "signatureAlgorithm": firmware.signature_algorithm,
            "keyId": firmware.key_id,
            "downloadUrl": firmware.download_url,
        },
        "manifest": order.manifest,
        "manifestSignature": order.manifest_signature,
        "rebootRequired": order.reboot_required,
        "traceparent": order.traceparent,
        "deploymentId": order.deployment_id,
    }


def parse_heartbeat_answer(answer: Mapping[str, Any]) -> HeartbeatAnswer:
    """Read the answer to a heartbeat."""
    return HeartbeatAnswer(
        update_available=answer.get("updateAvailable") is True,
        next_heartbeat_seconds=seconds_of(answer.get("nextHeartbeatSeconds")),
    )


def number(text: str | None, max_digits: int = 15) -> int | None:
    """Read a whole number of ASCII digits, None if it is none or has too many.

    `str.isdigit` alone lets digits of all scripts and superscripts through, and `int`
    fails at some of them and at thousands of digits.
    """
    if not text or len(text) > max_digits or not (text.isascii() and text.isdigit()):
        return None
    return int(text)


def seconds_of(value: object) -> float | None:
    """Read a number of seconds, None if it is none, below 0, or above 30 years."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    # Rejects nan as well, and compares before an integer of any length is converted.
    return float(value) if 0 <= value < MAX_SECONDS else None


def _value(source: Mapping[str, Any], key: str, kind: type) -> Any:
    value = source.get(key)
    # True is an int to Python, but not to JSON.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ProtocolError(f"{key}: {kind.__name__} expected")
    return value


def _identifier(source: Mapping[str, Any], key: str) -> str:
    value = str(_value(source, key, str))
    # It becomes part of an address.
    if not UPDATE_ID.fullmatch(value):
        raise ProtocolError(f"{key}: 1 to 64 of A-Z, a-z, 0-9, - and _ expected")
    return value
