"""How far a firmware has come in the fleet of its model, and how quickly."""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlencode

from django.db import connection

from firmware.models import Firmware

SHARES: Final = (50, 95, 99)
COUNTS: Final = """
    SELECT count(*), count(*) FILTER (WHERE firmware_checksum = %s)
    FROM devices_device WHERE model_id = %s AND erased_at IS NULL
"""
# When each device first reported to run the bytes; the n-th of these times.
REACHED: Final = """
    SELECT place, first FROM (
        SELECT min(r.since) AS first,
               row_number() OVER (ORDER BY min(r.since)) AS place
        FROM devices_firmwarerun r
        JOIN devices_device d ON d.id = r.device_id
        WHERE r.checksum = %s AND d.model_id = %s AND d.erased_at IS NULL
        GROUP BY r.device_id
    ) AS firsts WHERE place = ANY(%s)
"""


@dataclass(frozen=True, slots=True)
class Reach:
    """When so many percent of the fleet had run a firmware.

    `at` is null as long as fewer devices have. Seconds count from the approval; 0 where
    the devices ran it before.
    """

    percent: int
    devices: int
    at: datetime | None
    seconds_from_approval: float | None


@dataclass(frozen=True, slots=True)
class Exposure:
    """Devices that run a firmware by their last report, of all that there are of its
    model now; `devices_url` lists them, `export_url` gives them as CSV.
    """

    devices: int
    model_devices: int
    percent: float | None
    approved_at: datetime | None
    reached: tuple[Reach, ...]
    devices_url: str
    export_url: str


def firmware_exposure(firmware: Firmware) -> Exposure:
    """Return who runs a firmware, and how long 50, 95 and 99 % of the fleet took.

    The fleet is what there is of the model now. Reads what is known of the past of
    every device of the model.
    """
    query = urlencode(
        {"model": firmware.model.name, "firmwareChecksum": firmware.sha256}
    )
    with connection.cursor() as cursor:
        cursor.execute(COUNTS, [firmware.sha256, firmware.model_id])
        total, running = cursor.fetchone()
        needed = {share: math.ceil(share * total / 100) for share in SHARES}
        cursor.execute(
            REACHED, [firmware.sha256, firmware.model_id, list(needed.values())]
        )
        times: dict[int, datetime] = dict(cursor.fetchall())
    return Exposure(
        devices=running,
        model_devices=total,
        # Rounded down: 100 % is said of nothing that lacks a device.
        percent=math.floor(10_000 * running / total) / 100 if total else None,
        approved_at=firmware.approved_at,
        reached=tuple(
            _reach(share, devices, times.get(devices), firmware.approved_at)
            for share, devices in needed.items()
        ),
        devices_url=f"/api/v1/devices?{query}",
        export_url=f"/api/v1/devices/export?{query}",
    )


def _reach(
    percent: int, devices: int, at: datetime | None, approved_at: datetime | None
) -> Reach:
    seconds = None
    if at is not None and approved_at is not None:
        seconds = max(0.0, round((at - approved_at).total_seconds(), 1))
    return Reach(percent, devices, at, seconds)
