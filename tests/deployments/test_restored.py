"""After the restore of a backup: devices that have seen what the server has forgotten.

A device refuses a manifest whose sequence is below the highest that it has accepted.
The server may have forgotten that one; it orders anew, and no device fails by it.
"""

import json
from base64 import b64decode
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from django.db import connection

from deployments.models import Deployment, Update
from firmware.models import Firmware, Manifest
from firmware.services.manifests import manifest_for
from tests.deployments.agents import (
    AgentDevice,
    direct,
    new_model,
    program,
    running_agents,
)
from tests.deployments.live import LiveAdmin
from tests.deployments.world import ScriptedDevice, World, events, statuses
from tests.live import LiveStack
from tests.waiting import wait_until


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


@pytest.mark.stack
def test_agent_is_updated_by_a_server_that_has_forgotten_its_last_order(
    live_stack: LiveStack, tmp_path: Path
) -> None:
    admin = LiveAdmin(live_stack)
    model = new_model(admin)
    second = admin.upload(model, "2.0.0", program("2.0.0", 20_000))
    third = admin.upload(model, "3.0.0", program("3.0.0", 20_000))
    device = AgentDevice(tmp_path / "device", admin, model, program("1.0.0", 20_000))

    def update(firmware: dict[str, str]) -> str:
        deployment = direct(admin, firmware, device.name)
        wait_until(
            lambda: admin.get(f"/deployments/{deployment}")["status"] == "Completed",
            what=f"{firmware['version']}",
        )
        return deployment

    with running_agents() as agents:
        agents(device)
        update(second)
        forget(live_stack, update(third))

        deployment = update(second)

    (row,) = admin.get(f"/deployments/{deployment}/devices")["results"]
    assert (row["status"], row["attempt"]) == ("success", 1)
    assert device.running_image() == program("2.0.0", 20_000)
    assert "sequence_replaced" in (device.folder / "agent.log").read_text()


def forget(stack: LiveStack, deployment: str) -> None:
    """Take out of the database what a backup from before a deployment does not hold."""
    with psycopg.connect(stack.state()["database_url"]) as database:
        manifests = database.execute(
            "SELECT manifest_id FROM deployments_update WHERE deployment_id = %s",
            [deployment],
        ).fetchall()
        database.execute("SET LOCAL session_replication_role = replica")
        for table, column in (
            ("deployments_update", "deployment_id"),
            ("deployments_target", "deployment_id"),
            ("deployments_deployment", "id"),
        ):
            database.execute(
                f"DELETE FROM {table} WHERE {column} = %s",
                [deployment],
            )
        for (manifest,) in manifests:
            database.execute(
                "DELETE FROM firmware_manifest WHERE sequence = %s", [manifest]
            )
