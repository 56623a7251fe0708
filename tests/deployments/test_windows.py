"""When a maintenance window is open, as a table; and what a deployment does then."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.choices import DeploymentStatus
from deployments.windows import DAYS, DEVICE_ZONE, MaintenanceWindow
from devices.services.registry import change_device
from tests.deployments.world import START, World, events, statuses

EVERY_DAY = list(DAYS)


def window(
    start: str, end: str, days: str = "MO TU WE TH FR SA SU", zone: str = "UTC"
) -> MaintenanceWindow:
    return MaintenanceWindow(
        frozenset(days.split()),
        time.fromisoformat(start),
        time.fromisoformat(end),
        zone,
    )


# 2026-03-02 is a Monday.
@pytest.mark.parametrize(
    ("shown", "now", "opens"),
    [
        (window("10:00", "12:00"), "2026-03-02T11:00", None),
        (window("10:00", "12:00"), "2026-03-02T10:00", None),
        (window("10:00", "12:00"), "2026-03-02T12:00", "2026-03-03T10:00"),
        (window("10:00", "12:00"), "2026-03-02T09:59", "2026-03-02T10:00"),
        # Over midnight it belongs to the day on which it starts.
        (window("22:00", "04:00", "MO"), "2026-03-03T03:59", None),
        (window("22:00", "04:00", "MO"), "2026-03-02T03:59", "2026-03-02T22:00"),
        (window("22:00", "04:00", "MO"), "2026-03-03T22:30", "2026-03-09T22:00"),
        # The same time twice is a whole day.
        (window("06:00", "06:00"), "2026-03-02T05:59", None),
        (window("10:00", "12:00", zone="Europe/Berlin"), "2026-03-02T09:30", None),
        # Clocks go forward on 2026-03-29: 02:30 is 01:30 UTC that night.
        (
            window("02:30", "05:00", "SU", "Europe/Berlin"),
            "2026-03-29T00:00",
            "2026-03-29T01:30",
        ),
    ],
)
def test_the_opening_is_found(
    shown: MaintenanceWindow, now: str, opens: str | None
) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)

    found = shown.opening_after(at, shown.zone_of({}))

    expected = None if opens is None else datetime.fromisoformat(opens)
    assert found == (expected and expected.replace(tzinfo=UTC))


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../etc/passwd", "a\0b"])
def test_a_device_with_an_unknown_zone_is_in_utc(name: str) -> None:
    shown = window("10:00", "12:00", zone=DEVICE_ZONE)

    assert shown.zone_of({"timezone": name}) == ZoneInfo("UTC")


@given(
    days=st.sets(st.sampled_from(DAYS), min_size=1),
    start=st.times().map(lambda each: each.replace(second=0, microsecond=0)),
    end=st.times().map(lambda each: each.replace(second=0, microsecond=0)),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York"]),
    now=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),  # noqa: DTZ001
)
def test_a_window_opens_within_eight_days_and_is_open_then(
    days: set[str], start: time, end: time, zone: str, now: datetime
) -> None:
    shown = MaintenanceWindow(frozenset(days), start, end, zone)
    at = now.replace(tzinfo=UTC)

    opens = shown.opening_after(at, ZoneInfo(zone))

    if opens is not None:
        assert at < opens <= at + timedelta(days=8)
        # An hour that the clocks leap over has no window.
        later = shown.opening_after(opens, ZoneInfo(zone))
        assert later is None or later > opens


def stored(start: str, end: str, zone: str = "UTC") -> dict[str, object]:
    return {"days": EVERY_DAY, "start": start, "end": end, "timezone": zone}


def test_outside_of_its_window_a_deployment_pauses_and_says_until_when(
    world: World,
) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(2, old)

    # The world begins at 12:00.
    deployment = world.launch(new, maintenance_window=stored("12:30", "14:00"))

    assert deployment.status == DeploymentStatus.PAUSED
    assert deployment.pause_reasons == ["window"]
    assert deployment.next_check_at == START + timedelta(minutes=30)
    assert "until 2026-03-02 12:30 UTC" in deployment.waiting_for
    assert world.update_offered() == []


def test_the_clock_opens_the_window_and_closes_it_again(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    first, _ = world.fleet(2, old)
    deployment = world.launch(
        new,
        maintenance_window=stored("12:05", "12:10"),
        device_timeout=timedelta(hours=1),
    )

    world.live_on(5 * 60 + 20, step=20)
    deployment.refresh_from_db()
    assert deployment.status == DeploymentStatus.RUNNING
    first.poll()
    world.live_on(5 * 60, step=20)
    deployment.refresh_from_db()

    assert deployment.pause_reasons == ["window"]
    # The device at work finishes, the other one is not told.
    first.go_through()
    world.live_on(15)
    assert statuses(deployment) == {"success": 1, "pending": 1}
    assert events(deployment).count("deployment.resumed") == 1


def test_a_closed_window_does_not_use_up_the_deadline(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    _, away = world.fleet(2, old)
    # Closed from 12:05 to 12:10.
    deployment = world.launch(
        new,
        maintenance_window=stored("12:10", "12:05"),
        offline_deadline=timedelta(minutes=8),
    )
    world.live_on(11 * 60, step=20, but=[away])

    deployment.refresh_from_db()
    assert deployment.status == DeploymentStatus.RUNNING
    assert away.target(deployment).status == "pending"
    world.live_on(4 * 60, step=20, but=[away])
    assert away.target(deployment).status == "skipped"


def test_each_device_has_its_own_night(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    here, there = world.fleet(2, old)
    change_device(
        actor=world.admin,
        device_id=there.name,
        changes={"tags": {"timezone": "Asia/Kolkata"}},
    )
    deployment = world.launch(
        new, maintenance_window=stored("11:00", "13:00", DEVICE_ZONE)
    )

    assert here.poll() is not None
    assert there.poll() is None
    target = there.target(deployment)
    # 11:00 in Kolkata is 05:30 UTC.
    assert target.next_attempt_at == datetime(2026, 3, 3, 5, 30, tzinfo=UTC)
    assert target.message == "outside of its maintenance window"
    assert deployment.status == DeploymentStatus.RUNNING
