"""Taking in heartbeats (FR-FW-005)."""

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils.module_loading import import_string

from devices.models import Device
from devices.services.registry import record_running_firmware
from health.baseline import RunningStatistics
from health.boots import Place, Placement
from health.choices import Verdict
from health.evaluation import Limits, Sample, judge
from health.exceptions import HeartbeatRefusedError
from health.heartbeat import Heartbeat, UnusableHeartbeatError, read_heartbeat
from health.metrics import FIELDS_IGNORED
from health.models import DeviceState
from health.score import describe_anomalies
from health.services.boots import hold_back, place_heartbeat, remember_boots
from health.services.refusals import refused_heartbeats
from health.services.watching import (
    CONTACT_RESOLUTION,
    IS_NEW_POLL,
    clean_slate,
    limits_from_json,
    locked_state,
    online_for,
    poll_changes,
    poll_interval,
)
from health.triggers import FIELDS, REQUIRED, TRIGGERS
from hotswap.common.early_ticks import ask_for_tick_on_commit
from hotswap.common.lenient import Ignored
from hotswap.common.rows import prepared_cursor

REFUSED = "its heartbeats are refused"
MAX_ANOMALY = 200

# Judges a device that nobody watches: the defaults of the specification.
DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class HeartbeatAnswer:
    """What a device is told.

    Attributes:
        applied: its heartbeat is what the server now shows of it.
        ignored: what was left out of its heartbeat.
    """

    update_available: bool
    next_heartbeat_seconds: int
    applied: bool = True
    ignored: tuple[Ignored, ...] = ()


def take_in_heartbeat(*, device: Device, body: Any, now: datetime) -> HeartbeatAnswer:
    """Read the body of a heartbeat leniently, and store what can be used of it.

    Raises:
        HeartbeatRefusedError: nothing can (400).
    """
    try:
        beat, ignored = read_heartbeat(body)
    except UnusableHeartbeatError as error:
        raise HeartbeatRefusedError(str(error)) from None
    answer = record_heartbeat(device=device, beat=beat, now=now)
    for each in ignored:
        FIELDS_IGNORED.labels(each.code).inc()
    return replace(answer, ignored=tuple(ignored))


def record_heartbeat(
    *, device: Device, beat: Heartbeat, now: datetime
) -> HeartbeatAnswer:
    """Store a heartbeat, judge it, and say when the next one is due.

    One that does not come from the boot in which the device is, as far as can be told,
    is a contact and changes nothing else; the answer says so (`health.boots`).
    """
    with transaction.atomic():
        state = locked_state(device.pk, now)
        available, is_deploying = import_string(settings.UPDATE_AVAILABLE_HOOK)(
            device=device, now=now
        )
        interval = _interval(state, is_deploying, now)
        answer = HeartbeatAnswer(available, int(interval.total_seconds()))
        placement = place_heartbeat(state, beat, now)
        if placement.place is Place.HELD_BACK:
            hold_back(
                device=device, state=state, beat=beat, placement=placement, now=now
            )
            return replace(answer, applied=False)
        is_first_of_boot = placement.place is Place.NEW
        _apply(state, beat, placement, interval, now)
        _store(_STORE, _ANEW, state, is_first_of_boot=is_first_of_boot)
        if _may_decide(state, now, has_order=is_deploying):
            ask_for_tick_on_commit()
        # Without a checksum it is not known what it runs, only what it is called; that
        # is worth as much as what a person said at the registration, and no more.
        if beat.firmware_checksum or not device.firmware_checksum:
            record_running_firmware(
                device=device,
                version=state.firmware_version,
                checksum=state.firmware_checksum,
                now=now,
            )
    return answer


# What a heartbeat of the same boot and image may change.
_CHANGED = (
    *("last_seen_at", "online_until", "last_heartbeat_at", "interval_seconds"),
    *("uptime_seconds", "application_metrics", "secure_boot"),
    *(each.column for each in TRIGGERS),
    *(each.timer for each in TRIGGERS),
    *("healthy_since", "healthy_at", "healthy_count"),
    *("verdict", "verdict_reason"),
    *("breach", "breach_detail", "breach_at", "anomaly"),
    "baseline_since",
    # Some measures share the column that counts their reports.
    *dict.fromkeys(each.baseline_samples for each in TRIGGERS),
    *(each.mean for each in TRIGGERS),
    *(each.variance for each in TRIGGERS),
    *("boot_started_at", "heartbeat_sequence"),
)
# What the first one of a boot or image, or after a refused one, changes beside that.
_ANEW = (
    *_CHANGED,
    *("boot_id", "boot_count", "past_boots", "held_back"),
    *("firmware_version", "firmware_checksum", "image_since", "left_image_at"),
    *("refused_count", "refused_at", "refused_reason", "last_unreadable_at"),
    "other_slot_checksum",
)


def _store_statement(names: tuple[str, ...], condition: str) -> str:
    measures = [each.column for each in TRIGGERS]
    return f"""
        WITH changed AS (
            UPDATE health_devicestate
            SET {", ".join(f"{name} = %({name})s" for name in names)}
            WHERE device_id = %(device)s AND {condition}
            RETURNING device_id
        ), kept AS (
            INSERT INTO health_reading (
                device_id, at, {", ".join(measures)},
                uptime_seconds, firmware_version, is_first_of_boot, application_metrics
            )
            SELECT device_id, %(last_heartbeat_at)s,
                   {", ".join(f"%({column})s" for column in measures)},
                   %(uptime_seconds)s, %(running)s, %(is_first_of_boot)s,
                   NULLIF(%(application_metrics)s::jsonb, '{{}}')
            FROM changed
            ON CONFLICT DO NOTHING
        )
        SELECT count(*) FROM changed
    """  # noqa: S608


_STORE = _store_statement(_ANEW, "true")
_STORE_IF_SAME = _store_statement(_ANEW, "xmin = %(row_version)s::xid")
_STORE_USUAL = _store_statement(_CHANGED, "xmin = %(row_version)s::xid")


def _store(
    statement: str,
    names: tuple[str, ...],
    state: DeviceState,
    *,
    is_first_of_boot: bool = False,
    row_version: str | None = None,
) -> bool:
    """Write a judged heartbeat, state and history; tell whether the row was there."""
    with prepared_cursor() as cursor:
        cursor.execute(
            statement,
            {
                **{name: getattr(state, name) for name in names},
                "application_metrics": json.dumps(state.application_metrics),
                "past_boots": json.dumps(state.past_boots),
                "held_back": json.dumps(state.held_back),
                "running": state.firmware_version,
                "is_first_of_boot": is_first_of_boot,
                "device": state.device_id,
                "row_version": row_version,
            },
        )
        return bool(cursor.fetchone() == (1,))


def record_plain_heartbeat(
    *,
    device: Device,
    state: DeviceState,
    row_version: str,
    beat: Heartbeat,
    has_order: bool,
    is_available: bool,
    now: datetime,
) -> HeartbeatAnswer | None:
    """Store a heartbeat where everything that it could touch was read beforehand.

    No lock: it writes if the state is still the one that was read.

    Args:
        beat: one that lacks nothing.
        state: the row as it was read; all but `application_metrics` is looked at.
        row_version: its `xmin`.
        has_order: the device has an open order, and nothing else is planned for it.
        is_available: a poll would bring that.

    Returns:
        None if another was first, if an image came that nobody ordered, or if the
        heartbeat is held back; nothing is stored then.
    """
    interval = _interval(state, has_order, now)
    answer = HeartbeatAnswer(is_available, int(interval.total_seconds()))
    placement = place_heartbeat(state, beat, now)
    if placement.place is Place.HELD_BACK:
        return None
    runs_another = (
        beat.firmware_checksum != device.firmware_checksum
        or beat.firmware_version != device.firmware_version
    )
    if runs_another and not has_order:
        return None
    is_first_of_boot = placement.place is Place.NEW
    is_usual = (
        not is_first_of_boot
        and not state.refused_count
        and beat.firmware_checksum == state.firmware_checksum
        and beat.firmware_version == state.firmware_version
        and beat.other_slot_checksum in (None, state.other_slot_checksum)
    )
    _apply(state, beat, placement, interval, now)
    statement, names = (_STORE_USUAL, _CHANGED) if is_usual else (_STORE_IF_SAME, _ANEW)
    store = partial(
        _store,
        statement,
        names,
        state,
        is_first_of_boot=is_first_of_boot,
        row_version=row_version,
    )
    if not runs_another:
        if not store():
            return None
    else:
        with transaction.atomic():
            if not store():
                return None
            record_running_firmware(
                device=device,
                version=beat.firmware_version,
                checksum=beat.firmware_checksum,
                now=now,
            )
    if _may_decide(state, now, has_order=has_order):
        ask_for_tick_on_commit()
    return answer


def _may_decide(state: DeviceState, now: datetime, *, has_order: bool) -> bool:
    """Tell whether a heartbeat may prove or fail something: a tick is to look."""
    is_towards_proof = (
        has_order
        and state.healthy_count > 0
        and state.firmware_checksum == state.watch_checksum
    )
    return is_towards_proof or now in (state.breach_at, state.left_image_at)


def _is_watched(state: DeviceState, now: datetime) -> bool:
    """Tell whether a watch is under way; one without an end runs until it gets one."""
    return state.watch_id is not None and (
        state.watch_until is None or state.watch_until > now
    )


def _interval(state: DeviceState, is_deploying: bool, now: datetime) -> timedelta:
    if _is_watched(state, now):
        return timedelta(seconds=state.watch_interval_seconds)
    if is_deploying:
        return timedelta(seconds=settings.HEARTBEAT_INTERVAL_DEPLOYING.total_seconds())
    if state.attentive_until is not None and state.attentive_until > now:
        return timedelta(seconds=settings.HEARTBEAT_INTERVAL_AFTER.total_seconds())
    return timedelta(seconds=settings.HEARTBEAT_INTERVAL.total_seconds())


def _apply(
    state: DeviceState,
    beat: Heartbeat,
    placement: Placement,
    interval: timedelta,
    now: datetime,
) -> None:
    """Judge a heartbeat and put what it says into the state.

    Args:
        interval: after which the device was told to send the next.
    """
    state.interval_seconds = int(interval.total_seconds())
    state.online_until = now + online_for(
        heartbeat=interval, poll=poll_interval(state, now)
    )
    if (
        state.watch_id is not None
        and state.offline_after_seconds is not None
        and abs(now - state.last_seen_at)
        > timedelta(seconds=state.offline_after_seconds)
    ):
        # Nobody knows how it was meanwhile, or the server's clock was wrong then: what
        # counts as proof begins anew.
        _forget_health(state)
    is_new_boot = placement.place is Place.NEW
    if is_new_boot:
        # Another agent may have come with the boot, one that cannot.
        state.other_slot_checksum = None
        _forget_health(state)
    if beat.other_slot_checksum is not None:
        state.other_slot_checksum = beat.other_slot_checksum
    remember_boots(state, placement)
    state.refused_count, state.refused_at, state.refused_reason = 0, None, ""
    version, checksum = _image(state, beat, is_new_boot=is_new_boot)
    if checksum != state.firmware_checksum:
        state.image_since = now
        if (
            state.watch_id
            and checksum not in ("", state.watch_checksum)
            and state.firmware_checksum in ("", state.watch_checksum)
        ):
            state.left_image_at = now
        _forget_health(state)
    state.firmware_version = version
    state.firmware_checksum = checksum
    state.last_seen_at = now
    state.last_heartbeat_at = now
    state.uptime_seconds = beat.uptime
    values = {each.name: beat.measures.get(each.name) for each in TRIGGERS}
    for each in TRIGGERS:
        setattr(state, each.column, values[each.name])
    state.application_metrics = beat.application_metrics
    state.secure_boot = beat.secure_boot
    limits = limits_from_json(state.limits) if state.limits else DEFAULT_LIMITS
    judgement = judge(Sample(now, values), limits, state.timers)
    state.timers = dict(judgement.timers)
    if not judgement.is_healthy:
        state.healthy_since, state.healthy_at, state.healthy_count = None, None, 0
        state.verdict = Verdict.UNHEALTHY if judgement.breach else Verdict.DEGRADED
        state.verdict_reason = judgement.detail
    elif beat.missing:
        # It speaks neither for the device nor against it.
        state.verdict = Verdict.UNKNOWN
        state.verdict_reason = f"it does not say its {beat.missing}"
        if checksum in ("", state.watch_checksum):
            state.last_unreadable_at = now
    else:
        state.healthy_since, state.healthy_at = state.healthy_since or now, now
        state.healthy_count += 1
        state.verdict, state.verdict_reason = Verdict.HEALTHY, ""
        if state.watch_id is None:
            _learn(state, now)
    # Whatever the former image still says, before or after the reboot, is not held
    # against the new one; nor is what happens when the watch is over.
    is_watched_image = (
        _is_watched(state, now) and beat.firmware_checksum == state.watch_checksum
    )
    if judgement.breach and not state.breach and is_watched_image:
        state.breach = judgement.breach
        state.breach_detail = judgement.detail
        state.breach_at = now
    if is_watched_image and not state.anomaly:
        # A hint for people, which sends nothing back.
        state.anomaly = describe_anomalies(
            (each, values[each.name], state.usual(each)) for each in TRIGGERS
        )[:MAX_ANOMALY]


def _image(
    state: DeviceState, beat: Heartbeat, *, is_new_boot: bool
) -> tuple[str, str]:
    """Return version and checksum of what a device runs, empty where it is not known.

    What it does not say is taken to be as before within one boot, as long as it does
    not name another version.
    """
    if beat.firmware_checksum:
        is_same = beat.firmware_checksum == state.firmware_checksum
        known = state.firmware_version if is_same else ""
        return beat.firmware_version or known, beat.firmware_checksum
    version = beat.firmware_version
    if is_new_boot or (version and version != state.firmware_version):
        return version, ""
    return state.firmware_version, state.firmware_checksum


def _learn(state: DeviceState, now: datetime) -> None:
    """Let the baseline follow a healthy report that no update has touched.

    It lies on the row that the heartbeat writes anyway, and no index covers it.
    """
    state.baseline_since = state.baseline_since or now
    # All are learned before one is written: some share their number of reports.
    learned = [
        (each, state.usual(each).learn(value))
        for each in TRIGGERS
        if (value := state.measured(each)) is not None
    ]
    for trigger, usual in learned:
        state.learn(trigger, usual)


def baseline_of(state: DeviceState) -> dict[str, Any] | None:
    """Return what is usual for a device, or None before its first healthy report.

    Source: FR-FW-002, Device health baseline established.
    """
    # What every healthy report says is known best.
    best = state.usual(REQUIRED[0])
    if not best.is_known:
        return None
    return {
        "since": state.baseline_since,
        "confidence": best.confidence,
        **{each.field: _usual(state.usual(each)) for each in TRIGGERS},
    }


def _usual(usual: RunningStatistics) -> dict[str, float] | None:
    if not usual.is_known:
        return None
    return {"mean": round(usual.mean, 4), "spread": round(usual.spread, 4)}


def _forget_health(state: DeviceState) -> None:
    """A new boot or image starts with nothing for or against it."""
    breach = state.breach, state.breach_detail, state.breach_at
    clean_slate(state)
    state.breach, state.breach_detail, state.breach_at = breach


NOTE_POLL = f"""
    WITH noted AS (
        UPDATE health_devicestate s
        {poll_changes("%(poll_seconds)s")}
        WHERE s.device_id = %(device)s AND {IS_NEW_POLL}
    )
    SELECT EXISTS (SELECT FROM health_devicestate WHERE device_id = %(device)s)
"""  # noqa: S608


def note_poll(*, device_id: UUID, interval: timedelta, now: datetime) -> None:
    """Write down that a device has polled, at most every five seconds.

    Args:
        interval: after which it is to poll again.
    """
    values: dict[str, Any] = {
        "device": device_id,
        "now": now,
        "before": now - CONTACT_RESOLUTION,
        "online_floor": settings.ONLINE_FLOOR.total_seconds(),
        "poll_seconds": int(interval.total_seconds()),
    }
    with prepared_cursor() as cursor:
        cursor.execute(NOTE_POLL, values)
        if cursor.fetchone() == (True,):
            return
    with transaction.atomic(), prepared_cursor() as cursor:
        locked_state(device_id, now)
        cursor.execute(NOTE_POLL, values)


def _connectivity(state: DeviceState | None, now: datetime) -> dict[str, Any]:
    """Tell whether a device is heard; a poll counts as well as a heartbeat.

    Source: FR-FW-005, Connectivity.
    """
    is_online = state is not None and state.online_until > now
    return {
        "connectivity": "online" if is_online else "offline",
        "lastSeenAt": None if state is None else state.last_seen_at,
    }


def current_verdict(state: DeviceState, now: datetime) -> tuple[str, str]:
    """Return the verdict on a device as it is now, and the reason."""
    if state.online_until <= now:
        return Verdict.UNKNOWN.value, "it is offline"
    if state.refused_count:
        return Verdict.UNKNOWN.value, REFUSED
    return state.verdict, state.verdict_reason


def latest_health(device: Device, now: datetime) -> dict[str, Any]:
    """Return the health of a device as the specification shows it.

    Source: specification, Health Monitoring.
    """
    state = DeviceState.objects.filter(device_id=device.pk).first()
    refused = refused_heartbeats(state)
    if state is None or state.last_heartbeat_at is None:
        return {
            "deviceId": device.device_id,
            **_connectivity(state, now),
            "status": Verdict.UNKNOWN.value.capitalize(),
            "reason": "its heartbeats are refused"
            if refused
            else "it has never reported",
            "firmwareVersion": device.firmware_version,
            **{each.field: None for each in FIELDS},
            "uptime": None,
            "lastHeartbeat": None,
            "applicationMetrics": {},
            "baseline": None,
            "baselineSamples": 0,
            "refusedHeartbeats": refused,
            "duplicateIdentityAt": None,
        }
    verdict, reason = current_verdict(state, now)
    return {
        "deviceId": device.device_id,
        **_connectivity(state, now),
        "status": verdict.capitalize(),
        "reason": reason,
        "firmwareVersion": state.firmware_version,
        **{each.field: state.measured(each) for each in FIELDS},
        "uptime": state.uptime_seconds,
        "lastHeartbeat": state.last_heartbeat_at,
        "applicationMetrics": state.application_metrics,
        "baseline": baseline_of(state),
        "baselineSamples": state.baseline_samples,
        "refusedHeartbeats": refused,
        "duplicateIdentityAt": state.duplicate_at,
    }
