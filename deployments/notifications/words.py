"""A notification as people read it: in mails, and in short messages."""

from typing import Any

from django.conf import settings

SUBJECT_LENGTH = 200
# What is told in a short message, without the link: about two SMS with its title.
SHORT_LENGTH = 200


def subject_of(payload: dict[str, Any]) -> str:
    """Say in one line what is told."""
    deployment = payload["data"].get("deployment")
    name = f": {deployment['name']}" if deployment else ""
    return " ".join(f"[HotSwap] {payload['type']}{name}".split())[:SUBJECT_LENGTH]


def text_of(payload: dict[str, Any]) -> str:
    """Say all that is told, one thing a line."""
    data = payload["data"]
    lines = [data["message"]]
    if "deployment" in data:
        lines += ["", *_about(data["deployment"])]
    if "stage" in data:
        lines.append(f"Stage: {data['stage']['number']} {data['stage']['name']}")
    if "devices" in data:
        lines += ["", *(each["id"] for each in data["devices"])]
        more = data["total"] - len(data["devices"])
        lines += [f"and {more} more"] if more else []
    if "deployment" in data and settings.PUBLIC_URL:
        lines += ["", _page_of(data["deployment"])]
    return "\n".join([*lines, "", f"{payload['type']} at {payload['timestamp']}", ""])


def short_of(payload: dict[str, Any]) -> str:
    """Say the sentence of a notification, and where to read on."""
    data = payload["data"]
    sentence = " ".join(data["message"].split())
    if len(sentence) > SHORT_LENGTH:
        sentence = sentence[: SHORT_LENGTH - 1] + "…"
    if "deployment" in data and settings.PUBLIC_URL:
        return f"{sentence}\n{_page_of(data['deployment'])}"
    return sentence


def _page_of(deployment: dict[str, Any]) -> str:
    page = f"/admin/deployments/deployment/{deployment['id']}/change/"
    return str(settings.PUBLIC_URL).rstrip("/") + page


def _about(deployment: dict[str, Any]) -> list[str]:
    firmware = deployment["firmware"]
    return [
        f"Deployment: {deployment['name']} ({deployment['id']})",
        f"Status: {deployment['status']}",
        f"Strategy: {deployment['strategy']}",
        f"Firmware: {firmware['model']} {firmware['version']}",
    ]
