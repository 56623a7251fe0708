"""A notification as people read it: in mails, and in short messages."""

from typing import Any

from django.conf import settings

SUBJECT_LENGTH = 200


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
        page = f"/admin/deployments/deployment/{data['deployment']['id']}/change/"
        lines += ["", settings.PUBLIC_URL.rstrip("/") + page]
    return "\n".join([*lines, "", f"{payload['type']} at {payload['timestamp']}", ""])


def _about(deployment: dict[str, Any]) -> list[str]:
    firmware = deployment["firmware"]
    return [
        f"Deployment: {deployment['name']} ({deployment['id']})",
        f"Status: {deployment['status']}",
        f"Strategy: {deployment['strategy']}",
        f"Firmware: {firmware['model']} {firmware['version']}",
    ]
