"""The history of heartbeats: written, thinned out, dropped by age, erased."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from devices.models import Device
from devices.services.erasure import erase_device, export_device
from health.models import Reading
from health.services.heartbeats import record_heartbeat
from health.services.history import (
    device_history,
    drop_partitions,
    make_partitions,
    partition_days,
)
from health.tasks import keep_history
from hotswap.retention import enforce_policies
from tests.api import Caller, pointers, problem_of
from tests.callers import PersonCaller
from tests.common.factories import PersonFactory
from tests.devices.factories import DeviceFactory
from tests.foundation import emptiable_audit_trail
from tests.health.factories import HeartbeatFactory

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
DAY = date(2026, 3, 2)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def beat(device: Device, seconds: float = 0, **fields: Any) -> None:
    record_heartbeat(
        device=Device.objects.get(pk=device.pk),
        beat=HeartbeatFactory.create(**fields),
        now=at(seconds),
    )


def rows_in(partition: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {partition}")
        return int(cursor.fetchone()[0])


@pytest.fixture
def path(device: Device) -> str:
    return f"/devices/{device.device_id}/health/history"


# --- Writing -----------------------------------------------------------------------


def test_each_heartbeat_is_kept(device: Device) -> None:
    beat(device, 0, cpu_usage=10.0, application_metrics={"errorRate": 0.5, "x": 1.0})
    beat(device, 10, boot_id="boot-2", application_metrics={}, uptime=3)

    first, second = Reading.objects.filter(device_id=device.pk).order_by("at")

    assert (first.at, first.cpu_percent, first.memory_percent) == (at(0), 10, 20)
    assert first.error_ratio == 0.5
    assert first.application_metrics == {"errorRate": 0.5, "x": 1.0}
    assert (second.error_ratio, second.application_metrics) == (None, None)
    assert (second.is_first_of_boot, second.uptime_seconds) == (True, 3)


def test_the_smallest_numbers_are_kept(
    device: Device, device_caller: Caller, viewer: PersonCaller, path: str
) -> None:
    body = {
        "cpuUsage": 5e-324,
        "memoryUsage": 1e-60,
        "uptime": 2**53,
        "bootId": "1",
        "firmwareVersion": "1.0.0",
        "firmwareChecksum": "a" * 64,
        "applicationMetrics": {"errorRate": 1e-300},
    }

    sent = device_caller.post(f"/devices/{device.device_id}/health", body)

    assert sent.status_code == 200
    assert len(viewer.get(path).json()["points"]) == 1


def test_late_mail_of_a_former_boot_is_kept_at_its_own_time(device: Device) -> None:
    beat(device, 0, boot_id="one", uptime=100)
    beat(device, 50, boot_id="two", uptime=5)
    beat(device, 60, boot_id="one", uptime=130)

    readings = Reading.objects.filter(device_id=device.pk).order_by("at")
    assert [each.at for each in readings] == [at(0), at(30), at(50)]


def test_two_heartbeats_of_one_moment_are_no_error(device: Device) -> None:
    beat(device, 0)
    beat(device, 0)

    assert Reading.objects.filter(device_id=device.pk).count() == 1


# --- Thinning out -------------------------------------------------------------------


def test_a_bucket_has_mean_and_highest(device: Device) -> None:
    for second, cpu in ((0, 10.0), (1, 20.0), (2, 60.0), (20, 5.0)):
        beat(device, second, cpu_usage=cpu, application_metrics={"errorRate": 0.25})

    found = device_history(device=device, now=at(0), since=at(0), until=at(1800))

    assert found.bucket == timedelta(seconds=6)
    assert [(point.at, point.readings) for point in found.points] == [
        (at(0), 3),
        (at(18), 1),
    ]
    assert found.points[0].measures["cpu"] == (30.0, 60.0)
    assert found.points[0].measures["error_rate"] == (0.25, 0.25)
    assert [point.boots for point in found.points] == [1, 0]


@pytest.mark.parametrize("seconds", [1, 299, 300, 301, 599.5, 86_400, 86_400 * 366])
def test_there_are_300_points_at_most(device: Device, seconds: float) -> None:
    step = seconds / 700
    Reading.objects.bulk_create(
        Reading(
            device_id=device.pk,
            at=at(step * number),
            cpu_percent=1,
            memory_percent=1,
            uptime_seconds=1,
            firmware_version="1",
            is_first_of_boot=False,
        )
        for number in range(700)
    )

    found = device_history(device=device, now=at(0), since=at(0), until=at(seconds))

    assert len(found.points) <= 300
    assert sum(point.readings for point in found.points) == 700


def test_silence_is_a_gap_and_not_zero(device: Device) -> None:
    for second in (0, 300, 600, 4000, 4300):
        beat(device, second)

    found = device_history(device=device, now=at(0), since=at(0), until=at(86_400))

    assert found.gaps == [(at(600), at(4000))]
    assert sum(point.readings for point in found.points) == 5


def test_what_was_not_reported_is_null(
    device: Device, viewer: PersonCaller, path: str
) -> None:
    beat(device, 0, application_metrics={})

    shown = viewer.get(f"{path}?from=2026-03-02T12:00:00Z&to=2026-03-02T12:05:00Z")

    assert shown.json() == {
        "deviceId": device.device_id,
        "from": "2026-03-02T12:00:00Z",
        "to": "2026-03-02T12:05:00Z",
        "bucketSeconds": 1,
        "points": [
            {
                "at": "2026-03-02T12:00:00Z",
                "readings": 1,
                "cpuUsage": {"mean": 5.0, "max": 5.0},
                "memoryUsage": {"mean": 20.0, "max": 20.0},
                "errorRate": None,
                "applicationMetrics": {},
                "boots": 1,
            }
        ],
        "gaps": [],
        "updates": [{"at": "2026-03-02T12:00:00Z", "firmwareVersion": "1.0.0"}],
    }


@pytest.mark.parametrize("name", ["queue depth", "errorRate", "%s", "größe", " x "])
def test_an_application_metric_is_thinned_out_like_the_others(
    device: Device, viewer: PersonCaller, path: str, name: str
) -> None:
    beat(device, 0, application_metrics={name: 0.25, "other": 7.0})
    beat(device, 1, application_metrics={name: 0.75})
    beat(device, 30, application_metrics={"other": 7.0})

    query = urlencode(
        {
            "from": "2026-03-02T12:00:00Z",
            "to": "2026-03-02T12:30:00Z",
            "metric": name,
        }
    )
    points = viewer.get(f"{path}?{query}").json()["points"]

    assert [point["applicationMetrics"] for point in points] == [
        {name: {"mean": 0.5, "max": 0.75}},
        {},
    ]


def test_the_mean_of_the_largest_and_smallest_numbers_is_told(device: Device) -> None:
    beat(device, 0, application_metrics={"huge": 1.7e308, "tiny": -5e-324})
    beat(device, 1, application_metrics={"huge": 1.7e308, "tiny": -5e-324})

    huge, tiny = (
        device_history(
            device=device, now=at(0), since=at(0), until=at(1800), metric=name
        ).points[0]
        for name in ("huge", "tiny")
    )

    assert huge.metric == (1.7e308, 1.7e308)
    assert tiny.metric == (-5e-324, -5e-324)


def test_the_end_of_the_range_is_excluded(device: Device) -> None:
    beat(device, 0)
    beat(device, 60)

    found = device_history(device=device, now=at(0), since=at(0), until=at(60))

    assert [point.at for point in found.points] == [at(0)]


def test_the_last_24_hours_are_shown_unless_told_otherwise(
    device: Device, viewer: PersonCaller, path: str
) -> None:
    now = timezone.now()
    for hours in (23, 25):
        record_heartbeat(
            device=device,
            beat=HeartbeatFactory.create(),
            now=now - timedelta(hours=hours),
        )

    shown = viewer.get(path).json()

    assert len(shown["points"]) == 1
    assert shown["bucketSeconds"] == 288


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=yesterday", "/from"),
        ("to=2026-13-01T00:00:00Z", "/to"),
        ("from=2026-03-02T12:00:00Z&to=2026-03-02T12:00:00Z", "/from"),
        ("from=2026-03-03T12:00:00Z&to=2026-03-02T12:00:00Z", "/from"),
        ("from=2020-03-03T12:00:00Z&to=2026-03-02T12:00:00Z", "/from"),
        ("to=0001-01-01T00:00:00Z", "/from"),
        ("from=9999-12-31T23:59:59Z", "/from"),
        ("since=1", "/since"),
        ("metric=", "/metric"),
        ("metric=" + 65 * "x", "/metric"),
        ("metric=a&metric=b", "/metric"),
    ],
)
def test_a_wrong_range_or_metric_is_refused_by_name(
    viewer: PersonCaller, path: str, query: str, field: str
) -> None:
    answer = viewer.get(f"{path}?{query}")

    assert field in pointers(problem_of(answer, 400))


def test_the_history_of_nobody_is_not_found(viewer: PersonCaller) -> None:
    answer = viewer.get("/devices/nobody/health/history")

    assert problem_of(answer, 404)["code"] == "device_not_found"


def test_a_device_does_not_read_its_history(device_caller: Caller, path: str) -> None:
    problem_of(device_caller.get(path), 403)


# --- Partitions ---------------------------------------------------------------------


@pytest.mark.usefixtures("db")
def test_the_week_ahead_has_partitions_from_the_first_migration_on() -> None:
    today = timezone.now().astimezone(UTC).date()

    # The database of the tests may be a day old when midnight passes.
    assert {today + timedelta(days=ahead) for ahead in range(6)} <= set(
        partition_days()
    )


@pytest.mark.usefixtures("db")
def test_partitions_are_made_ahead_and_only_once() -> None:
    first = make_partitions(now=START)
    second = make_partitions(now=START)

    assert (first, second) == (8, 0)
    assert {DAY, DAY + timedelta(days=7)} <= set(partition_days())


def test_what_no_partition_took_moves_into_the_new_one(device: Device) -> None:
    beat(device, 0)
    before = rows_in("health_reading_default")

    make_partitions(now=START)

    assert before == 1
    assert rows_in("health_reading_default") == 0
    assert rows_in("health_reading_20260302") == 1
    assert Reading.objects.get(device_id=device.pk).at == START


def test_readings_go_where_their_day_is(device: Device) -> None:
    make_partitions(now=START)

    beat(device, 12 * 3600 - 1)
    beat(device, 12 * 3600)

    assert rows_in("health_reading_20260302") == 1
    assert rows_in("health_reading_20260303") == 1


def test_a_day_goes_when_all_of_it_is_past_its_age(
    device: Device, settings: Any
) -> None:
    settings.HEALTH_HISTORY = timedelta(days=30)
    make_partitions(now=START)
    beat(device, 0)

    kept = enforce_policies(now=START + timedelta(days=30), names=["heartbeats"])
    gone = enforce_policies(now=START + timedelta(days=31), names=["heartbeats"])

    assert kept == {}
    assert gone == {"heartbeats": 1}
    assert DAY not in partition_days()
    assert not Reading.objects.filter(device_id=device.pk).exists()


def test_what_no_partition_took_goes_by_age_as_well(device: Device) -> None:
    beat(device, 0)

    drop_partitions(START + timedelta(days=70), 10)

    assert not Reading.objects.filter(device_id=device.pk).exists()


@pytest.mark.usefixtures("db")
def test_the_task_keeps_what_there_is() -> None:
    keep_history()
    before = partition_days()

    keep_history()

    assert partition_days() == before


@pytest.fixture
def own_connection(transactional_db: None) -> Iterator[None]:
    yield
    keep_history()


@pytest.mark.usefixtures("own_connection")
def test_a_flush_empties_every_partition() -> None:
    device = DeviceFactory.create()
    for now in (START, timezone.now()):
        record_heartbeat(device=device, beat=HeartbeatFactory.create(), now=now)

    with emptiable_audit_trail():
        call_command("flush", interactive=False, verbosity=0)

    assert rows_in("health_reading") == 0


@pytest.mark.usefixtures("own_connection")
def test_partitions_are_made_and_dropped_for_good() -> None:
    made = make_partitions(now=START)
    found = set(partition_days())
    dropped = drop_partitions(START + timedelta(days=30), 10)

    assert made == 8
    assert DAY in found
    # The days of the first call, and those of the present if it is later than that.
    assert dropped >= 8
    assert DAY not in partition_days()


# --- Erasure and export ---------------------------------------------------------------


def test_the_export_holds_the_history(device: Device) -> None:
    beat(device, 0, cpu_usage=12.5)

    document = json.loads("".join(export_device(device_id=device.device_id)))

    (row,) = document["healthHistory"]
    assert row["at"] == "2026-03-02T12:00:00Z"
    assert row["cpuPercent"] == 12.5


def test_an_erased_device_leaves_no_reading(device: Device) -> None:
    other = DeviceFactory.create()
    beat(device, 0)
    beat(other, 0)

    erase_device(
        actor=PersonFactory.create(admin=True), device_id=device.device_id, now=at(1)
    )

    assert [row.device_id for row in Reading.objects.all()] == [other.pk]
