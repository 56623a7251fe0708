"""Devices as a CSV file, which can be edited and imported again."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from devices.cells import map_cell, tags_cell
from devices.models import Device
from hotswap.common.csv_cells import MARK, csv_lines

COLUMNS = (
    *("deviceId", "model", "region", "enabled", "tags", "metadata"),
    *("firmwareVersion", "status", "lastSeenAt"),
)
BATCH = 2000


def export_devices(devices: Any, now: datetime) -> Iterator[bytes]:
    """Give out devices by name, in batches, whatever their number.

    Each batch is looked up when it is asked for: the file is no picture of one moment.

    Args:
        devices: those that are wanted, as a queryset.
    """
    yield MARK + csv_lines([COLUMNS])
    rows = (
        devices.select_related("model", "state")
        .only(
            *("device_id", "region", "enabled", "tags", "metadata"),
            *("firmware_version", "revoked_at", "model__name"),
            *("state__online_until", "state__last_seen_at"),
        )
        .order_by("device_id")
    )
    last = ""
    while batch := list(rows.filter(device_id__gt=last)[:BATCH]):
        yield csv_lines(row_of(device, now) for device in batch)
        last = batch[-1].device_id


def row_of(device: Device, now: datetime) -> tuple[str, ...]:
    """Return what the file says of a device, in the order of `COLUMNS`."""
    state = getattr(device, "state", None)
    return (
        device.device_id,
        device.model.name,
        device.region,
        "true" if device.enabled else "false",
        tags_cell(device.tags),
        map_cell(device.metadata),
        device.firmware_version,
        device.status_at(now).value,
        f"{state.last_seen_at:%Y-%m-%dT%H:%M:%SZ}" if state else "",
    )
