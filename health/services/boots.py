"""The boots of a device as its state remembers them, and heartbeats held back."""

import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from devices.models import Device
from health.boots import Boot, Boots, HeldBack, Place, Placement, place
from health.heartbeat import Heartbeat
from health.models import DeviceState, Reading
from health.services.watching import ONLINE_UNTIL
from health.triggers import TRIGGERS
from hotswap.common import audit
from hotswap.common.rows import prepared_cursor

logger = logging.getLogger(__name__)
# An alarm about two boards is not repeated while they have not been quiet for so long.
EPISODE = timedelta(hours=1)
HOLD_BACK = f"""
    UPDATE health_devicestate s
    SET last_seen_at = %(now)s, online_until = {ONLINE_UNTIL},
        held_back = %(held_back)s, duplicate_since = %(duplicate_since)s,
        duplicate_at = %(duplicate_at)s
    WHERE s.device_id = %(device)s
"""  # noqa: S608


def place_heartbeat(state: DeviceState, beat: Heartbeat, now: datetime) -> Placement:
    """Tell which boot of a device a heartbeat comes from."""
    return place(
        _boots(state, beat),
        boot_id=beat.boot_id,
        uptime=beat.uptime,
        sequence=beat.sequence,
        now=now,
    )


def remember_boots(state: DeviceState, placement: Placement) -> None:
    """Put into the state what is known of its boots after a heartbeat was taken."""
    boots = placement.boots
    assert boots.present is not None
    state.boot_started_at = boots.present.started_at
    state.heartbeat_sequence = boots.present.sequence
    if placement.place is Place.SAME:
        return
    state.boot_count += 1
    state.boot_id = boots.present.id
    state.past_boots = [
        [each.id, _seconds(each.started_at), _seconds(each.heard_at)]
        for each in boots.past
    ]
    state.held_back = _held_back_json(boots.held_back)


def hold_back(
    *,
    device: Device,
    state: DeviceState,
    beat: Heartbeat,
    placement: Placement,
    now: datetime,
) -> None:
    """Note the contact of a heartbeat that is held back; the caller holds the lock.

    Late mail whose own time is known goes into the history. Two boards under one
    identity raise an alarm, once an episode.
    """
    is_news = placement.is_duplicate and (
        state.duplicate_at is None or now - state.duplicate_at > EPISODE
    )
    if placement.is_duplicate:
        state.duplicate_at = now
    if is_news:
        state.duplicate_since = now
    with prepared_cursor() as cursor:
        cursor.execute(
            HOLD_BACK,
            {
                "device": state.device_id,
                "now": now,
                "online_floor": settings.ONLINE_FLOOR.total_seconds(),
                "held_back": json.dumps(_held_back_json(placement.boots.held_back)),
                "duplicate_since": state.duplicate_since,
                "duplicate_at": state.duplicate_at,
            },
        )
    if placement.sent_at is not None:
        Reading.objects.bulk_create(
            [
                Reading(
                    device_id=state.device_id,
                    at=placement.sent_at,
                    **{each.column: beat.measures.get(each.name) for each in TRIGGERS},
                    uptime_seconds=beat.uptime,
                    firmware_version=beat.firmware_version,
                    is_first_of_boot=False,
                    application_metrics=beat.application_metrics or None,
                )
            ],
            ignore_conflicts=True,
        )
    if is_news:
        _raise_alarm(device, now)


def _raise_alarm(device: Device, now: datetime) -> None:
    audit.record(
        actor=None,
        verb="device.duplicate-identity",
        object_kind="device",
        object_id=device.pk,
    )
    import_string(settings.DUPLICATE_IDENTITY_HOOK)(device=device, now=now)
    logger.warning(
        "Two boards have the identity of one device", extra={"device": str(device.pk)}
    )


def _boots(state: DeviceState, beat: Heartbeat) -> Boots:
    """Read what is remembered, as far as it matters to a heartbeat."""
    if state.last_heartbeat_at is None:
        return Boots()
    present = Boot(
        state.boot_id,
        state.boot_started_at,
        state.last_heartbeat_at,
        state.uptime_seconds,
        state.heartbeat_sequence,
    )
    if (
        beat.boot_id == state.boot_id
        and beat.sequence is None
        and beat.uptime is not None
        and state.uptime_seconds is not None
        and beat.uptime >= state.uptime_seconds
    ):
        # The usual one goes on with the present boot, whatever was before.
        return Boots(present)
    past = tuple(
        Boot(boot_id, _moment(started_at), _known(heard_at))
        for boot_id, started_at, heard_at in state.past_boots
    )
    if state.held_back is None:
        return Boots(present, past)
    boot_id, started_at, since, heard_at, uptime = state.held_back
    return Boots(
        present,
        past,
        HeldBack(boot_id, _moment(started_at), _known(since), _known(heard_at), uptime),
    )


def _held_back_json(held_back: HeldBack | None) -> list[Any] | None:
    if held_back is None:
        return None
    return [
        held_back.id,
        _seconds(held_back.started_at),
        _seconds(held_back.since),
        _seconds(held_back.heard_at),
        held_back.uptime,
    ]


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


def _known(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else _known(seconds)
