"""Deprecating and recalling firmware that deployments use."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction

from deployments.models import Deployment
from firmware.models import Firmware
from firmware.services.damage import note_damage
from hotswap.common.models import AuditEvent
from tests.api import Caller, pointers, problem_of
from tests.deployments.world import World, statuses
from tests.waiting import is_waited_for, wait_until


def recall(caller: Caller, firmware: Firmware, **body: Any) -> Any:
    return caller.post(
        f"/firmware/{firmware.pk}/deprecate", {"reason": "it leaks"} | body
    )


def test_a_deprecation_alone_leaves_what_runs(world: World, admin: Caller) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(2, old)
    deployment = world.launch(new)

    answer = recall(admin, new).json()

    deployment.refresh_from_db()
    assert answer["status"] == "Deprecated"
    assert answer["cancelledDeployments"] == []
    assert deployment.cancel_requested_at is None
    assert len(world.update_offered()) == 2


def test_a_recall_cancels_what_waits_and_what_runs(world: World, admin: Caller) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(3, old)
    running = world.launch(new)
    scheduled = world.launch(new, scheduled_at=world.now + timedelta(hours=1))
    other = world.launch(world.image("2.6.0"))

    answer = recall(admin, new, cancelDeployments=True).json()
    world.tick()

    cancelled = answer["cancelledDeployments"]
    assert set(cancelled) == {str(running.pk), str(scheduled.pk)}
    running.refresh_from_db()
    scheduled.refresh_from_db()
    other.refresh_from_db()
    assert (running.status, scheduled.status) == ("Cancelled", "Cancelled")
    assert other.cancel_requested_at is None
    assert statuses(running) == {"cancelled": 3}
    event = AuditEvent.objects.get(verb="firmware.recalled")
    assert event.details["deployments"] == cancelled
    assert AuditEvent.objects.filter(verb="deployment.cancelled").count() >= 2


def test_devices_that_install_finish_after_a_recall(
    world: World, admin: Caller
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    first, _ = world.fleet(2, old)
    deployment = world.launch(new)
    first.poll()
    first.work()

    recall(admin, new, cancelDeployments=True)
    world.tick()

    assert statuses(deployment) == {"rebooting": 1, "cancelled": 1}


def test_a_version_deprecated_before_can_still_be_recalled(
    world: World, admin: Caller
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(1, old)
    deployment = world.launch(new)
    recall(admin, new)

    again = recall(admin, new, cancelDeployments=True)

    assert again.status_code == 200
    assert again.json()["cancelledDeployments"] == [str(deployment.pk)]
    problem_of(recall(admin, new), 409, "wrong_status")


def test_a_recall_of_what_was_never_approved_is_refused(
    world: World, admin: Caller
) -> None:
    draft = world.image("2.5.0", approved=False)

    problem_of(recall(admin, draft, cancelDeployments=True), 409, "wrong_status")


@pytest.mark.parametrize("value", ["perhaps", 5, None])
def test_cancel_deployments_is_true_or_false(
    world: World, admin: Caller, value: Any
) -> None:
    response = recall(admin, world.image("2.5.0"), cancelDeployments=value)

    assert pointers(problem_of(response, 400)).keys() == {"/cancelDeployments"}


def test_the_use_names_devices_and_deployments(world: World, viewer: Caller) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(3, old)
    deployment = world.launch(new)
    taken = [device for device in world.devices.values() if device.name != "d-002"]
    for device in taken:
        device.poll()
        device.go_through()
    world.live_on(15)

    use = viewer.get(f"/firmware/{new.pk}/usage").json()
    listed = viewer.get(use["devicesUrl"] + "&count=true").json()

    assert use["deviceCount"] == 2
    assert [(row["id"], row["status"]) for row in use["deployments"]] == [
        (str(deployment.pk), "Running")
    ]
    assert use["deployments"][0]["isCancellable"] is True
    assert (use["provedCount"], use["failedCount"]) == (2, 0)
    assert use["successRate"] == 100.0
    assert listed["count"] == 2
    assert {row["deviceId"] for row in listed["results"]} == {d.name for d in taken}


def test_a_firmware_that_nobody_uses_says_so(world: World, viewer: Caller) -> None:
    use = viewer.get(f"/firmware/{world.image('2.5.0').pk}/usage").json()

    assert use["deviceCount"] == 0
    assert use["deployments"] == []
    assert use["successRate"] is None


def test_an_ended_deployment_is_not_under_way(world: World, viewer: Caller) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(1, old)
    world.launch(new)
    world.update_offered()
    world.tick()
    assert Deployment.objects.get().status == "Completed"

    assert viewer.get(f"/firmware/{new.pk}/usage").json()["deployments"] == []


def test_an_order_is_not_repeated_while_its_image_is_damaged(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    world.launch(new)
    assert device.poll() is not None
    note_damage(new, "frame 0 does not verify")

    assert device.poll() is None
    assert device.beat().update_available is False
    Firmware.objects.filter(pk=new.pk).update(damaged_at=None, damage="")
    assert device.poll() is not None


def test_a_return_is_ordered_though_the_former_image_is_damaged_here(
    world: World, admin: Caller
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    world.update_offered()
    note_damage(old, "gone")

    admin.post(f"/deployments/{deployment.pk}/rollback", {"reason": "bad"})

    order = device.poll()
    assert order is not None
    assert order["action"] == "rollback"


@pytest.mark.django_db(transaction=True)
def test_a_launch_under_way_is_found_by_the_recall_that_waits_for_it(
    admin: Caller,
) -> None:
    world = World()
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(1, old)
    answers = []

    def recall_it() -> None:
        answers.append(recall(admin, new, cancelDeployments=True).json())
        connection.close()

    thread = threading.Thread(target=recall_it)
    with transaction.atomic():
        deployment = world.launch(new)
        thread.start()
        wait_until(is_waited_for, what="the recall waits")
    thread.join(60)

    assert answers[0]["cancelledDeployments"] == [str(deployment.pk)]
