"""When a maintenance window is open, as a table; and what a deployment does then.

What is said of all time zones is looked at where it may go wrong: around each change
of the clocks within sixteen years, one of those that are alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.choices import DeploymentStatus
from deployments.reads.devices import target_rows
from deployments.windows import DAYS, DEVICE_ZONE, MaintenanceWindow
from devices.models import Device
from devices.services.registry import change_device
from devices.timezones import zone_names
from tests.deployments.world import START, ScriptedDevice, World, events, statuses

EVERY_DAY = list(DAYS)
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


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
        # In Berlin the clocks leap from 02:00 to 03:00 (01:00 UTC) on 2026-03-29.
        # What starts in the hour that is not there opens when they have leapt,
        (
            window("02:30", "05:00", "SU", "Europe/Berlin"),
            "2026-03-29T00:00",
            "2026-03-29T01:00",
        ),
        # what ends in it is open until they leap,
        (
            window("01:00", "02:30", "SU", "Europe/Berlin"),
            "2026-03-29T00:59:59",
            None,
        ),
        (
            window("01:00", "02:30", "SU", "Europe/Berlin"),
            "2026-03-29T01:00",
            "2026-04-04T23:00",
        ),
        # and what lies in it as a whole comes afterwards, for its half hour.
        (
            window("02:15", "02:45", "SU", "Europe/Berlin"),
            "2026-03-28T00:00",
            "2026-03-29T01:00",
        ),
        (
            window("02:15", "02:45", "SU", "Europe/Berlin"),
            "2026-03-29T01:29:59",
            None,
        ),
        (
            window("02:15", "02:45", "SU", "Europe/Berlin"),
            "2026-03-29T01:30",
            "2026-04-05T00:15",
        ),
        # They go back from 03:00 to 02:00 (01:00 UTC) on 2026-10-25: twice it is 02:15,
        (
            window("02:15", "02:45", "SU", "Europe/Berlin"),
            "2026-10-25T00:00",
            "2026-10-25T00:15",
        ),
        (
            window("02:15", "02:45", "SU", "Europe/Berlin"),
            "2026-10-25T00:45",
            "2026-10-25T01:15",
        ),
        # and twice it is not yet 02:30.
        (
            window("01:00", "02:30", "SU", "Europe/Berlin"),
            "2026-10-25T00:30",
            "2026-10-25T01:00",
        ),
        # All of Samoa's Friday 2011-12-30 was left out: its window is on Saturday.
        (
            window("22:00", "23:00", "FR", "Pacific/Apia"),
            "2011-12-29T12:00",
            "2011-12-30T10:00",
        ),
        (
            window("22:00", "23:00", "FR", "Pacific/Apia"),
            "2011-12-30T11:00",
            "2012-01-06T08:00",
        ),
    ],
)
def test_the_opening_is_found(
    shown: MaintenanceWindow, now: str, opens: str | None
) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)

    found = shown.opening_after(at, ZoneInfo(shown.zone))

    expected = None if opens is None else datetime.fromisoformat(opens)
    assert found == (expected and expected.replace(tzinfo=UTC))


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../etc/passwd", "a\0b"])
def test_a_device_with_an_unknown_zone_is_in_none(name: str) -> None:
    shown = window("10:00", "12:00", zone=DEVICE_ZONE)

    assert shown.zone_of({"timezone": name}) is None
    assert shown.zone_of({}) == ZoneInfo("UTC")


# --- In all time zones ------------------------------------------------------------


@dataclass(frozen=True)
class ClockChange:
    """A change of the clocks of a zone: when, and what they show before and after."""

    zone: ZoneInfo
    at: datetime
    before: datetime
    after: datetime


def local(zone: ZoneInfo, at: datetime) -> datetime:
    return at.astimezone(zone).replace(tzinfo=None)


def offset(zone: ZoneInfo, at: datetime) -> timedelta | None:
    return at.astimezone(zone).utcoffset()


@cache
def clock_changes() -> list[ClockChange]:
    """Find the changes of 2020 to 2036 in all zones, each kind of them once."""
    kinds: dict[object, ClockChange] = {}
    for name in sorted(zone_names()):
        zone = ZoneInfo(name)
        at = datetime(2020, 1, 1, tzinfo=UTC)
        now = offset(zone, at)
        while at.year < 2036:
            before, after = at, at + 7 * DAY
            at, former = after, now
            now = offset(zone, at)
            if now == former:
                continue
            while after - before > SECOND:
                middle = before + (after - before) // 2 // SECOND * SECOND
                if offset(zone, middle) == former:
                    before = middle
                else:
                    after = middle
            shown = local(zone, before) + SECOND
            change = ClockChange(zone, after, shown, local(zone, after))
            kind = (shown.time(), shown.weekday(), change.after - shown)
            kinds.setdefault(kind, change)
    return list(kinds.values())


def is_open(shown: MaintenanceWindow, change: ClockChange, at: datetime) -> bool:
    """Tell by the clock on the wall, a week around a change, what opens when."""
    clock = local(change.zone, at)
    for day in (clock.date() - DAY * back for back in range(3)):
        if DAYS[day.weekday()] not in shown.days:
            continue
        starts = datetime.combine(day, shown.start)
        ends = datetime.combine(day, shown.end)
        ends += DAY * (ends <= starts)
        if starts <= clock < ends:
            return True
        if change.before <= starts and ends <= change.after:
            return change.at <= at < change.at + (ends - starts)
    return False


def windows_around(change: ClockChange) -> Iterator[MaintenanceWindow]:
    """Give windows that begin and end before, in, and after what changes."""
    first, last = sorted((change.before, change.after))
    quarter = (last - first) / 4
    marks = [
        first - timedelta(minutes=30),
        first,
        first + quarter,
        last - quarter,
        last,
        last + timedelta(minutes=30),
    ]
    days = [frozenset({DAYS[(first.weekday() + shift) % 7]}) for shift in (0, -1)]
    for number, start in enumerate(marks):
        for place, end in enumerate(marks):
            # One day, the one before (over midnight), all days: in turn.
            on = [days[0], days[0], days[1], frozenset(DAYS)][(number + place) % 4]
            yield MaintenanceWindow(
                on,
                start.time().replace(second=0, microsecond=0),
                end.time().replace(second=0, microsecond=0),
                change.zone.key,
            )


def test_around_each_change_of_the_clocks_a_window_keeps_to_the_wall() -> None:
    changes = clock_changes()
    assert len(changes) > 30
    for change in changes:
        length = abs(change.after - change.before)
        for shown in windows_around(change):
            for at in (
                change.at - 2 * DAY,
                change.at - length / 2,
                change.at - SECOND,
                change.at,
                change.at + length / 4,
                change.at + length,
            ):
                said = f"{shown} at {at}"

                opens = shown.opening_after(at, change.zone)

                assert (opens is None) == is_open(shown, change, at), said
                if opens is None:
                    continue
                assert at < opens <= at + 8 * DAY, said
                assert is_open(shown, change, opens), said
                assert not is_open(shown, change, opens - SECOND), said
                between = (opens - at) / 8
                for part in range(8):
                    assert not is_open(shown, change, at + part * between), said


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    days=st.sets(st.sampled_from(DAYS), min_size=1),
    start=st.times().map(lambda each: each.replace(second=0, microsecond=0)),
    end=st.times().map(lambda each: each.replace(second=0, microsecond=0)),
    zone=st.sampled_from(sorted(zone_names())),
    now=st.datetimes(datetime(2026, 1, 1), datetime(2036, 1, 1)),  # noqa: DTZ001
)
def test_a_window_opens_within_eight_days_and_at_that_moment(
    days: set[str], start: time, end: time, zone: str, now: datetime
) -> None:
    shown = MaintenanceWindow(frozenset(days), start, end, zone)
    at = now.replace(tzinfo=UTC)

    opens = shown.opening_after(at, ZoneInfo(zone))

    if opens is not None:
        assert at < opens <= at + timedelta(days=8)
        assert shown.opening_after(opens, ZoneInfo(zone)) is None
        just_before = opens - timedelta(microseconds=1)
        assert shown.opening_after(just_before, ZoneInfo(zone)) == opens


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
def test_all_days_around_the_clock_it_never_closes(zone: str) -> None:
    shown = window("05:00", "05:00", zone=zone)
    begins = datetime(2026, 1, 1, tzinfo=UTC)

    for hour in range(366 * 24):
        at = begins + timedelta(hours=hour)
        assert shown.opening_after(at, ZoneInfo(zone)) is None


# --- Deployments ------------------------------------------------------------------


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


# --- Devices whose zone nobody knows ----------------------------------------------


def lost(world: World, device: ScriptedDevice, name: str = "Mars/Olympus") -> None:
    """Tag a device as none can be tagged any more."""
    Device.objects.filter(pk=device.pk).update(tags={"timezone": name})


def waits(world: World, device: ScriptedDevice) -> tuple[str, datetime]:
    target = device.device.target_set.select_related("device", "deployment").get()
    (row,) = target_rows(target.deployment, [target], world.now)
    assert row.waiting_for is not None
    assert row.waiting_until is not None
    return row.waiting_for, row.waiting_until


def test_a_device_whose_zone_is_unknown_waits_and_says_so(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    here, there = world.fleet(2, old)
    lost(world, there)

    # In UTC it would be open.
    deployment = world.launch(
        new, maintenance_window=stored("11:00", "13:00", DEVICE_ZONE)
    )
    opened = world.now

    assert here.poll() is not None
    for _ in range(3):
        assert there.poll() is None
        assert waits(world, there) == (
            "a correction: its tag timezone names no time zone",
            opened + timedelta(hours=24),
        )
        world.live_on(80, step=20)
    target = there.target(deployment)
    assert (target.status, target.error_code) == ("pending", "unknown_timezone")


def test_a_corrected_zone_is_seen_within_a_minute(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    (there,) = world.fleet(1, old)
    lost(world, there)
    deployment = world.launch(
        new, maintenance_window=stored("11:00", "13:00", DEVICE_ZONE)
    )
    assert there.poll() is None

    change_device(
        actor=world.admin, device_id=there.name, changes={"tags": {"timezone": "UTC"}}
    )

    assert waits(world, there)[0] == "the device to poll"
    world.tick(60)
    assert there.poll() is not None
    assert there.target(deployment).error_code == ""


def test_a_device_whose_zone_nobody_corrects_is_skipped_for_that(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    (there,) = world.fleet(1, old)
    lost(world, there)
    deployment = world.launch(
        new,
        maintenance_window=stored("11:00", "13:00", DEVICE_ZONE),
        offline_deadline=timedelta(minutes=10),
    )

    for _ in range(10):
        assert there.poll() is None
        world.live_on(60, step=20)
    assert there.target(deployment).status == "pending"
    world.live_on(20, step=20)

    target = there.target(deployment)
    assert (target.status, target.error_code) == ("skipped", "unknown_timezone")
    assert target.message == "its tag timezone names no time zone"


def test_a_device_that_waits_for_its_night_is_not_given_up_before(
    world: World,
) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    here, away = world.fleet(2, old)
    deployment = world.launch(
        new,
        maintenance_window=stored("12:30", "12:40", DEVICE_ZONE),
        offline_deadline=timedelta(minutes=10),
    )
    assert here.poll() is None

    world.live_on(20 * 60, step=20, but=[away])
    assert here.target(deployment).status == "pending"
    # It has never polled: nobody knows whether it waits for its night.
    assert away.target(deployment).status == "skipped"
    world.live_on(11 * 60, step=20)

    assert here.poll() is not None


def test_a_launch_warns_of_devices_without_a_zone_that_is_known(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    _, well, *bad = world.fleet(4, old)
    Device.objects.filter(pk=well.pk).update(tags={"timezone": "Asia/Kolkata"})
    for device in bad:
        lost(world, device)
    own: dict[str, Any] = {"maintenance_window": stored("11:00", "13:00", DEVICE_ZONE)}

    preview = world.preview(new, **own)
    calm = world.preview(new, maintenance_window=stored("11:00", "13:00"))
    deployment = world.launch(new, **own)

    assert [(each.code, each.count) for each in preview.warnings] == [
        ("whole_fleet", 4),
        ("unknown_timezone", 2),
        ("no_timezone", 1),
    ]
    assert [each.code for each in calm.warnings] == ["whole_fleet"]
    said = deployment.events.filter(event="deployment.warning").order_by("id")
    assert [each.message.split(":")[0] for each in said] == [
        "unknown_timezone",
        "no_timezone",
    ]


def test_a_zone_that_the_server_has_lost_pauses_the_deployment(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    (device,) = world.fleet(1, old)

    deployment = world.launch(
        new, maintenance_window=stored("11:00", "13:00", "Mars/Olympus")
    )

    assert deployment.pause_reasons == ["window"]
    assert "Mars/Olympus, is not known" in deployment.waiting_for
    assert device.poll() is None
