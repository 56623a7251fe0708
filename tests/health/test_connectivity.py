"""Until when a device counts as online: by the contacts that are expected of it."""

from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings as django_settings

from devices.choices import DeviceStatus
from devices.models import Device
from health.models import DeviceState
from health.services.heartbeats import note_poll, record_heartbeat
from health.services.watching import online_for, record_contact
from tests.devices.factories import DeviceFactory
from tests.health.factories import HeartbeatFactory

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
IDLE, DEPLOYING = timedelta(seconds=60), timedelta(seconds=30)


@pytest.fixture
def device(db: None) -> Device:
    return DeviceFactory.create()


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def poll(device: Device, seconds: float = 0, told: timedelta = IDLE) -> None:
    note_poll(device_id=device.pk, interval=told, now=at(seconds))


def beat(device: Device, seconds: float = 0) -> None:
    record_heartbeat(
        device=Device.objects.get(pk=device.pk),
        beat=HeartbeatFactory.create(),
        now=at(seconds),
    )


def report(device: Device, seconds: float) -> None:
    record_contact(device_id=device.pk, watch_id=device.pk, now=at(seconds))


def is_online(device: Device, seconds: float) -> bool:
    found = Device.objects.select_related("state").get(pk=device.pk)
    return found.status_at(at(seconds)) == DeviceStatus.ONLINE


def goes_offline_at(device: Device) -> float:
    state = DeviceState.objects.get(device=device)
    seconds = (state.online_until - START).total_seconds()
    assert is_online(device, seconds - 1)
    assert not is_online(device, seconds)
    return seconds


def test_a_device_that_polls_is_online_for_two_silent_polls_and_not_for_three(
    device: Device,
) -> None:
    poll(device)

    assert is_online(device, 2 * 60)
    assert is_online(device, 3 * 60 - 1)
    assert not is_online(device, 3 * 60)


def test_a_heartbeat_does_not_excuse_a_device_from_its_polls(device: Device) -> None:
    poll(device)
    beat(device, 50)

    # Its next heartbeat is due after 300 s only.
    assert goes_offline_at(device) == 50 + 3 * 60


def test_a_device_that_only_sends_heartbeats_is_expected_by_their_interval(
    device: Device,
) -> None:
    beat(device)

    assert goes_offline_at(device) == 2.5 * 300


def test_a_device_that_has_ceased_to_poll_is_expected_by_its_heartbeats(
    device: Device,
) -> None:
    poll(device)
    beat(device, 3 * 60)

    assert goes_offline_at(device) == 3 * 60 + 2.5 * 300


def test_a_device_that_has_ceased_to_send_heartbeats_is_expected_by_its_polls(
    device: Device,
) -> None:
    beat(device)
    poll(device, 2.5 * 300, told=timedelta(seconds=600))

    assert goes_offline_at(device) == 2.5 * 300 + 3 * 600


def test_the_more_frequent_contact_counts(device: Device) -> None:
    beat(device)
    poll(device, 10, told=timedelta(seconds=600))

    assert goes_offline_at(device) == 10 + 2.5 * 300


def test_a_short_interval_still_leaves_two_minutes(device: Device) -> None:
    poll(device, told=DEPLOYING)

    assert goes_offline_at(device) == 120


def test_the_interval_that_was_told_last_counts(device: Device) -> None:
    poll(device, told=DEPLOYING)
    poll(device, 30, told=IDLE)
    assert goes_offline_at(device) == 30 + 3 * 60

    poll(device, 90, told=DEPLOYING)
    assert goes_offline_at(device) == 90 + 120


def test_a_poll_right_after_a_heartbeat_is_noted(device: Device) -> None:
    poll(device)
    beat(device, 300)

    poll(device, 302)

    assert goes_offline_at(device) == 302 + 3 * 60


def test_a_poll_is_noted_at_most_every_five_seconds(device: Device) -> None:
    poll(device)
    poll(device, 4)
    unmoved = DeviceState.objects.get(device=device).last_seen_at
    poll(device, 5)

    assert unmoved == at(0)
    assert DeviceState.objects.get(device=device).last_seen_at == at(5)


@pytest.mark.parametrize(
    ("polls", "beats", "until"),
    [(True, True, 60 + 180), (False, True, 60 + 750), (True, False, 60 + 180)],
)
def test_a_report_is_a_sign_of_life_by_the_same_rule(
    device: Device, polls: bool, beats: bool, until: float
) -> None:
    if beats:
        beat(device)
    if polls:
        poll(device)

    report(device, 60)

    assert goes_offline_at(device) == until


def test_a_report_of_a_device_that_does_nothing_else_leaves_two_minutes(
    device: Device,
) -> None:
    poll(device)
    report(device, 170)

    report(device, 1000)

    assert goes_offline_at(device) == 1000 + 120


def test_the_rule_in_python_is_that_of_the_statements(device: Device) -> None:
    for told in (5, 40, 41, 600):
        DeviceState.objects.all().delete()
        poll(device, told=timedelta(seconds=told))
        expected = online_for(heartbeat=None, poll=timedelta(seconds=told))
        assert goes_offline_at(device) == expected.total_seconds()
        beat(device, 1)
        expected = online_for(
            heartbeat=django_settings.HEARTBEAT_INTERVAL, poll=timedelta(seconds=told)
        )
        assert goes_offline_at(device) == 1 + expected.total_seconds()
