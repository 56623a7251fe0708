"""Heartbeats: taken in, judged, answered; silence."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings as django_settings
from django.db import transaction
from django.utils import timezone

from devices.choices import DeviceStatus
from devices.models import Device
from health.evaluation import Limits
from health.models import DeviceState
from health.services.heartbeats import (
    HeartbeatAnswer,
    latest_health,
    record_heartbeat,
)
from health.services.watching import (
    BEGIN_WATCH,
    Watch,
    locked_state,
    record_contact,
    sweep,
    unwatch,
    watch_on,
    watch_values,
)
from hotswap.common.models import JobRun
from hotswap.common.rows import prepared_cursor
from tests.api import Caller, problem_of
from tests.callers import PersonCaller
from tests.devices.factories import DeviceFactory, device_token
from tests.health.factories import HeartbeatFactory

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
BODY = {
    "cpuUsage": 35.2,
    "memoryUsage": 58.4,
    "uptime": 86400,
    "bootId": "boot-1",
    "firmwareVersion": "2.5.0",
    "firmwareChecksum": "a" * 64,
    "applicationMetrics": {"sensorReadings": 1000, "errorRate": 0.01},
}
LIMITS = Limits.of(cpu_duration=timedelta(0), memory_duration=timedelta(0))
OLD, NEW = "a" * 64, "b" * 64


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def beat(device: Device, seconds: float = 0, **fields: Any) -> HeartbeatAnswer:
    return record_heartbeat(
        device=Device.objects.get(pk=device.pk),
        beat=HeartbeatFactory.create(**fields),
        now=at(seconds),
    )


def state_of(device: Device) -> DeviceState:
    return DeviceState.objects.get(device=device)


def status_at(device: Device, seconds: float) -> DeviceStatus:
    return (
        Device.objects.select_related("state").get(pk=device.pk).status_at(at(seconds))
    )


def watched(device: Device, seconds: float = 0, **fields: Any) -> Watch:
    given: dict[str, Any] = {
        "watch_id": uuid4(),
        "image_checksum": NEW,
        "limits": LIMITS,
        "offline_after": timedelta(seconds=60),
        "interval": timedelta(seconds=5),
    } | fields
    order = Watch(**given)
    with transaction.atomic(), prepared_cursor() as cursor:
        locked_state(device.pk, at(seconds))
        cursor.execute(BEGIN_WATCH, watch_values(device_id=device.pk, watch=order))
    return order


def watched_on(order: Watch, seconds: float, until: float) -> None:
    watch_on(
        watch_ids=[order.watch_id],
        now=at(seconds),
        until=at(until),
        interval=timedelta(seconds=60),
        offline_after=timedelta(seconds=150),
    )


# --- Over the API ----------------------------------------------------------------


@pytest.fixture
def path(device: Device) -> str:
    return f"/devices/{device.device_id}/health"


def test_the_first_heartbeat_of_a_device_costs_few_statements(
    db: None, django_assert_max_num_queries: Any
) -> None:
    device = DeviceFactory.create()

    # One of them reads the device; two bound the transaction, and three make the state.
    with django_assert_max_num_queries(11):
        beat(device)
    with django_assert_max_num_queries(6):
        beat(device, 30)


def test_health_reads_as_in_the_specification(
    device: Device, device_caller: Caller, viewer: PersonCaller, path: str
) -> None:
    answer = device_caller.post(path, BODY)

    shown = viewer.get(path).json()

    assert answer.json() == {"updateAvailable": False, "nextHeartbeatSeconds": 300}
    for name in ("lastHeartbeat", "lastSeenAt"):
        last = datetime.fromisoformat(shown.pop(name))
        assert abs(timezone.now() - last) < timedelta(minutes=1)
    assert shown.pop("baseline")["confidence"] == "low"
    assert isinstance(shown["applicationMetrics"]["sensorReadings"], int)
    assert shown == {
        "deviceId": device.device_id,
        "status": "Healthy",
        "reason": "",
        "firmwareVersion": "2.5.0",
        "cpuUsage": 35.2,
        "memoryUsage": 58.4,
        "uptime": 86400,
        "applicationMetrics": {"sensorReadings": 1000, "errorRate": 0.01},
        "connectivity": "online",
        "baselineSamples": 1,
        "refusedHeartbeats": None,
        "duplicateIdentityAt": None,
    }


def test_a_heartbeat_brings_the_device_online_and_says_what_it_runs(
    device: Device, device_caller: Caller, viewer: PersonCaller, path: str
) -> None:
    before = viewer.get(f"/devices/{device.device_id}").json()

    device_caller.post(path, BODY)

    after = viewer.get(f"/devices/{device.device_id}").json()
    assert before["status"] == "never_seen"
    assert after["status"] == "online"
    assert after["firmwareVersion"] == "2.5.0"
    assert after["firmwareChecksum"] == "a" * 64
    assert after["lastSeenAt"].endswith("Z")


def test_a_heartbeat_does_not_change_the_etag(
    device: Device, device_caller: Caller, viewer: PersonCaller, path: str
) -> None:
    before = viewer.get(f"/devices/{device.device_id}")["ETag"]

    device_caller.post(path, BODY)

    assert viewer.get(f"/devices/{device.device_id}")["ETag"] == before


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"cpuUsage": -1.1}, "/cpuUsage", "out_of_range"),
        ({"cpuUsage": 101.1}, "/cpuUsage", "out_of_range"),
        ({"cpuUsage": "35"}, "/cpuUsage", "invalid"),
        ({"cpuUsage": True}, "/cpuUsage", "invalid"),
        ({"cpuUsage": {"user": 1}}, "/cpuUsage", "invalid"),
        ({"cpuUsage": None}, "/cpuUsage", "null"),
        ({"cpuUsage": 10**400}, "/cpuUsage", "out_of_range"),
        ({"memoryUsage": 102}, "/memoryUsage", "out_of_range"),
        ({"uptime": -1}, "/uptime", "out_of_range"),
        ({"uptime": "1"}, "/uptime", "invalid"),
        ({"uptime": 2**53 + 1}, "/uptime", "out_of_range"),
        ({"bootId": ""}, "/bootId", "invalid"),
        ({"bootId": True}, "/bootId", "invalid"),
        ({"bootId": -5}, "/bootId", "out_of_range"),
        ({"bootId": "b" * 65}, "/bootId", "too_long"),
        ({"sequence": -1}, "/sequence", "out_of_range"),
        ({"firmwareVersion": "1" * 65}, "/firmwareVersion", "too_long"),
        ({"firmwareVersion": "\n"}, "/firmwareVersion", "invalid"),
        ({"firmwareVersion": 2.5}, "/firmwareVersion", "invalid"),
        ({"firmwareChecksum": "a" * 63}, "/firmwareChecksum", "invalid"),
        ({"firmwareChecksum": int("1" * 64)}, "/firmwareChecksum", "invalid"),
        ({"applicationMetrics": []}, "/applicationMetrics", "invalid"),
        ({"applicationMetrics": {"a": "1"}}, "/applicationMetrics/a", "invalid"),
        ({"applicationMetrics": {"a": None}}, "/applicationMetrics/a", "null"),
        ({"applicationMetrics": {"a": {}}}, "/applicationMetrics/a", "invalid"),
        ({"applicationMetrics": {"a/b": []}}, "/applicationMetrics/a~1b", "invalid"),
        (
            {"applicationMetrics": {"a": 10**400}},
            "/applicationMetrics/a",
            "out_of_range",
        ),
        (
            {"applicationMetrics": {"errorRate": 1.1}},
            "/applicationMetrics/errorRate",
            "out_of_range",
        ),
        ({"applicationMetrics": {"": 1}}, "/applicationMetrics/", "invalid"),
        (
            {"applicationMetrics": {"x" * 65: 1}},
            f"/applicationMetrics/{'x' * 65}",
            "too_long",
        ),
        (
            {"applicationMetrics": {f"{n:02}": n for n in range(65)}},
            "/applicationMetrics/64",
            "too_many",
        ),
        ({"secureBoot": "maybe"}, "/secureBoot", "invalid"),
        ({"status": "fine"}, "/status", "unknown"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_cannot_be_used_is_left_out_and_named(
    device: Device,
    device_caller: Caller,
    path: str,
    change: dict[str, Any],
    pointer: str,
    code: str,
) -> None:
    answer = device_caller.post(path, BODY | change)

    assert answer.status_code == 200
    assert answer.json()["ignored"] == [{"pointer": pointer, "code": code}]
    assert state_of(device).last_heartbeat_at is not None
    [field] = change
    if field != "firmwareChecksum":
        assert state_of(device).firmware_checksum == BODY["firmwareChecksum"]


def test_what_is_nearly_right_is_read_as_it_is_meant(
    device: Device, device_caller: Caller, path: str
) -> None:
    odd = {
        "cpuUsage": 100.4,
        "memoryUsage": -0.2,
        "uptime": 12.9,
        "bootId": 17,
        "firmwareVersion": " build 7/a\x00\n",
        "firmwareChecksum": "A" * 64,
        "applicationMetrics": {"errorRate": 1.005},
    }

    answer = device_caller.post(path, BODY | odd)

    assert "ignored" not in answer.json()
    state = state_of(device)
    assert (state.cpu_percent, state.memory_percent) == (100, 0)
    assert (state.uptime_seconds, state.boot_id) == (12, "17")
    assert (state.firmware_version, state.firmware_checksum) == ("build 7/a", "a" * 64)
    assert state.error_ratio == 1
    device.refresh_from_db()
    assert device.firmware_version == "build 7/a"
    assert device.version_key == ""


def test_a_number_that_is_none_is_left_out(device_caller: Caller, path: str) -> None:
    raw = b'{"bootId": "b", "cpuUsage": NaN, "applicationMetrics": {"a": 1e999}}'

    answer = device_caller.post(path, raw=raw)

    assert answer.json()["ignored"] == [
        {"pointer": "/applicationMetrics/a", "code": "null"},
        {"pointer": "/cpuUsage", "code": "null"},
    ]


def test_of_too_many_metrics_the_error_rate_and_the_first_by_name_are_kept(
    device: Device, device_caller: Caller, path: str
) -> None:
    metrics = {f"m{n:02}": n for n in range(70)} | {"errorRate": 0.5}

    answer = device_caller.post(path, BODY | {"applicationMetrics": metrics})

    kept = state_of(device).application_metrics
    assert len(kept) == 64
    assert kept["errorRate"] == 0.5
    assert [each["pointer"][-3:] for each in answer.json()["ignored"]] == [
        f"m{n:02}" for n in range(63, 70)
    ]


@pytest.mark.parametrize("field", sorted(set(BODY) - {"applicationMetrics"}))
def test_what_is_missing_is_unknown(
    device: Device, device_caller: Caller, path: str, field: str
) -> None:
    body = {name: value for name, value in BODY.items() if name != field}

    answer = device_caller.post(path, body)

    assert answer.status_code == 200
    assert "ignored" not in answer.json()
    needed = {"cpuUsage", "memoryUsage", "firmwareChecksum"}
    expected = ("unknown", 0) if field in needed else ("healthy", 1)
    assert (state_of(device).verdict, state_of(device).healthy_count) == expected


@pytest.mark.parametrize(
    "body", [[], "text", 5, {}, {"cpuUsage": 5}, {"bootId": None, "uptime": 4}], ids=str
)
def test_a_heartbeat_that_does_not_tell_what_sent_it_is_refused(
    device_caller: Caller, path: str, body: Any
) -> None:
    problem_of(device_caller.post(path, body), 400, "heartbeat_refused")


def test_the_edges_are_taken(device_caller: Caller, path: str) -> None:
    metrics = {f"m{n}": n for n in range(63)} | {"errorRate": 1}
    body = BODY | {
        "cpuUsage": 0,
        "memoryUsage": 100,
        "uptime": 2**53,
        "applicationMetrics": metrics,
        "secureBoot": "disabled",
    }

    assert device_caller.post(path, body).status_code == 200


def test_a_device_that_never_reported_is_unknown(
    viewer: PersonCaller, path: str
) -> None:
    shown = viewer.get(path).json()

    assert shown["status"] == "Unknown"
    assert shown["cpuUsage"] is None
    assert shown["lastHeartbeat"] is None


# --- What a heartbeat does not say ------------------------------------------------


def test_a_heartbeat_without_cpu_neither_proves_nor_fails(device: Device) -> None:
    watched(device)
    beat(device, 0, firmware_checksum=NEW)
    beat(device, 5, firmware_checksum=NEW, cpu_usage=None)
    unknown = state_of(device)
    beat(device, 10, firmware_checksum=NEW)
    known = state_of(device)

    assert (unknown.healthy_count, unknown.healthy_at) == (1, at(0))
    assert (unknown.verdict, unknown.verdict_reason) == (
        "unknown",
        "it does not say its CPU",
    )
    assert unknown.last_seen_at == at(5)
    assert (known.healthy_since, known.healthy_at, known.healthy_count) == (
        at(0),
        at(10),
        2,
    )
    assert known.breach == ""


def test_a_breach_goes_on_while_its_measure_is_not_said(device: Device) -> None:
    long = Limits.of(cpu_duration=timedelta(seconds=20))
    watched(device, limits=long)
    beat(device, 0, firmware_checksum=NEW, cpu_usage=99.0)
    beat(device, 30, firmware_checksum=NEW, cpu_usage=None)
    before = state_of(device)
    beat(device, 40, firmware_checksum=NEW, cpu_usage=99.0)

    assert (before.breach, before.cpu_since) == ("", at(0))
    assert state_of(device).breach == "cpu"


def test_an_error_rate_that_cannot_be_read_is_no_proof(
    device: Device, device_caller: Caller, path: str
) -> None:
    device_caller.post(path, BODY | {"applicationMetrics": {"errorRate": "many"}})

    assert state_of(device).verdict_reason == "it does not say its error rate"
    assert state_of(device).healthy_count == 0


def test_an_image_that_is_not_said_is_that_of_the_boot(device: Device) -> None:
    beat(device, 0, firmware_version="2.0.0", firmware_checksum=NEW)
    beat(device, 10, firmware_version="", firmware_checksum="")
    same_boot = state_of(device)
    beat(device, 20, boot_id="2", firmware_version="", firmware_checksum="")
    next_boot = state_of(device)

    assert (same_boot.firmware_version, same_boot.firmware_checksum) == ("2.0.0", NEW)
    assert (next_boot.firmware_version, next_boot.firmware_checksum) == ("", "")
    device.refresh_from_db()
    assert device.firmware_checksum == NEW


def test_an_image_that_is_not_said_has_not_been_left(device: Device) -> None:
    watched(device)
    beat(device, 0, firmware_checksum=NEW)
    beat(device, 10, boot_id="2", firmware_checksum="")
    unknown = state_of(device).left_image_at
    beat(device, 20, boot_id="2", firmware_checksum=OLD)

    assert unknown is None
    assert state_of(device).left_image_at == at(20)


def test_a_version_without_a_checksum_is_shown_as_said(device: Device) -> None:
    beat(device, 0, firmware_version="blue-7", firmware_checksum="")

    device.refresh_from_db()
    assert (device.firmware_version, device.firmware_checksum) == ("blue-7", "")


# --- Time ------------------------------------------------------------------------


def test_the_health_of_a_silent_device_is_unknown(device: Device) -> None:
    beat(device)

    assert latest_health(device, at(749))["status"] == "Healthy"
    silent = latest_health(device, at(750))
    assert silent["status"] == "Unknown"
    assert silent["reason"] == "it is offline"
    assert silent["cpuUsage"] == 5.0


def test_the_interval_follows_the_watch_and_stays_short_for_an_hour_after(
    device: Device,
) -> None:
    order = watched(device)
    under_watch = beat(device).next_heartbeat_seconds
    a_day_later = beat(device, 86_400).next_heartbeat_seconds
    unwatch(watch_ids=[order.watch_id], now=at(90_000))
    attentive = beat(device, 90_000 + 3599).next_heartbeat_seconds
    at_rest = beat(device, 90_000 + 3601).next_heartbeat_seconds

    assert [under_watch, a_day_later, attentive, at_rest] == [5, 5, 60, 300]


def test_watched_on_it_reports_every_minute_for_one_hour_in_all(
    device: Device,
) -> None:
    order = watched(device)
    watched_on(order, 1000, until=1000 + 1800)
    watched_still = beat(device, 1001).next_heartbeat_seconds
    unwatch(watch_ids=[order.watch_id], now=at(1000 + 1800))
    attentive = beat(device, 1000 + 3599).next_heartbeat_seconds
    at_rest = beat(device, 1000 + 3601).next_heartbeat_seconds

    assert [watched_still, attentive, at_rest] == [60, 60, 300]


# --- Boots and images --------------------------------------------------------------


def test_late_mail_of_a_boot_that_is_over_changes_nothing(device: Device) -> None:
    beat(device, 0, boot_id="one")
    beat(device, 10, boot_id="two", firmware_version="2.0.0", firmware_checksum=NEW)
    before = state_of(device)

    answer = beat(device, 20, boot_id="one", cpu_usage=99.0, uptime=105)

    after = state_of(device)
    device.refresh_from_db()
    assert answer.next_heartbeat_seconds == 300
    assert not answer.applied
    assert after.last_seen_at == at(20)
    assert after.boot_id == "two"
    assert after.last_heartbeat_at == before.last_heartbeat_at
    assert after.cpu_percent == before.cpu_percent
    assert device.firmware_version == "2.0.0"


def test_the_last_eight_boots_are_known(device: Device) -> None:
    for number in range(12):
        beat(device, number, boot_id=f"boot-{number}")

    past = [each[0] for each in state_of(device).past_boots]
    assert past == [f"boot-{n}" for n in range(3, 11)]
    assert state_of(device).boot_count == 12


def test_a_new_boot_or_image_starts_with_a_clean_slate(device: Device) -> None:
    beat(device, 0)
    beat(device, 10)
    two = state_of(device).healthy_count
    beat(device, 20, boot_id="boot-2")
    after_boot = state_of(device).healthy_count
    beat(device, 30, boot_id="boot-2")
    beat(device, 40, boot_id="boot-2", firmware_checksum=NEW)
    after_image = state_of(device)

    assert (two, after_boot, after_image.healthy_count) == (2, 1, 1)
    assert after_image.image_since == at(40)
    assert after_image.healthy_since == at(40)


def test_an_unhealthy_heartbeat_ends_what_was_healthy(device: Device) -> None:
    beat(device, 0)
    beat(device, 10, cpu_usage=99.0)

    state = state_of(device)

    assert state.healthy_count == 0
    assert state.healthy_since is None
    assert state.verdict == "degraded"
    assert latest_health(device, at(11))["status"] == "Degraded"


def test_errors_make_a_device_unhealthy_at_once(device: Device) -> None:
    beat(device, 0, application_metrics={"errorRate": 0.5})

    assert state_of(device).verdict == "unhealthy"
    assert state_of(device).breach == ""
    assert "50.0 %" in latest_health(device, at(1))["reason"]


# --- Watching ----------------------------------------------------------------------


def test_a_breach_of_the_watched_image_is_kept(device: Device) -> None:
    beat(device, 0, firmware_checksum=OLD)
    watched(device, 1)
    beat(device, 10, boot_id="boot-2", firmware_checksum=NEW, cpu_usage=99.0)
    beat(device, 20, boot_id="boot-2", firmware_checksum=NEW)

    state = state_of(device)

    assert state.breach == "cpu"
    assert state.breach_at == at(10)
    assert state.verdict == "healthy"


def test_what_the_former_image_does_is_not_held_against_the_new_one(
    device: Device,
) -> None:
    beat(device, 0, firmware_checksum=OLD)
    watched(device, 1)

    beat(device, 10, firmware_checksum=OLD, cpu_usage=99.0)

    assert state_of(device).breach == ""


def test_an_exempt_trigger_is_not_judged(device: Device) -> None:
    watched(device, 1, limits=replace(LIMITS, exempt=frozenset({"cpu"})))

    beat(device, 10, boot_id="2", firmware_checksum=NEW, cpu_usage=99.0)
    hot = state_of(device)
    beat(device, 20, boot_id="2", firmware_checksum=NEW, memory_usage=95.0)

    assert hot.breach == ""
    assert hot.healthy_count == 1
    assert state_of(device).breach == "memory"


def test_a_new_watch_forgets_the_breach_of_the_one_before(device: Device) -> None:
    watched(device)
    beat(device, 5, firmware_checksum=NEW, cpu_usage=99.0)

    watched(device, 1000)

    assert state_of(device).breach == ""


def test_leaving_the_watched_image_is_noted_until_the_next_watch(
    device: Device,
) -> None:
    beat(device, 0, firmware_checksum=OLD)
    watched(device, 1)
    beat(device, 10, boot_id="boot-2", firmware_checksum=NEW)
    arrived = state_of(device).left_image_at
    beat(device, 20, boot_id="boot-3", firmware_checksum=OLD)
    beat(device, 30, boot_id="boot-4", firmware_checksum=NEW)
    left = state_of(device).left_image_at
    watched(device, 40)

    assert arrived is None
    assert left == at(20)
    assert state_of(device).left_image_at is None


def test_a_change_of_image_that_nobody_watches_is_not_noted(device: Device) -> None:
    beat(device, 0, firmware_checksum=NEW)
    beat(device, 10, boot_id="boot-2", firmware_checksum=OLD)

    assert state_of(device).left_image_at is None


def test_a_silence_longer_than_allowed_restarts_what_counts_as_proof(
    device: Device,
) -> None:
    watched(device)
    beat(device, 0, firmware_checksum=NEW)
    beat(device, 60, firmware_checksum=NEW)
    steady = state_of(device).healthy_count
    beat(device, 121, firmware_checksum=NEW)

    state = state_of(device)

    assert steady == 2
    assert (state.healthy_count, state.healthy_since) == (1, at(121))


def test_a_claim_restarts_what_counts_as_proof(device: Device) -> None:
    order = watched(device)
    beat(device, 5, firmware_checksum=NEW)

    record_contact(watch_id=order.watch_id, device_id=device.pk, claims=True, now=at(6))

    state = state_of(device)
    assert state.healthy_count == 0
    assert state.healthy_since is None


def test_what_is_said_of_an_order_that_is_not_watched_moves_nothing(
    device: Device,
) -> None:
    watched(device)
    beat(device, 5, firmware_checksum=NEW)

    record_contact(watch_id=uuid4(), device_id=device.pk, claims=True, now=at(6))

    state = state_of(device)
    assert state.healthy_count == 1
    assert state.silence_counts_from is None


# --- Sweeps --------------------------------------------------------------------------


@pytest.fixture
def swept(db: None) -> None:
    """Sweeps that have run without a gap."""
    for seconds in range(-60, 0, 20):
        sweep(now=at(seconds))


def sweeps(start: int, end: int) -> int:
    """Sweep every 20 s; count the devices newly found offline."""
    return sum(sweep(now=at(seconds)) for seconds in range(start, end + 1, 20))


@pytest.mark.usefixtures("swept")
def test_silence_counts_from_the_reboot_and_only_then(device: Device) -> None:
    beat(device, 0)
    order = watched(device, 0)
    before = sweeps(0, 200)
    record_contact(
        watch_id=order.watch_id, device_id=device.pk, now=at(200), reboots=True
    )

    at_the_limit = sweeps(200, 260)
    over = sweeps(280, 300)

    state = state_of(device)
    assert (before, at_the_limit, over) == (0, 0, 1)
    assert state.breach == "offline"
    assert "60 s" in state.breach_detail
    assert state.healthy_count == 0


@pytest.mark.usefixtures("swept")
def test_a_sign_of_life_restarts_the_silence(device: Device) -> None:
    order = watched(device, 0)
    record_contact(
        watch_id=order.watch_id, device_id=device.pk, now=at(0), reboots=True
    )
    sweeps(0, 40)
    beat(device, 50, boot_id="2")

    assert sweeps(60, 100) == 0
    assert sweeps(120, 140) == 1


@pytest.mark.usefixtures("swept")
def test_a_device_that_nobody_watches_is_not_judged_for_silence(
    device: Device,
) -> None:
    beat(device, 0)
    other = DeviceFactory.create()
    order = watched(other, 0)
    record_contact(watch_id=order.watch_id, device_id=other.pk, now=at(0), reboots=True)
    unwatch(watch_ids=[order.watch_id], now=at(1))

    assert sweeps(0, 400) == 0


@pytest.mark.usefixtures("swept")
def test_silence_after_the_end_of_the_watch_is_not_judged(device: Device) -> None:
    order = watched(device, 0)
    watched_on(order, 0, until=50)
    record_contact(
        watch_id=order.watch_id, device_id=device.pk, now=at(0), reboots=True
    )

    assert sweeps(0, 200) == 0


@pytest.mark.usefixtures("swept")
def test_an_outage_of_the_sweeps_is_not_taken_for_one_of_the_devices(
    device: Device,
) -> None:
    order = watched(device, 0)
    record_contact(
        watch_id=order.watch_id, device_id=device.pk, now=at(0), reboots=True
    )
    sweeps(0, 40)

    on_return = sweep(now=at(400))
    within = sweeps(420, 460)
    over = sweeps(480, 480)

    assert (on_return, within, over) == (0, 0, 1)


@pytest.mark.usefixtures("swept")
def test_a_gap_of_thirty_seconds_is_no_outage(device: Device) -> None:
    order = watched(device, 0)
    record_contact(
        watch_id=order.watch_id, device_id=device.pk, now=at(0), reboots=True
    )
    sweeps(0, 40)

    assert sweep(now=at(70)) == 1


def test_a_sweep_run_twice_or_late_changes_nothing(device: Device) -> None:
    order = watched(device, 0)
    sweep(now=at(0))
    record_contact(
        watch_id=order.watch_id, device_id=device.pk, now=at(0), reboots=True
    )
    sweeps(20, 80)
    breach_at = state_of(device).breach_at

    repeated = sweep(now=at(80))
    late = sweep(now=at(20))

    assert (repeated, late) == (0, 0)
    assert state_of(device).breach_at == breach_at
    assert JobRun.objects.get(name="health-sweep").last_run_at == at(80)


def test_the_settings_of_the_specification_hold() -> None:
    assert timedelta(minutes=5) == django_settings.HEARTBEAT_INTERVAL
    assert timedelta(seconds=30) == django_settings.HEARTBEAT_INTERVAL_DEPLOYING
    assert timedelta(seconds=60) == django_settings.HEARTBEAT_INTERVAL_AFTER


def test_the_device_shows_what_it_last_said_of_secure_boot(
    device: Device, device_caller: Caller, viewer: PersonCaller, path: str
) -> None:
    before = viewer.get(f"/devices/{device.device_id}").json()["secureBoot"]
    device_caller.post(path, BODY | {"secureBoot": "enabled"})
    enabled = viewer.get(f"/devices/{device.device_id}").json()["secureBoot"]
    device_caller.post(path, BODY)
    silent = viewer.get(f"/devices/{device.device_id}").json()["secureBoot"]

    assert (before, enabled, silent) == ("unknown", "enabled", "unknown")


# Real transactions: within that of a test, a lock outside of one goes unnoticed.
@pytest.mark.django_db(transaction=True)
def test_a_device_may_ask_for_work_before_its_first_heartbeat() -> None:
    device = DeviceFactory.create()

    answer = Caller(token=device_token(device)).get(
        f"/devices/{device.device_id}/update"
    )

    assert answer.status_code == 204
    assert DeviceState.objects.filter(device=device).exists()


# --- Baseline ----------------------------------------------------------------------


def test_ten_healthy_reports_make_a_baseline(device: Device) -> None:
    for number in range(9):
        beat(device, number, cpu_usage=10.0 + 2 * (number % 2))
    before = latest_health(device, at(9))
    beat(device, 9, cpu_usage=12.0)
    after = latest_health(device, at(10))

    assert before["baselineSamples"] == 9
    assert before["baseline"]["confidence"] == "medium"
    assert before["baseline"]["cpuUsage"]["spread"] > 3
    assert after["baselineSamples"] == 10
    assert after["baseline"] == {
        "since": at(0),
        "confidence": "high",
        "cpuUsage": {"mean": 11.0, "spread": 1.0},
        "memoryUsage": {"mean": 20.0, "spread": 0.0},
        "errorRate": {"mean": 0.0, "spread": 0.0},
    }


def test_an_error_rate_that_was_not_reported_has_no_baseline(device: Device) -> None:
    for number in range(10):
        beat(device, number, application_metrics={})

    baseline = latest_health(device, at(10))["baseline"]

    assert baseline["errorRate"] is None
    assert baseline["cpuUsage"] == {"mean": 5.0, "spread": 0.0}


def test_unhealthy_reports_teach_nothing(device: Device) -> None:
    beat(device, 0)
    beat(device, 1, cpu_usage=99.0)

    assert latest_health(device, at(2))["baselineSamples"] == 1


def test_an_update_and_its_watch_teach_nothing(device: Device) -> None:
    beat(device, 0)
    order = watched(device, 1)
    beat(device, 2, firmware_checksum=NEW, cpu_usage=60.0)
    unwatch(watch_ids=[order.watch_id], now=at(3))
    during = latest_health(device, at(3))["baselineSamples"]
    beat(device, 4, firmware_checksum=NEW)

    assert during == 1
    assert latest_health(device, at(5))["baselineSamples"] == 2


def test_late_mail_of_a_former_boot_teaches_nothing(device: Device) -> None:
    beat(device, 0, boot_id="one")
    beat(device, 1, boot_id="two")

    beat(device, 2, boot_id="one")

    assert latest_health(device, at(3))["baselineSamples"] == 2


def test_every_device_is_under_the_status_that_it_shows(viewer: PersonCaller) -> None:
    now = timezone.now()
    DeviceFactory.create()
    DeviceFactory.create(heard_at=now)
    DeviceFactory.create(heard_at=now - timedelta(days=1))
    DeviceFactory.create(heard_at=now, revoked=True)

    shown = {
        row["deviceId"]: row["status"]
        for row in viewer.get("/devices").json()["results"]
    }
    filtered: dict[str, str] = {}
    for status in DeviceStatus.values:
        page = viewer.get(f"/devices?status={status}&count=true").json()
        assert page["count"] == len(page["results"]) == 1
        filtered |= {row["deviceId"]: status for row in page["results"]}

    assert filtered == shown
