"""A gate asks whether those who proved themselves are still heard."""

from dataclasses import replace
from datetime import timedelta

from deployments.criteria import HealthCriteria
from deployments.models import Deployment
from tests.deployments.world import CRITERIA, THRESHOLDS, World, events

# Shorter than the wait: nobody watches the devices when the gate could open.
BRIEFLY = HealthCriteria(
    confirmation_duration=CRITERIA.confirmation_duration,
    heartbeats_required=2,
    watch_duration=timedelta(seconds=10),
)
WAIT = timedelta(minutes=10)


def canary_waits(world: World) -> Deployment:
    """Launch on ten devices and prove the first stage, which then has to wait."""
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(10, old)
    deployment = world.launch(
        new,
        "Canary",
        parameters={
            "initial_percentage": 50,
            "increments": [100],
            "wait_duration": WAIT.total_seconds(),
        },
        health_criteria=BRIEFLY,
        # Long enough for their silence to be no breach while the stage waits.
        rollback_thresholds=replace(THRESHOLDS, offline_after=2 * WAIT),
    )
    world.update_offered()
    deployment.refresh_from_db()
    assert deployment.stages.get(number=1).settled_at is not None
    return deployment


def test_silent_devices_do_not_open_a_gate(world: World) -> None:
    deployment = canary_waits(world)

    for _ in range(0, WAIT.seconds, 20):
        world.tick(20)

    deployment.refresh_from_db()
    assert deployment.status == "Paused"
    assert deployment.pause_reasons == ["health"]
    assert "5 devices that had succeeded cannot be heard now" in (
        deployment.pause_detail
    )
    assert "stage.passed" not in events(deployment)


def test_heard_devices_open_it(world: World) -> None:
    deployment = canary_waits(world)

    world.live_on(WAIT.seconds, step=20)

    deployment.refresh_from_db()
    assert deployment.status == "Running"
    assert "stage.passed" in events(deployment)
    assert "stage.warning" not in events(deployment)


def test_after_an_outage_of_the_server_the_gate_waits_to_hear_them_again(
    world: World,
) -> None:
    deployment = canary_waits(world)

    world.tick(WAIT.seconds)
    deployment.refresh_from_db()
    waited_for = deployment.waiting_for
    for device in world.devices.values():
        device.beat()
    world.tick(1)

    deployment.refresh_from_db()
    assert waited_for == "5 proved devices to be heard again since the server was away"
    assert deployment.status == "Running"
    assert "stage.passed" in events(deployment)
