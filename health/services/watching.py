"""Watching devices that were ordered to change what they run.

Whoever gives an order names its limits once; heartbeats are then judged as they
arrive, and a sweep judges silence.
"""

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from devices.exceptions import DeviceNotFoundError
from health.choices import Verdict
from health.evaluation import Limits, Sample
from health.models import DeviceState
from health.services.transitions import announce_changes
from health.triggers import OFFLINE, REQUIRED, TRIGGERS
from hotswap.common.rows import Columns, prepared_cursor
from hotswap.common.services import record_run

SWEEP_JOB = "health-sweep"
ATTENTIVE = timedelta(hours=1)
FRESH_BASELINE = timedelta(minutes=15)
CONTACT_RESOLUTION = timedelta(seconds=5)
# A device is expected to contact the server within so many of the intervals that it was
# told for each kind of contact.
HEARTBEATS_EXPECTED = 2.5
POLLS_EXPECTED = 3


def online_for(*, heartbeat: timedelta | None, poll: timedelta | None) -> timedelta:
    """Return for how long after a contact of any kind a device counts as online.

    Args:
        heartbeat, poll: the interval after which it was last told to send the next one;
            None of what it does not do, or has ceased to. The more frequent one counts.

    Source: FR-FW-005; docs/devices.md#health-and-baseline.
    """
    spans = [
        interval * count
        for interval, count in (
            (heartbeat, HEARTBEATS_EXPECTED),
            (poll, POLLS_EXPECTED),
        )
        if interval is not None
    ]
    return max(settings.ONLINE_FLOOR, min(spans, default=timedelta(0)))


def poll_interval(state: DeviceState, now: datetime) -> timedelta | None:
    """Return after what time a device is expected to poll, None if it does not poll."""
    interval = timedelta(seconds=state.poll_interval_seconds)
    if state.last_poll_at is None:
        return None
    if state.last_poll_at + online_for(heartbeat=None, poll=interval) <= now:
        return None
    return interval


# The same in SQL, over `s` (the state).
_FLOOR = "make_interval(secs => %(online_floor)s)"


def _expected(last_at: str, span: str) -> str:
    """Return a span, or NULL if a contact of the kind is overdue or was never made."""
    return f"CASE WHEN {last_at} + GREATEST({_FLOOR}, {span}) > %(now)s THEN {span} END"


def _online_until(*spans: str) -> str:
    # Both leave NULLs out.
    return f"(%(now)s + GREATEST({_FLOOR}, LEAST({', '.join(spans)})))"


_BY_HEARTBEATS = _expected(
    "s.last_heartbeat_at",
    f"s.interval_seconds * interval '{HEARTBEATS_EXPECTED} seconds'",
)
# Until when a device is online after a contact that is neither heartbeat nor poll.
ONLINE_UNTIL = _online_until(
    _BY_HEARTBEATS,
    _expected(
        "s.last_poll_at",
        f"s.poll_interval_seconds * interval '{POLLS_EXPECTED} seconds'",
    ),
)


def poll_changes(seconds: str) -> str:
    """Return the SET clause, over `s`, that notes a poll.

    Args:
        seconds: SQL of the interval after which the device is told to ask again.
    """
    until = _online_until(
        _BY_HEARTBEATS, f"{seconds} * interval '{POLLS_EXPECTED} seconds'"
    )
    return f"""SET last_seen_at = %(now)s, last_poll_at = %(now)s,
            poll_interval_seconds = {seconds}, online_until = {until}"""


# A contact is noted at most every five seconds, a poll also after another contact: how
# often a device polls is to be known.
IS_NEW_POLL = """(s.last_seen_at <= %(before)s
            OR s.last_poll_at IS NULL OR s.last_poll_at <= %(before)s)"""


@dataclass(frozen=True, slots=True)
class Watch:
    """What a device must keep to while it is watched.

    It has no end of its own: whoever gave the order ends it, or lets it run on until a
    given time (`watch_on`).
    """

    watch_id: UUID
    image_checksum: str
    limits: Limits
    offline_after: timedelta
    interval: timedelta


def limits_to_json(limits: Limits) -> dict[str, Any]:
    """Write limits as plain JSON (seconds)."""
    return limits.to_json() | {"exempt": sorted(limits.exempt)}


def limits_from_json(data: dict[str, Any]) -> Limits:
    """Read what `limits_to_json` wrote."""
    return replace(Limits.from_json(data), exempt=frozenset(data["exempt"]))


STATE = Columns(DeviceState, "s")
LOCKED_STATE = f"""
    SELECT {STATE.sql} FROM health_devicestate s WHERE s.device_id = %s
    FOR NO KEY UPDATE
"""  # noqa: S608
NEW_STATE_FIELDS = {
    str(field.column): field
    for field in DeviceState._meta.concrete_fields
    if field is not DeviceState._meta.pk
}
NEW_STATE = f"""
    INSERT INTO health_devicestate AS s (
        device_id, {", ".join(NEW_STATE_FIELDS)}
    )
    VALUES (%(device)s, {", ".join(f"%({column})s" for column in NEW_STATE_FIELDS)})
    ON CONFLICT DO NOTHING
"""  # noqa: S608
# Waits for an erasure of the device that is under way.
IS_NOT_ERASED = """
    SELECT FROM devices_device WHERE id = %s AND erased_at IS NULL FOR KEY SHARE
"""


def locked_state(device_id: UUID, now: datetime) -> DeviceState:
    """Return the state row of a device under its lock, made at the first contact.

    Raises:
        DeviceNotFoundError: the device was erased while it called.
    """
    with prepared_cursor() as cursor:
        cursor.execute(LOCKED_STATE, [device_id])
        row = cursor.fetchone()
        if row is None:
            cursor.execute(NEW_STATE, _new_state(device_id, now))
            cursor.execute(IS_NOT_ERASED, [device_id])
            if cursor.fetchone() is None:
                raise DeviceNotFoundError("the device is gone")
            cursor.execute(LOCKED_STATE, [device_id])
            row = cursor.fetchone()
    if row is None:
        raise DeviceNotFoundError("the device is gone")
    return STATE.take(iter(row))


def _new_state(device_id: UUID, now: datetime) -> dict[str, Any]:
    """Return the columns of the state of a device that was never heard before."""
    blank = DeviceState(
        device_id=device_id,
        last_seen_at=now,
        online_until=now + settings.ONLINE_FLOOR,
    )
    return {"device": device_id} | {
        column: field.get_db_prep_save(getattr(blank, field.attname), connection)
        for column, field in NEW_STATE_FIELDS.items()
    }


# Begins to watch a device, or begins anew with a clean slate. Whoever gives the order
# makes it a part of the statement that writes it, and has the state locked.
BEGIN_WATCH = f"""
    UPDATE health_devicestate
    SET watch_id = %(watch)s, watch_checksum = %(watch_checksum)s, watch_until = NULL,
        watch_interval_seconds = %(watch_interval_seconds)s, limits = %(limits)s,
        offline_after_seconds = %(offline_after_seconds)s, silence_counts_from = NULL,
        healthy_since = NULL, healthy_at = NULL, healthy_count = 0,
        {", ".join(f"{each.timer} = NULL" for each in TRIGGERS)},
        breach = '', breach_detail = '', breach_at = NULL,
        left_image_at = NULL, anomaly = '', announced_anomaly_at = NULL,
        attentive_until = NULL
    WHERE device_id = %(device)s
"""  # noqa: S608


def watch_values(*, device_id: UUID, watch: Watch) -> dict[str, Any]:
    """Return the values of `BEGIN_WATCH`."""
    return {
        "device": device_id,
        "watch": watch.watch_id,
        "watch_checksum": watch.image_checksum,
        "watch_interval_seconds": int(watch.interval.total_seconds()),
        "limits": json.dumps(limits_to_json(watch.limits)),
        "offline_after_seconds": int(watch.offline_after.total_seconds()),
    }


def fresh_sample(state: DeviceState, now: datetime) -> Sample | None:
    """Return the last heartbeat as a baseline check, if it is recent enough for one.

    Source: FR-FW-005, Pre-deployment: 1 baseline check.
    """
    if (
        state.last_heartbeat_at is None
        or now - state.last_heartbeat_at > FRESH_BASELINE
        or any(state.measured(each) is None for each in REQUIRED)
    ):
        return None
    return Sample(
        state.last_heartbeat_at,
        {each.name: state.measured(each) for each in TRIGGERS},
    )


def clean_slate(state: DeviceState) -> None:
    state.healthy_since = None
    state.healthy_at = None
    state.healthy_count = 0
    state.timers = {}
    state.breach = ""
    state.breach_detail = ""
    state.breach_at = None


# A device was heard with a report of its order; others make it a part of the statement
# that takes the report in. That it was heard is noted at most every five seconds.
RECORD_CONTACT = f"""
    UPDATE health_devicestate s
    SET last_seen_at = GREATEST(s.last_seen_at, %(now)s),
        online_until = GREATEST(s.online_until, {ONLINE_UNTIL}),
        silence_counts_from = CASE
            WHEN s.watch_id = %(watch)s AND (%(reboots)s OR %(claims)s) THEN %(now)s
            ELSE s.silence_counts_from END,
        healthy_since = CASE WHEN s.watch_id = %(watch)s AND %(claims)s
            THEN NULL ELSE s.healthy_since END,
        healthy_at = CASE WHEN s.watch_id = %(watch)s AND %(claims)s
            THEN NULL ELSE s.healthy_at END,
        healthy_count = CASE WHEN s.watch_id = %(watch)s AND %(claims)s
            THEN 0 ELSE s.healthy_count END
    WHERE s.device_id = %(device)s
      AND (%(reboots)s OR %(claims)s OR s.last_seen_at <= %(contact_before)s)
"""  # noqa: S608


def contact_values(
    *,
    device_id: UUID,
    watch_id: UUID,
    now: datetime,
    reboots: bool = False,
    claims: bool = False,
) -> dict[str, Any]:
    """Return the values of `RECORD_CONTACT`.

    Args:
        reboots: the device has said so; from now on silence counts.
        claims: the device has said that it is done. What was healthy so far is
            forgotten: only what follows is proof.
    """
    return {
        "device": device_id,
        "watch": watch_id,
        "now": now,
        "reboots": reboots,
        "claims": claims,
        "online_floor": settings.ONLINE_FLOOR.total_seconds(),
        "contact_before": now - CONTACT_RESOLUTION,
    }


def record_contact(**contact: Any) -> None:
    """Note what a device has said of its order; see `heard`."""
    with prepared_cursor() as cursor:
        cursor.execute(RECORD_CONTACT, contact_values(**contact))


def watch_on(
    *,
    watch_ids: Any,
    now: datetime,
    until: datetime | None,
    interval: timedelta,
    offline_after: timedelta,
) -> int:
    """Go on watching until a given time, at another pace.

    Args:
        watch_ids: ids, or a queryset of them.
        until: when nothing counts any more; None for as long as the order's deployment
            is open.
        interval: between the heartbeats that the devices are told to send.
        offline_after: of silence, after which a device counts as offline.

    Returns:
        How many devices are watched on.

    Source: FR-FW-005, Health Check Frequency.
    """
    return DeviceState.objects.filter(watch_id__in=watch_ids).update(
        watch_until=until,
        watch_interval_seconds=int(interval.total_seconds()),
        offline_after_seconds=int(offline_after.total_seconds()),
        attentive_until=None if until is None else now + ATTENTIVE,
    )


def unwatch(*, watch_ids: Any, now: datetime) -> None:
    """Stop watching; the devices stay attentive (a heartbeat a minute) for an hour.

    The hour of those that were watched on began when that did.

    Args:
        watch_ids: ids, or a queryset of them.
    """
    DeviceState.objects.filter(watch_id__in=watch_ids).update(
        watch_id=None,
        watch_until=None,
        limits=None,
        attentive_until=Coalesce("attentive_until", Value(now + ATTENTIVE)),
    )


def sweep(*, now: datetime) -> int:
    """Judge silence: mark watched devices that were not heard for too long.

    Then announce what has become of devices, watched or not.

    Silence is measured from the last sign of life, from the reboot, or from when the
    sweeps themselves came back after a gap, whichever is latest.

    Returns:
        How many devices were newly found to be offline.
    """
    restarted_at = record_run(name=SWEEP_JOB, now=now)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE health_devicestate SET
                breach = %(offline)s,
                breach_at = %(now)s,
                breach_detail = 'not heard for more than '
                    || offline_after_seconds || ' s',
                verdict = %(unknown)s,
                verdict_reason = 'offline',
                healthy_since = NULL,
                healthy_at = NULL,
                healthy_count = 0
            WHERE watch_id IS NOT NULL
              AND breach = ''
              AND (watch_until IS NULL OR watch_until > %(now)s)
              AND silence_counts_from IS NOT NULL
              AND GREATEST(last_seen_at, silence_counts_from, %(restarted)s)
                  + make_interval(secs => offline_after_seconds) < %(now)s
            """,
            {
                "offline": OFFLINE,
                "unknown": Verdict.UNKNOWN.value,
                "now": now,
                "restarted": restarted_at,
            },
        )
        count = cursor.rowcount
    announce_changes(now=now, restarted_at=restarted_at)
    return count


def sweep_now() -> int:
    """Judge silence by the server's clock."""
    return sweep(now=timezone.now())
