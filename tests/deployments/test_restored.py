"""After the restore of a backup: devices that have seen what the server has forgotten.

A device refuses a manifest whose sequence is below the highest that it has accepted.
The server may have forgotten that one; it orders anew, and no device fails by it. The
real thing, with an agent, is in `tests/stack/test_backup.py`.
"""

import json
from base64 import b64decode
from datetime import UTC, datetime

import pytest
from django.db import connection

from deployments.models import Deployment, Update
from firmware.models import Firmware, Manifest
from firmware.services.manifests import manifest_for
from tests.deployments.world import ScriptedDevice, World, events, statuses


@pytest.fixture
def old(world: World) -> Firmware:
    return world.image("1.0.0")


@pytest.fixture
def new(world: World, old: Firmware) -> Firmware:
    return world.image("2.0.0")


def refuse(device: ScriptedDevice) -> int:
    """Refuse the order that is offered as replaced; give its sequence."""
    assert device.poll()
    assert device.order is not None
    device.report("failed", error_code="sequence_replaced", message="below 9")
    return int(json.loads(b64decode(device.order["manifest"]))["sequence"])


def test_sequence_is_above_one_whose_row_is_gone(world: World, new: Firmware) -> None:
    before = datetime.now(UTC).timestamp() * 1e6
    forgotten = manifest_for(new, above=0).sequence
    Manifest.objects.all().delete()

    again = manifest_for(new, above=0).sequence

    assert before <= forgotten < again < 2**53


def test_sequence_rises_where_the_clock_was_set_back(
    world: World, new: Firmware
) -> None:
    ahead = manifest_for(new, above=0)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE firmware_manifest SET sequence = %s", [ahead.sequence + 10**12]
        )

    next_one = manifest_for(new, above=ahead.sequence + 10**12)

    assert next_one.sequence == ahead.sequence + 10**12 + 1


def test_order_refused_as_replaced_is_ordered_anew(
    world: World, old: Firmware, new: Firmware
) -> None:
    device, *_ = world.fleet(3, old)
    deployment = world.launch(new, max_attempts=1)

    refused = refuse(device)

    target = device.target(deployment)
    assert (target.status, target.attempt, target.error_code) == ("pending", 0, "")
    closed = Update.objects.get(device=device.pk)
    assert (closed.status, closed.error_code) == ("superseded", "sequence_replaced")
    assert "device.retry" in events(deployment)
    order = device.poll()
    assert order is not None
    assert json.loads(b64decode(order["manifest"]))["sequence"] > refused
    device.go_through()
    world.live_on(15)
    assert device.target(deployment).status == "success"
    assert device.target(deployment).attempt == 1


def test_fleet_that_refuses_once_is_updated_and_nothing_rolls_back(
    world: World, old: Firmware, new: Firmware
) -> None:
    devices = world.fleet(5, old)
    deployment = world.launch(new)

    for device in devices:
        refuse(device)
    world.tick(1)
    took = world.update_offered()

    assert len(took) == 5
    assert statuses(deployment) == {"success": 5}
    # The first renewed manifest serves them all.
    assert Manifest.objects.filter(firmware=new).count() == 2
    world.tick(1)
    deployment.refresh_from_db()
    assert deployment.status == "Completed"


def test_device_that_refuses_for_ever_fails(
    world: World, old: Firmware, new: Firmware
) -> None:
    (device,) = world.fleet(1, old)
    deployment = world.launch(new, max_attempts=1)

    sequences = [refuse(device) for _ in range(4)]

    assert sequences == sorted(set(sequences))
    target = device.target(deployment)
    assert (target.status, target.error_code) == ("failed", "sequence_replaced")
    assert device.poll() is None


def test_return_refused_as_replaced_is_ordered_anew(
    world: World, old: Firmware, new: Firmware
) -> None:
    (device,) = world.fleet(1, old)
    deployment = world.launch(new, max_attempts=1)
    device.poll()
    device.work()
    device.reboot_into(new)
    device.beat()
    device.report("confirming")
    device.beat(application_metrics={"errorRate": 1.0})
    world.tick(1)

    refuse(device)

    target = device.target(deployment)
    assert (target.status, target.rollback_attempt) == ("rolling_back", 0)
    device.poll()
    device.go_through()
    world.live_on(15)
    assert device.target(deployment).status == "rolled_back"


def test_refusal_of_a_cancelled_order_brings_no_other(
    world: World, old: Firmware, new: Firmware
) -> None:
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    Deployment.objects.filter(pk=deployment.pk).update(
        cancel_requested_at=world.now, status="Running"
    )

    device.report("failed", error_code="sequence_replaced")
    world.tick(1)

    assert device.poll() is None
    assert device.target(deployment).status == "cancelled"
    assert "device.failed" not in events(deployment)
