"""Files about devices to keep: sent while they are read, by the API and the console."""

from typing import Any

from django.http import StreamingHttpResponse
from django.utils import timezone

from devices.services import erasure, exporting
from hotswap.common import audit
from hotswap.common.json_pieces import json_file
from hotswap.common.models import User


def devices_file(
    devices: Any, *, actor: User, asked: dict[str, Any]
) -> StreamingHttpResponse:
    """Send devices as a CSV file, while they are read, and write down who got it.

    Args:
        asked: which devices, in the words of the request.
    """
    now = timezone.now()
    audit.record(
        actor=actor,
        verb="devices.exported",
        object_kind="device-list",
        object_id="export",
        details=asked,
    )
    return StreamingHttpResponse(
        exporting.export_devices(devices, now),
        content_type="text/csv; charset=utf-8",
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": (
                f'attachment; filename="devices-{now:%Y-%m-%d}.csv"'
            ),
        },
    )


def export_response(device_id: str) -> StreamingHttpResponse:
    """Send all that is held about a device, as a file, while it is read."""
    document = erasure.export_device(device_id=device_id)
    return json_file(document, f"device-{device_id}.json")
