"""How many orders a minute; approvals by stage; trying again what failed."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from django.db import connection

from deployments.choices import DeploymentStatus
from deployments.exceptions import (
    NothingToRetryError,
    OwnLaunchError,
    WrongStatusError,
)
from deployments.models import Deployment, Update
from deployments.services import operate
from hotswap.common.people import create_person
from hotswap.common.roles import Role
from tests.deployments.world import World, events, statuses


def test_no_more_orders_a_minute_than_allowed(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    fleet = world.fleet(5, old)
    deployment = world.launch(new, max_devices_per_minute=2)

    at_once = [device for device in fleet if device.poll()]
    world.tick(59)
    soon = [device for device in fleet if device not in at_once and device.poll()]
    world.tick(2)
    later = [device for device in fleet if device not in at_once and device.poll()]

    assert len(at_once) == 2
    assert soon == []
    assert len(later) == 2
    waiting = next(d for d in fleet if d not in at_once and d not in later)
    target = waiting.target(deployment)
    assert target.message == "2 devices a minute are the most"
    assert target.next_attempt_at == world.now + timedelta(minutes=1)


@pytest.mark.django_db(transaction=True)
def test_polls_at_once_do_not_exceed_the_pace() -> None:
    world = World()
    old, new = world.image("1.0.0"), world.image("2.0.0")
    fleet = world.fleet(8, old)
    deployment = world.launch(new, max_devices_per_minute=3)
    barrier = Barrier(len(fleet))

    def poll(device) -> bool:
        try:
            barrier.wait()
            return device.poll() is not None
        finally:
            connection.close()

    with ThreadPoolExecutor(len(fleet)) as pool:
        given = list(pool.map(poll, fleet))

    assert sum(given) == 3
    assert Update.objects.filter(deployment=deployment).count() == 3


def test_each_stage_but_the_first_waits_for_its_approval(world: World) -> None:
    deployment = world.launch_with_approvals()

    assert deployment.status == DeploymentStatus.PAUSED
    assert deployment.pause_reasons == ["approval"]
    assert deployment.waiting_for == "stage 2 (30 %) waits for an approval"
    with pytest.raises(WrongStatusError):
        operate.resume_deployment(
            actor=world.admin, deployment_id=deployment.pk, reason="go on"
        )
    operate.approve_stage(
        actor=world.admin, deployment_id=deployment.pk, comment="fine", now=world.now
    )
    world.tick()
    assert len(world.update_offered()) == 2
    deployment.refresh_from_db()
    assert deployment.waiting_for == "stage 3 (100 %) waits for an approval"
    with pytest.raises(WrongStatusError):
        operate.pause_deployment(
            actor=world.admin, deployment_id=deployment.pk, reason="lunch"
        )


def test_under_four_eyes_the_launcher_cannot_approve(world: World, settings) -> None:
    settings.FOUR_EYES = True
    other = create_person(
        username="second", password="x-Str0ng-enough", role=Role.ADMIN, actor=None
    )
    settings.FOUR_EYES = False
    deployment = world.launch_with_approvals()
    settings.FOUR_EYES = True

    with pytest.raises(OwnLaunchError):
        operate.approve_stage(
            actor=world.admin, deployment_id=deployment.pk, comment="mine"
        )
    operate.approve_stage(actor=other, deployment_id=deployment.pk, comment="fine")

    deployment.refresh_from_db()
    assert deployment.status == DeploymentStatus.RUNNING
    stage = deployment.stages.get(number=2)
    assert (stage.approved_by, stage.opened_at) == (other, None)


def test_nothing_to_approve_is_said_so(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(1, old)
    deployment = world.launch(new)

    with pytest.raises(WrongStatusError):
        operate.approve_stage(
            actor=world.admin, deployment_id=deployment.pk, comment="early"
        )


def fail_one(world: World) -> tuple[Deployment, list]:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    fleet = world.fleet(3, old)
    deployment = world.launch(new, health_threshold=1, max_attempts=1)
    bad, *good = fleet
    for device in good:
        device.poll()
        device.go_through()
    bad.poll()
    bad.report("downloading")
    bad.report("failed", error_code="self_test_failed", message="it crashed")
    world.live_on(20)
    deployment.refresh_from_db()
    return deployment, fleet


def test_what_failed_is_tried_again_in_the_same_deployment(world: World) -> None:
    deployment, (bad, *_) = fail_one(world)
    assert deployment.status == DeploymentStatus.COMPLETED
    assert statuses(deployment) == {"success": 2, "failed": 1}

    operate.retry_failed(
        actor=world.admin, deployment_id=deployment.pk, reason="mended", now=world.now
    )
    deployment.refresh_from_db()
    assert deployment.status == DeploymentStatus.RUNNING
    world.tick()
    assert [device.name for device in world.update_offered()] == [bad.name]

    deployment.refresh_from_db()
    assert deployment.status == DeploymentStatus.COMPLETED
    assert statuses(deployment) == {"success": 3}
    assert events(deployment).count("deployment.retried") == 1
    assert events(deployment).count("deployment.completed") == 2


def test_there_must_be_something_to_try_again(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(1, old)
    deployment = world.launch(new)

    with pytest.raises(NothingToRetryError):
        operate.retry_failed(
            actor=world.admin, deployment_id=deployment.pk, reason="why not"
        )


def test_a_device_that_was_sent_back_alone_is_tried_again(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    bad, good = world.fleet(2, old)
    deployment = world.launch(
        new, health_threshold=1, rollback_thresholds=lenient(world)
    )
    for device in (bad, good):
        device.poll()
        device.go_through()
    bad.beat(application_metrics={"errorRate": 0.9})
    world.tick(5)
    bad.poll()
    bad.go_through()
    world.live_on(20)
    deployment.refresh_from_db()
    assert statuses(deployment) == {"rolled_back": 1, "success": 1}

    operate.retry_failed(
        actor=world.admin, deployment_id=deployment.pk, reason="mended", now=world.now
    )
    world.tick()
    world.update_offered()

    assert statuses(deployment) == {"success": 2}


def lenient(world: World):
    """Thresholds that send single devices back and never the deployment."""
    from dataclasses import replace

    from tests.deployments.world import THRESHOLDS

    return replace(THRESHOLDS, success_rate=1)


def test_a_stage_that_is_tried_again_settles_anew_before_its_gate_opens(
    world: World,
) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    fleet = world.fleet(8, old)
    deployment = world.launch(
        new,
        "Canary",
        parameters={
            "initial_percentage": 50,
            "increments": [100],
            "wait_duration": 100.0,
        },
        max_attempts=1,
        health_threshold=1,
    )
    bad, *good = [device for device in fleet if device.poll()]
    for device in good:
        device.go_through()
    bad.report("failed", error_code="self_test_failed", message="it crashed")
    world.live_on(20)
    assert deployment.stages.get(number=1).settled_at is not None
    world.live_on(70)

    operate.retry_failed(
        actor=world.admin, deployment_id=deployment.pk, reason="mended", now=world.now
    )
    world.tick()
    assert bad.poll()
    world.live_on(30)
    assert deployment.stages.get(number=1).settled_at is None
    bad.go_through()
    world.live_on(20)
    settled_at = deployment.stages.get(number=1).settled_at
    assert settled_at is not None
    assert deployment.stages.get(number=2).opened_at is None
    world.live_on(95)

    opened_at = deployment.stages.get(number=2).opened_at
    assert opened_at is not None
    assert opened_at >= settled_at + timedelta(seconds=100)
