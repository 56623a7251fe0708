"""The outcome codes: why a device was left out, failed, or went back.

Pure: standard library alone.

Rules:
- A code is written once, here. Every set of codes below is a view of the table.
- A device may report codes of its own. One that uses a code which only the server
  issues is not taken at it: its report is kept under `device_...`.
- The next step is one sentence for the console, the API and the documentation alike;
  an outcome in which nothing is wrong has none. What a sentence tells to do is allowed:
  where it says "retry it", the way is named that the status of the deployment leaves
  open.
"""

import re
from dataclasses import dataclass
from enum import Flag, auto
from typing import Final, Literal


class Issuer(Flag):
    """Who uses a code, and of what."""

    LAUNCH = auto()
    """The server, of a device that a launch excludes."""
    SERVER = auto()
    """The server, of a target or an order."""
    DEVICE = auto()
    """The device, of its order."""


class CodeClass(Flag):
    """What follows from an outcome. A code may be of several classes."""

    BREACH = auto()
    """The device showed that the new image is bad on it: it goes back at once, and no
    other attempt is made."""
    IMAGE = auto()
    """The image is at fault, or may be: it counts towards its quarantine on the
    device."""
    FINAL = auto()
    """Image, order or device have to change before another attempt can help."""
    RETRIED = auto()
    """Another attempt may succeed, and is made while there are some left."""
    FETCH = auto()
    """The image has not reached the device, which is no fault of the image."""
    NEUTRAL = auto()
    """The device did not need the update or cannot take it: a target that ends so
    without an order is no evidence and is not counted by its stage."""
    UNSEEN = auto()
    """No order could be given in time. The target counts as one of its stage."""
    NO_RETURN = auto()
    """The device is not known to run its former image, and is not ordered back
    (again)."""
    OPERATOR = auto()
    """What an operator did to a device is no fault of it, nor of the image."""


@dataclass(frozen=True, slots=True)
class OutcomeCode:
    """One code.

    Attributes:
        name: as it is stored and on the wire; the words never change.
        message: what it means, of a device; said where nothing more precise is known.
        next_step: what people do about it; empty where nothing is wrong.
        level: of the line in the log when a target that had no order ends with it.
    """

    name: str
    issuers: Issuer
    classes: CodeClass
    message: str
    next_step: str = ""
    level: Literal["INFO", "WARNING", "ERROR"] = "ERROR"


L, S, D = Issuer.LAUNCH, Issuer.SERVER, Issuer.DEVICE
C = CodeClass
_NEW_VERSION = "correct the firmware and upload it under a new version."

_TABLE = (
    # No way back.
    OutcomeCode(
        "rollback_unconfirmed",
        S,
        C.NO_RETURN,
        "it has not proved its former image within an hour",
        "Visit the device or its console: it was ordered back and has not shown its "
        "former image. Nothing more is sent to it by this deployment.",
    ),
    OutcomeCode(
        "no_previous_image",
        S,
        C.NO_RETURN,
        "its former image is not on the server",
        "Upload the image that it ran before, approve it, and deploy it to this "
        "device: the server had nothing to send it back to.",
    ),
    OutcomeCode(
        "rollback_forbidden",
        S,
        C.NO_RETURN,
        "its former image has a lower security version than it has confirmed",
        "Deploy a corrected image of the same security version or a higher one: the "
        "device would refuse its former image.",
    ),
    # Breaches. The limits behind them are those of `health.triggers`.
    OutcomeCode(
        "offline",
        L | S,
        C.BREACH | C.IMAGE,
        "the device is offline",
        "Look at its power and network; it has not been heard from since its update.",
    ),
    OutcomeCode(
        "cpu",
        S,
        C.BREACH | C.IMAGE,
        "its CPU usage was over its limit for too long",
        "Look for what the new firmware computes, then correct it and upload it under "
        "a new version.",
    ),
    OutcomeCode(
        "memory",
        S,
        C.BREACH | C.IMAGE,
        "its memory usage was over its limit for too long",
        "Look for what the new firmware keeps in memory, then correct it and upload "
        "it under a new version.",
    ),
    OutcomeCode(
        "unhealthy",
        S,
        C.BREACH | C.IMAGE,
        "it did not stay healthy for the confirmation window",
        f"Read the health of the device since its update, then {_NEW_VERSION}",
    ),
    OutcomeCode(
        "error_rate",
        S,
        C.BREACH | C.IMAGE,
        "its error rate was over its limit for too long",
        f"Read the logs of its application, then {_NEW_VERSION}",
    ),
    OutcomeCode(
        "self_test_failed",
        D,
        C.FINAL | C.IMAGE,
        "the new image failed its self-test on the device",
        f"Read what its self-test said; it runs its former image. C{_NEW_VERSION[1:]}",
    ),
    OutcomeCode(
        "fell_back",
        S,
        C.BREACH | C.IMAGE,
        "it left the new image after it had proved it",
        "Find out why it left the new image, by the logs of the device, before it is "
        "tried again.",
    ),
    OutcomeCode(
        "device_fell_back",
        D,
        C.RETRIED | C.IMAGE,
        "its boot loader chose another image",
        "Find out why its boot loader chose another image, by the logs of the device, "
        "before it is tried again.",
    ),
    OutcomeCode(
        "not_proven",
        S,
        C.RETRIED | C.IMAGE,
        "it has not shown what it claims",
        "Compare what it claims with what its heartbeats show; retry it when they "
        "agree.",
    ),
    # Not in time.
    OutcomeCode(
        "timeout",
        S,
        C.RETRIED,
        "no claim before the deadline",
        "See whether it is online and how far it came; retry it, or `copy` the "
        "deployment with a longer `deviceTimeout`.",
    ),
    OutcomeCode(
        "never_seen",
        S,
        C.UNSEEN,
        "it was not seen before the offline deadline",
        "Bring it online, then deploy to it again: it was never offered the update.",
        level="WARNING",
    ),
    # The image did not get through, or not as it was signed. The agent names the
    # errors of the path in `devices/agent/protocol.py`; `download_failed` is what one
    # says that cannot tell why.
    OutcomeCode(
        "download_failed",
        D,
        C.RETRIED | C.FETCH,
        "the image could not be downloaded",
        "Look at its network and its path to this server, then retry it.",
    ),
    OutcomeCode(
        "path_unauthorized",
        D,
        C.RETRIED | C.FETCH,
        "something on the way to the image asks for a login",
        "Look at what stands between the device and the images, a proxy or a store "
        "that asks for a login, then retry it.",
    ),
    OutcomeCode(
        "path_not_found",
        D,
        C.RETRIED | C.FETCH,
        "the address of the image holds nothing",
        "Look at how proxies and `HOTSWAP_PUBLIC_URL` lead to the images, then retry "
        "it: the address that the device was given holds nothing.",
    ),
    OutcomeCode(
        "path_server_error",
        D,
        C.RETRIED | C.FETCH,
        "the store of the images failed",
        "Look at the store or proxy that hands out the images: it fails while the "
        "rest of the server answers. Then retry it.",
    ),
    OutcomeCode(
        "path_foreign_host",
        D,
        C.RETRIED | C.FETCH,
        "the address of the image names a host that does not serve the device",
        "Look at the address of the images (`HOTSWAP_PUBLIC_URL`, the store): it names "
        "a host that does not serve this device. Then retry it.",
    ),
    OutcomeCode(
        "path_not_firmware",
        D,
        C.RETRIED | C.FETCH,
        "something on the way answered in place of the image",
        "Look at its network: a proxy or portal on the way answers with something "
        "other than the image. Then retry it.",
    ),
    OutcomeCode(
        "device_storage_full",
        D,
        C.RETRIED,
        "the device has no room for the image",
        "Make room on the device, then retry it.",
    ),
    OutcomeCode(
        "image_not_kept",
        D,
        C.RETRIED,
        "it does not keep the image that it was ordered back to",
        "Look at its slots: its agent does not keep the image that it was ordered back "
        "to, or its bytes have changed. Upload that image, approve it, and deploy it.",
    ),
    OutcomeCode(
        "install_failed",
        D,
        C.RETRIED,
        "the image could not be installed",
        "Look at its storage and the hooks of its agent, then retry it.",
    ),
    OutcomeCode(
        "signature_invalid",
        D,
        C.FINAL,
        "what it received does not fit its signature",
        "Do not try it again. Verify the image on its page: what the device received "
        "does not fit its signature.",
    ),
    OutcomeCode(
        "checksum_mismatch",
        D,
        C.RETRIED | C.FETCH,
        "it received other bytes than were signed",
        "Look for what changes the bytes between this server and the device, then "
        "retry it.",
    ),
    OutcomeCode(
        "size_mismatch",
        D,
        C.FINAL,
        "it received another number of bytes than were ordered",
        "Verify the image on its page: the device received another number of bytes "
        "than were ordered.",
    ),
    # The device refused its order.
    OutcomeCode(
        "unknown_key",
        D,
        C.FINAL,
        "it does not know the signing key",
        "Bring the signing key to the device, then retry it.",
    ),
    OutcomeCode(
        "manifest_refused",
        D,
        C.FINAL,
        "it refused the manifest of its order",
        "Look at the clock and the keys of the device; it refused what it was ordered.",
    ),
    OutcomeCode(
        "wrong_model",
        L | S | D,
        C.FINAL | C.NEUTRAL,
        "the device is of another model",
        "Correct the model of the device, or deploy the image for its model.",
        level="INFO",
    ),
    OutcomeCode(
        "security_version_too_low",
        D,
        C.FINAL,
        "it has confirmed a higher security version than the image has",
        "Deploy an image of a higher security version: the device has confirmed one.",
    ),
    OutcomeCode(
        # The server has forgotten some, as after the restore of a backup. The device
        # is ordered anew first; see `sweeps.order_anew`.
        "sequence_replaced",
        D,
        C.FINAL,
        "it has accepted a newer manifest than that of its order",
        "Look at the clock of the database server: the device has accepted orders "
        "from a later time than it shows. Then retry it.",
    ),
    OutcomeCode(
        "device_state_unknown",
        D,
        C.RETRIED,
        "its agent cannot tell which image runs",
        "Look at the hook `current` of its agent: it does not say what runs.",
    ),
    # No order was given.
    OutcomeCode(
        "quarantined",
        L | S,
        C.NEUTRAL,
        "this firmware has failed on the device too often",
        "Look at its quarantine: release it when the image is known to be good, or "
        "deploy another one.",
        level="INFO",
    ),
    OutcomeCode(
        "disabled",
        L | S,
        C.NEUTRAL,
        "the device is disabled for updates",
        "Enable the device, then deploy to it again.",
        level="INFO",
    ),
    OutcomeCode(
        "unknown_timezone",
        S,
        C.UNSEEN,
        "its tag timezone names no time zone",
        "Correct its tag `timezone`, as in `Europe/Berlin`, then deploy to it again: "
        "nobody knew when its maintenance window was open.",
        level="WARNING",
    ),
    OutcomeCode(
        "secure_boot_required",
        L | S,
        C.NEUTRAL,
        "its model requires secure boot, and the device has not reported it as enabled",
        "Turn its secure boot on, then deploy to it again.",
        level="INFO",
    ),
    OutcomeCode(
        "security_version",
        L | S,
        C.NEUTRAL,
        "the device has proved a higher security version",
        "Deploy an image of a higher security version: the device has confirmed one.",
        level="INFO",
    ),
    # Nothing is wrong with these devices.
    OutcomeCode(
        "already_installed",
        L | S,
        C.NEUTRAL,
        "the device runs this image already",
        level="INFO",
    ),
    OutcomeCode(
        "moved_on",
        S,
        C.NEUTRAL,
        "the device has been updated since, by a later deployment or by other means",
        level="INFO",
    ),
    OutcomeCode(
        "erased",
        S,
        C.NEUTRAL,
        "the device was erased and takes no further part",
        level="INFO",
    ),
    OutcomeCode("returned_by_operator", S, C.OPERATOR, "an operator ordered it back"),
    OutcomeCode(
        "left_out_by_operator",
        S,
        C.OPERATOR | C.NEUTRAL,
        "an operator took it out before its order",
        level="INFO",
    ),
    OutcomeCode("revoked", L, C.NEUTRAL, "the device is revoked", level="INFO"),
    OutcomeCode(
        "busy",
        L,
        C.NEUTRAL,
        "another update of the device is in progress",
        level="INFO",
    ),
)
CODES: Final = {each.name: each for each in _TABLE}


def _of_class(classes: CodeClass) -> frozenset[str]:
    return frozenset(each.name for each in _TABLE if each.classes & classes)


def _issued_by(issuers: Issuer) -> frozenset[str]:
    return frozenset(each.name for each in _TABLE if each.issuers & issuers)


# The server's own verdicts on a target or an order: a device cannot pass them.
SERVER_CODES: Final = _issued_by(S) - _issued_by(D)
BREACHES: Final = _of_class(C.BREACH)
IMAGE_FAULTS: Final = _of_class(C.IMAGE)
FINAL_CODES: Final = _of_class(C.FINAL)
FETCH_ERRORS: Final = _of_class(C.FETCH)
NEUTRAL_CODES: Final = _of_class(C.NEUTRAL) & _issued_by(S)
NO_RETURN_CODES: Final = _of_class(C.NO_RETURN)
OPERATOR_CODES: Final = _of_class(C.OPERATOR)
# Those that statements and services name one by one.
UNCONFIRMED: Final = "rollback_unconfirmed"
NO_PREVIOUS_IMAGE: Final = "no_previous_image"
ROLLBACK_FORBIDDEN: Final = "rollback_forbidden"
SEQUENCE_REPLACED: Final = "sequence_replaced"
UNKNOWN_TIMEZONE: Final = "unknown_timezone"

AGAIN = re.compile(r"\bretry it\b")
RETRY = "retry it (`retry-failed`)"
RETRY_LATER = f"{RETRY} once it is back on its former image"
COPY = "`copy` the deployment for it"
OTHERWISE = (
    "Read its log on the page of the device, then retry it or deploy a corrected image."
)
NO_REASON = "the device gave no reason"


def message_of(code: str) -> str:
    """Say what a code means; of one that only its device knows, that it says nothing.

    Returns:
        The end of a sentence about the device, without a full stop.
    """
    return CODES[code].message if code in CODES else NO_REASON


def next_step(code: str, again: str = RETRY) -> str:
    """Return what to do about an outcome; nothing where nothing is wrong.

    Args:
        code: of the server or of a device; empty for no outcome.
        again: as `deployments.reads.devices.way_to_try_again` says it.
    """
    if not code:
        return ""
    step = CODES[code].next_step if code in CODES else OTHERWISE
    return AGAIN.sub(again, step)


def reported_code(code: str) -> str:
    """Return the code under which a failure that a device reported is kept."""
    if code in SERVER_CODES:
        return f"device_{code}"
    return code or "failed"
