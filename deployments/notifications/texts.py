"""Notifications as people read them: in mails, and in short messages."""

import json
from collections.abc import Sequence
from typing import Any

from django.conf import settings

from deployments.rules.events import EventName
from hotswap.common.pluralize import counted

LABELS: dict[str, str] = {each.value: each.label for each in EventName}
# Where something is done about what belongs to no deployment and no firmware.
PAGES: dict[str, str] = {
    EventName.SIGNING_KEY_EXPIRING: "firmware/signingkey/",
    EventName.ENROLMENT_WAITING: "devices/enrolmentrequest/?status=Pending",
    EventName.KEY_EXPIRING: "devices/device/?key=expiring",
    EventName.CERTIFICATE_EXPIRING: "devices/device/?certificate=expiring",
    EventName.RETIRED_KEY_USED: "devices/device/?key=alarm",
}
SUBJECT_LENGTH = 200
# What is told in a short message, without the link: about two SMS with its title.
SHORT_LENGTH = 200
# Names of devices in a short message.
SHORT_NAMES = 3


def subject_of(*payloads: dict[str, Any]) -> str:
    """Say in one line what is told; of several events, the last."""
    last = payloads[-1]
    name = _name_of(last["data"])
    more = f" (and {len(payloads) - 1} more)" if len(payloads) > 1 else ""
    event = _event_in_words(last["type"])
    line = f"[HotSwap] {event}{more}{f': {name}' if name else ''}"
    return " ".join(line.split())[:SUBJECT_LENGTH]


def _event_in_words(name: str) -> str:
    """Return what an event is called for people; what is no event is a test."""
    return LABELS.get(name, "Test")


def _name_of(data: dict[str, Any]) -> str:
    if "deployment" in data:
        return str(data["deployment"]["name"])
    if "firmware" in data:
        return f"{data['firmware']['model']} {data['firmware']['version']}"
    return ""


def text_of(*payloads: dict[str, Any]) -> str:
    """Say all that is told, one thing a line.

    Several events are of one deployment, oldest first. How it stands is said once, as
    it stood at the last of them.
    """
    last = payloads[-1]["data"]
    lines = [last["message"]]
    if len(payloads) > 1:
        lines = [
            f"{each['timestamp']} {each['type']}: {each['data']['message']}"
            for each in payloads
        ]
    if "deployment" in last:
        lines += ["", *_about(last["deployment"])]
    if "firmware" in last:
        lines += ["", *_about_firmware(last["firmware"])]
    if "anchor" in last:
        # Whole, so that a mailbox is a place outside of the database as well.
        lines += ["", json.dumps(last["anchor"])]
    stages = [each["data"]["stage"] for each in payloads if "stage" in each["data"]]
    if stages:
        lines.append(f"Stage: {stages[-1]['number']} {stages[-1]['name']}")
    failures = [
        each["data"]["failures"] for each in payloads if "failures" in each["data"]
    ]
    if failures:
        lines += ["", *_about_failures(failures[-1])]
    for each in payloads:
        if "devices" in each["data"]:
            lines += ["", *_names(each["data"]["devices"], each["data"]["total"])]
    if page := _page_of(payloads[-1]):
        lines += ["", page]
    if len(payloads) == 1:
        lines += ["", f"{payloads[0]['type']} at {payloads[0]['timestamp']}"]
    return "\n".join([*lines, ""])


def short_of(payload: dict[str, Any]) -> str:
    """Say the sentence of a notification, which devices, and where to read on."""
    data = payload["data"]
    lines = [_cut(data["message"])]
    if "failures" in data:
        failures = data["failures"]
        reasons = ", ".join(_reason(row) for row in failures["reasons"])
        names = _in_short(failures["devices"], failures["total"])
        lines.append(_cut(f"{reasons}: {names}"))
    elif data.get("total", 0) > 1:
        lines.append(_cut(_in_short(data["devices"], data["total"])))
    if page := _page_of(payload):
        lines.append(page)
    return "\n".join(lines)


def _cut(text: str) -> str:
    sentence = " ".join(text.split())
    if len(sentence) > SHORT_LENGTH:
        return sentence[: SHORT_LENGTH - 1] + "…"
    return sentence


def _in_short(devices: Sequence[dict[str, Any]], total: int) -> str:
    names = [each["id"] for each in devices[:SHORT_NAMES]]
    more = total - len(names)
    return ", ".join(names) + (f" and {more:,} more" if more else "")


def _page_of(payload: dict[str, Any]) -> str:
    """Return the address of the page in the console; "" if it is not known."""
    if not settings.PUBLIC_URL:
        return ""
    base = str(settings.PUBLIC_URL).rstrip("/")
    data = payload["data"]
    if page := PAGES.get(payload["type"]):
        return f"{base}/admin/{page}"
    if "deployment" in data:
        return f"{base}/admin/deployments/deployment/{data['deployment']['id']}/change/"
    if "firmware" in data:
        return f"{base}/admin/firmware/firmware/{data['firmware']['id']}/change/"
    return ""


def _about(deployment: dict[str, Any]) -> list[str]:
    firmware = deployment["firmware"]
    return [
        f"Deployment: {deployment['name']} ({deployment['id']})",
        f"Status: {deployment['status']}",
        f"Strategy: {deployment['strategy']}",
        f"Firmware: {firmware['model']} {firmware['version']}",
    ]


def _about_firmware(firmware: dict[str, Any]) -> list[str]:
    lines = [
        f"Firmware: {firmware['model']} {firmware['version']} ({firmware['id']})",
        f"Status: {firmware['status']}",
        f"Uploaded by: {firmware['uploadedBy'] or 'the server'}",
        f"SHA-256: {firmware['checksum']}",
    ]
    if firmware["requestComment"]:
        lines += ["", "Note for the approver:", firmware["requestComment"]]
    if firmware["releaseNotes"]:
        lines += ["", "Release notes:", firmware["releaseNotes"]]
    return lines


def _about_failures(failures: dict[str, Any]) -> list[str]:
    more = failures["total"] - len(failures["devices"])
    return [
        f"Failed: {counted(failures['total'], 'device')}, "
        + ", ".join(_reason(row) for row in failures["reasons"]),
        *(f"{each['id']}: {each['errorCode']}" for each in failures["devices"]),
        *([f"and {more:,} more"] if more else []),
    ]


def _reason(row: dict[str, Any]) -> str:
    return f"{row['devices']:,} × {row['errorCode']}"


def _names(devices: Sequence[dict[str, Any]], total: int) -> list[str]:
    more = total - len(devices)
    return [
        *(each["id"] for each in devices),
        *([f"and {more:,} more"] if more else []),
    ]
