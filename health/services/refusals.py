"""Heartbeats that are refused: counted, shown, and no silence.

A device whose heartbeats cannot be used is heard all the same. What is refused is
counted from the last heartbeat that was taken on; the first of such a run is told to
the deployments app through the hook of the settings.
"""

import logging
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils.module_loading import import_string

from devices.models import Device
from health.metrics import HEARTBEATS_REFUSED
from health.models import DeviceState
from health.services.watching import ONLINE_UNTIL, locked_state
from hotswap.common.rows import prepared_cursor

logger = logging.getLogger(__name__)
MAX_REASON_LENGTH = 200
REFUSE = f"""
    UPDATE health_devicestate s
    SET refused_count = s.refused_count + 1, refused_at = %(now)s,
        refused_reason = %(reason)s, last_unreadable_at = %(now)s,
        last_seen_at = %(now)s,
        online_until = {ONLINE_UNTIL}
    WHERE s.device_id = %(device)s
"""  # noqa: S608


def note_refused_heartbeat(*, device: Device, reason: str, now: datetime) -> None:
    """Count a heartbeat that was refused, and note the contact."""
    HEARTBEATS_REFUSED.inc()
    reason = reason[:MAX_REASON_LENGTH]
    with transaction.atomic():
        state = locked_state(device.pk, now)
        with prepared_cursor() as cursor:
            cursor.execute(
                REFUSE,
                {
                    "device": device.pk,
                    "reason": reason,
                    "now": now,
                    "online_floor": settings.ONLINE_FLOOR.total_seconds(),
                },
            )
        if state.refused_count:
            return
        import_string(settings.HEARTBEAT_REFUSED_HOOK)(
            device=device, reason=reason, now=now
        )
    logger.warning(
        "Heartbeats of a device are refused",
        extra={"device": str(device.pk), "reason": reason},
    )


def refused_heartbeats(state: DeviceState | None) -> dict[str, Any] | None:
    """Return what was refused since the last heartbeat that was taken, if anything."""
    if state is None or not state.refused_count:
        return None
    return {
        "count": state.refused_count,
        "lastAt": state.refused_at,
        "reason": state.refused_reason,
    }
