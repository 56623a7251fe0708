"""Devices that fall silent, come back, fall ill or recover are announced once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from devices.models import Device
from devices.services.erasure import erase_device
from health.models import DeviceEvent, DeviceState
from health.services import transitions
from health.services.heartbeats import record_heartbeat
from health.services.history import forget_device_events
from health.services.watching import sweep
from tests.callers import PersonCaller
from tests.common.factories import PersonFactory
from tests.devices.factories import DeviceFactory
from tests.health.factories import HeartbeatFactory

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
SILENT = 750


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.fixture
def device(db: None) -> Device:
    device = DeviceFactory.create()
    beat(device)
    return device


def beat(device: Device, seconds: float = 0, **fields: Any) -> None:
    record_heartbeat(
        device=Device.objects.get(pk=device.pk),
        beat=HeartbeatFactory.create(**fields),
        now=at(seconds),
    )


def sweep_until(seconds: float, *, since: float = 0) -> None:
    """Sweep often enough to be taken for awake."""
    moment = since
    while moment < seconds:
        sweep(now=at(moment))
        moment += 25
    sweep(now=at(seconds))


def log_of(device: Device) -> list[tuple[str, str]]:
    events = DeviceEvent.objects.filter(device=device).order_by("id")
    return list(events.values_list("event", "message"))


def test_a_device_is_announced_offline_once_and_online_once(device: Device) -> None:
    sweep_until(SILENT - 1)
    assert log_of(device) == []

    sweep(now=at(SILENT))
    sweep(now=at(SILENT + 5))
    assert log_of(device) == [
        ("device.offline", "not heard since 2026-03-02 12:00:00 UTC")
    ]

    beat(device, SILENT + 6)
    sweep(now=at(SILENT + 10))
    sweep(now=at(SILENT + 15))
    assert [event for event, _ in log_of(device)] == ["device.offline", "device.online"]


def test_a_device_is_announced_unhealthy_once_and_healthy_once(device: Device) -> None:
    for seconds in (1, 2):
        beat(device, seconds, application_metrics={"errorRate": 0.5})
        sweep(now=at(seconds))
    for seconds in (3, 4):
        beat(device, seconds)
        sweep(now=at(seconds))

    assert log_of(device) == [
        ("device.unhealthy", "error rate 50.0 % is over 10 %"),
        ("device.healthy", "it keeps to its limits again"),
    ]


def test_a_degraded_device_is_neither(device: Device) -> None:
    beat(device, 1, cpu_usage=99.0)

    sweep(now=at(2))

    assert log_of(device) == []


@pytest.mark.parametrize("change", [{"enabled": False}, {"revoked_at": timezone.now()}])
def test_nothing_is_announced_of_a_device_out_of_service(
    device: Device, change: dict[str, Any]
) -> None:
    Device.objects.update(**change)

    sweep_until(SILENT + 100)

    assert log_of(device) == []


def test_after_an_outage_of_the_server_a_silence_has_its_whole_time_again(
    device: Device,
) -> None:
    sweep(now=at(0))

    sweep_until(5000 + SILENT - 1, since=5000)
    assert log_of(device) == []
    sweep(now=at(5000 + SILENT))

    assert [event for event, _ in log_of(device)] == ["device.offline"]


def test_a_large_table_is_looked_at_in_parts(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transitions, "PAGES_A_SWEEP", 1)
    fleet = [device, *DeviceFactory.create_batch(60)]
    for each in fleet[1:]:
        beat(each)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_relation_size('health_devicestate')"
            " / current_setting('block_size')::int"
        )
        (pages,) = cursor.fetchone()
    assert pages > 2
    sweep_until(SILENT - 1)

    found = []
    # What is written meanwhile makes the table grow, and shifts the parts.
    for number in range(10 * pages):
        sweep(now=at(SILENT + 5 * number))
        found.append(DeviceEvent.objects.count())

    assert len(set(found) - {0}) > 1
    assert found[-1] == len(fleet)


@pytest.mark.django_db(transaction=True)
def test_of_two_servers_that_look_at_once_one_announces(device: Device) -> None:
    sweep_until(SILENT - 1)
    together = Barrier(2)

    def look(_: int) -> None:
        try:
            together.wait()
            sweep(now=at(SILENT))
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(look, range(2)))

    assert [event for event, _ in log_of(device)] == ["device.offline"]


@pytest.mark.django_db(transaction=True)
def test_a_state_that_a_heartbeat_holds_is_left_to_the_next_look(
    device: Device,
) -> None:
    sweep_until(SILENT - 1)

    def look() -> None:
        try:
            sweep(now=at(SILENT))
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        DeviceState.objects.select_for_update().get(device=device)
        pool.submit(look).result()

    assert log_of(device) == []
    sweep(now=at(SILENT + 5))
    assert [event for event, _ in log_of(device)] == ["device.offline"]


def test_the_log_is_read_newest_first(viewer: PersonCaller, device: Device) -> None:
    sweep_until(SILENT)
    beat(device, SILENT)
    sweep(now=at(SILENT + 5))

    rows = viewer.get(f"/devices/{device.device_id}/health/events").json()["results"]

    assert [row["event"] for row in rows] == ["device.online", "device.offline"]
    assert rows[1] == {
        "at": "2026-03-02T12:12:30Z",
        "level": "WARNING",
        "event": "device.offline",
        "message": "not heard since 2026-03-02 12:00:00 UTC",
    }
    assert viewer.get("/devices/nobody/health/events").status_code == 404


def test_the_log_goes_with_its_device_and_with_age(device: Device) -> None:
    other = DeviceFactory.create()
    beat(other)
    sweep_until(SILENT)

    erase_device(actor=PersonFactory.create(admin=True), device_id=device.device_id)
    assert set(DeviceEvent.objects.values_list("device", flat=True)) == {other.pk}
    forget_device_events(START + timedelta(days=2), 10)

    assert not DeviceEvent.objects.exists()
