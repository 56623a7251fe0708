"""Rollouts to devices whose heartbeats are not quite right."""

from datetime import timedelta
from typing import Any

from health.services.heartbeats import HeartbeatAnswer, take_in_heartbeat
from tests.deployments.world import ScriptedDevice, World, statuses


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


def test_a_device_that_never_says_its_cpu_is_not_proved_and_not_in_breach(
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

    live_on(device, 40, cpuUsage=None)
    unproved = statuses(deployment)
    live_on(device, 15)

    assert unproved == {"confirming": 1}
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
