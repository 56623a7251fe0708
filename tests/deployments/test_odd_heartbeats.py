"""Rollouts to devices whose heartbeats are not quite right."""

from datetime import timedelta
from typing import Any

from deployments.models import Deployment, MailRecipient, Notification, Quarantine
from deployments.reads.devices import target_rows
from deployments.services.operate import cancel_deployment, resume_deployment
from deployments.services.receivers import create_receiver
from health.models import DeviceState
from health.services.heartbeats import HeartbeatAnswer, take_in_heartbeat
from health.services.refusals import note_refused_heartbeat
from hotswap.common.models import AuditEvent
from tests.deployments.world import ScriptedDevice, World, events, statuses


def say(device: ScriptedDevice, **changes: Any) -> HeartbeatAnswer:
    """Send a heartbeat as it comes over the wire, a healthy one but for the changes."""
    body = {
        "cpuUsage": 5,
        "memoryUsage": 20,
        "uptime": 100,
        "bootId": device.boot_id,
        "firmwareVersion": device.runs.version,
        "firmwareChecksum": device.runs.sha256,
        "applicationMetrics": {"errorRate": 0},
    } | changes
    return take_in_heartbeat(device=device.device, body=body, now=device.world.now)


def live_on(device: ScriptedDevice, seconds: int, **changes: Any) -> None:
    """Let time pass while the device says the same every 5 s."""
    for _ in range(0, seconds, 5):
        device.world.now += timedelta(seconds=5)
        say(device, **changes)
        device.world.tick()


ODDITIES: tuple[dict[str, Any], ...] = (
    {"applicationMetrics": {"errorRate": 0, "queue": None}},
    {"applicationMetrics": {"errorRate": 0, "state": "fine", "nested": {"a": 1}}},
    {"applicationMetrics": {f"m{n}": n for n in range(80)}},
    {"memoryUsage": -0.4},
    {"uptime": None},
    {"firmwareVersion": "release 2.5 (blue)"},
    {"firmwareVersion": None},
    {"signalStrength": -70},
    {"secureBoot": 1},
)


def test_a_good_rollout_completes_with_one_oddity_in_every_heartbeat(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    devices = world.fleet(len(ODDITIES), old)
    deployment = world.launch(new)
    for device, oddity in zip(devices, ODDITIES, strict=True):
        say(device, **oddity)
        device.poll()
        device.work()
        device.reboot_into(new)
        say(device, **oddity)
        device.report("confirming")

    for _ in range(4):
        world.now += timedelta(seconds=5)
        answers = [
            say(device, **oddity)
            for device, oddity in zip(devices, ODDITIES, strict=True)
        ]
        world.tick()

    deployment.refresh_from_db()
    assert deployment.status == "Completed"
    assert statuses(deployment) == {"success": len(devices)}
    assert sum(bool(answer.ignored) for answer in answers) == len(ODDITIES) - 2


def test_a_device_that_does_not_say_its_cpu_is_neither_proved_nor_sent_back(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.work()
    device.reboot_into(new)
    say(device, cpuUsage=None)
    device.report("confirming")

    live_on(device, 300, cpuUsage=None)
    deployment.refresh_from_db()
    unproved = statuses(deployment), deployment.status, deployment.pause_detail
    live_on(device, 15)

    assert unproved == (
        {"confirming": 1},
        "Paused",
        "1 device is neither proved nor at fault: it does not say its CPU",
    )
    assert statuses(deployment) == {"success": 1}


def test_an_image_of_another_name_is_proved_by_its_checksum(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.work()
    device.reboot_into(new)
    say(device, firmwareVersion="v2.5 nightly")
    device.report("confirming")

    live_on(device, 15, firmwareVersion="v2.5 nightly")

    assert statuses(deployment) == {"success": 1}
    assert device.device.firmware_version == "v2.5 nightly"


def test_the_checksum_alone_tells_a_former_image(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.work()
    device.boot += 1
    device.report("confirming")

    live_on(device, 30, firmwareVersion="2.5.0")

    assert statuses(deployment) == {"confirming": 1}


# --- Refused heartbeats ---------------------------------------------------------------


def refuse(device: ScriptedDevice) -> None:
    """Send a heartbeat of which nothing can be used."""
    note_refused_heartbeat(
        device=device.device, reason="malformed JSON", now=device.world.now
    )


def refused_for(device: ScriptedDevice, seconds: int) -> None:
    """Let time pass while all that the device sends is refused."""
    for _ in range(0, seconds, 5):
        device.world.now += timedelta(seconds=5)
        refuse(device)
        device.world.tick()


def claimed(world: World, **changes: Any) -> tuple[ScriptedDevice, Deployment]:
    """Return a device that has claimed its update; all it sends is refused since."""
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new, **changes)
    device.poll()
    device.work()
    device.reboot_into(new)
    device.report("confirming")
    return device, deployment


def test_a_device_whose_heartbeats_are_refused_pauses_and_is_not_sent_back(
    world: World,
) -> None:
    device, deployment = claimed(world, max_attempts=1)

    refused_for(device, 300)

    deployment.refresh_from_db()
    assert (deployment.status, deployment.pause_reasons) == ("Paused", ["health"])
    assert deployment.pause_detail == (
        "1 device is neither proved nor at fault: "
        "its heartbeats are refused: malformed JSON"
    )
    assert statuses(deployment) == {"confirming": 1}
    (row,) = target_rows(deployment, [device.target(deployment)], world.now)
    assert row.waiting_for == "proof: its heartbeats are refused: malformed JSON"
    assert events(deployment).count("device.heartbeat_refused") == 1
    assert not Quarantine.objects.exists()


def test_it_is_proved_as_soon_as_it_is_understood(world: World) -> None:
    device, deployment = claimed(world)
    refused_for(device, 300)

    live_on(device, 15)
    proved = statuses(deployment)
    resume_deployment(
        actor=world.admin,
        deployment_id=deployment.pk,
        reason="mended",
        now=world.now,
    )
    world.tick()

    deployment.refresh_from_db()
    assert proved == {"success": 1}
    assert deployment.status == "Completed"


def test_whoever_resumes_gives_it_its_time_once_more(world: World) -> None:
    device, deployment = claimed(world)
    refused_for(device, 300)

    resume_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="wait", now=world.now
    )
    refused_for(device, 60)
    deployment.refresh_from_db()
    meanwhile = deployment.status
    refused_for(device, 15)

    deployment.refresh_from_db()
    assert (meanwhile, deployment.status) == ("Running", "Paused")


def test_a_cancel_ends_it_where_it_is(world: World) -> None:
    device, deployment = claimed(world)
    refused_for(device, 100)

    cancel_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="stop", now=world.now
    )
    refused_for(device, 5)

    deployment.refresh_from_db()
    target = device.target(deployment)
    assert deployment.status == "Cancelled"
    assert (target.status, target.error_code) == ("failed", "not_proven")
    assert target.message == "its heartbeats are refused: malformed JSON"
    assert not Quarantine.objects.exists()


def test_a_refused_device_that_falls_silent_is_offline(world: World) -> None:
    device, deployment = claimed(world, max_attempts=1)
    refused_for(device, 60)

    for _ in range(14):
        world.tick(5)

    assert device.target(deployment).error_code == "offline"


# --- Boot ids that are not unique -----------------------------------------------------


def test_a_device_with_a_constant_boot_id_is_proved_by_its_uptime(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    say(device, bootId="one", uptime=5000)
    deployment = world.launch(new)
    device.poll()
    device.work(boot_id="one")
    device.runs = new
    world.now += timedelta(seconds=30)
    say(device, bootId="one", uptime=8)
    device.report("confirming", boot_id="one")

    for uptime in (13, 18, 23):
        world.now += timedelta(seconds=5)
        say(device, bootId="one", uptime=uptime)
        world.tick()

    deployment.refresh_from_db()
    assert deployment.status == "Completed"


def test_a_device_that_did_not_reboot_is_not_proved_by_a_constant_id(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    say(device, bootId="one", uptime=5000)
    deployment = world.launch(new)
    device.poll()
    device.work(boot_id="one")
    device.runs = new
    world.now += timedelta(seconds=30)
    say(device, bootId="one", uptime=5030)
    device.report("confirming", boot_id="one")

    for uptime in range(5035, 5065, 5):
        world.now += timedelta(seconds=5)
        say(device, bootId="one", uptime=uptime)
        world.tick()

    (row,) = target_rows(deployment, [device.target(deployment)], world.now)
    assert row.waiting_for == "proof: it has not rebooted"


def test_an_id_that_was_used_before_is_proved(world: World) -> None:
    """Each slot counts for itself: A:1, B:1, and now A:1 again after a re-image."""
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    say(device, bootId="A:1", uptime=900)
    world.now += timedelta(seconds=30)
    say(device, bootId="B:1", uptime=10)
    deployment = world.launch(new)
    device.poll()
    device.work(boot_id="B:1")
    device.runs = new
    world.now += timedelta(seconds=30)
    answer = say(device, bootId="A:1", uptime=9)
    device.report("confirming", boot_id="A:1")

    for uptime in (14, 19, 24):
        world.now += timedelta(seconds=5)
        say(device, bootId="A:1", uptime=uptime)
        world.tick()

    assert answer.applied
    assert statuses(deployment) == {"success": 1}


def test_a_boot_that_was_not_heard_before_it_reports_is_not_taken_for_a_reboot(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.work(boot_id="unheard")
    device.runs = new
    say(device, bootId="unheard", uptime=50)
    device.report("confirming", boot_id="unheard")

    world.now += timedelta(seconds=15)
    say(device, bootId="unheard", uptime=65)
    world.tick()

    assert statuses(deployment) == {"confirming": 1}


# --- Two boards -----------------------------------------------------------------------


def take_turns(
    device: ScriptedDevice, seconds: int, *, since: int = 0
) -> list[HeartbeatAnswer]:
    """Let two boards send heartbeats under one identity by turns, 10 s apart.

    Args:
        since: seconds since they began to.
    """
    answers: list[HeartbeatAnswer] = []
    for passed in range(since, since + seconds, 20):
        for boot_id, uptime in (("mine", 9000), ("clone", 50)):
            answers += [say(device, bootId=boot_id, uptime=uptime + passed)]
            device.world.now += timedelta(seconds=10)
    return answers


def test_two_boards_under_one_identity_raise_one_alarm(world: World) -> None:
    create_receiver(kind=MailRecipient, actor=world.admin, address="ops@example.com")
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)

    answers = take_turns(device, 200)

    assert events(deployment).count("device.duplicate_identity") == 1
    assert AuditEvent.objects.filter(verb="device.duplicate-identity").count() == 1
    told = Notification.objects.get(type="device.duplicate_identity")
    assert told.payload["data"]["devices"] == [{"id": device.name}]
    state = DeviceState.objects.get(device_id=device.pk)
    assert state.boot_id == "clone"
    assert state.duplicate_at is not None
    assert not all(answer.applied for answer in answers)


def test_the_next_episode_is_another_alarm(world: World) -> None:
    (device,) = world.fleet(1, world.image("2.4.0"))
    take_turns(device, 100)
    world.now += timedelta(hours=3)

    take_turns(device, 100, since=100 + 3 * 3600)

    assert AuditEvent.objects.filter(verb="device.duplicate-identity").count() == 2
