"""Regional, blue-green and rolling with devices in the database."""

from datetime import timedelta

import pytest

from deployments.choices import DeploymentStatus
from deployments.models import Deployment, Target
from deployments.reads.status import deployment_status
from tests.deployments.world import CRITERIA, World, events, statuses

PROOF_SECONDS = CRITERIA.confirmation_duration.seconds + 5


def opened(deployment: Deployment) -> list[str]:
    """Return the names of the stages that were opened."""
    return [each.name for each in deployment.stages.filter(opened_at__isnull=False)]


def live_fleet(world: World, deployment: Deployment) -> str | None:
    deployment.refresh_from_db()
    return str(deployment_status(deployment, world.now).live_fleet)


@pytest.fixture
def images(world: World):
    return world.image("1.0.0"), world.image("2.0.0")


def test_regions_are_updated_in_the_order_given(world: World, images) -> None:
    old, new = images
    for region in ("US-EAST", "EU-CENTRAL", "APAC"):
        world.fleet(2, old, region=region, prefix=region)

    deployment = world.launch(
        new,
        "Regional",
        parameters={"regions": ["APAC", "US-EAST"], "pause_duration": 60.0},
    )
    first = world.update_offered()
    world.live_on(60)
    second = world.update_offered()
    world.live_on(60)
    third = world.update_offered()

    assert [each.name for each in first] == ["APAC-000", "APAC-001"]
    assert [each.name for each in second] == ["US-EAST-000", "US-EAST-001"]
    # One that the order does not name comes last.
    assert [each.name for each in third] == ["EU-CENTRAL-000", "EU-CENTRAL-001"]
    deployment.refresh_from_db()
    assert deployment.status == DeploymentStatus.COMPLETED
    for target in Target.objects.filter(deployment=deployment):
        stage = deployment.stages.get(number=target.stage_number)
        assert stage.name == target.device.region


def test_the_next_region_waits_for_its_pause(world: World, images) -> None:
    old, new = images
    world.fleet(1, old, region="US-EAST", prefix="east")
    world.fleet(1, old, region="APAC", prefix="apac")
    deployment = world.launch(
        new,
        "Regional",
        parameters={"regions": ["US-EAST", "APAC"], "pause_duration": 600.0},
    )

    world.update_offered()
    world.live_on(500, step=20)

    assert opened(deployment) == ["US-EAST"]
    world.live_on(120, step=20)
    assert opened(deployment) == ["US-EAST", "APAC"]


def test_a_region_that_fails_keeps_the_others_untouched(world: World, images) -> None:
    old, new = images
    east = world.fleet(2, old, region="US-EAST", prefix="east")
    world.fleet(2, old, region="APAC", prefix="apac")
    deployment = world.launch(
        new,
        "Regional",
        parameters={"regions": ["US-EAST", "APAC"], "pause_duration": 60.0},
    )

    for device in east:
        device.poll()
        device.go_through()
    for device in east:
        device.beat(application_metrics={"errorRate": 0.9})
    world.tick(5)

    deployment.refresh_from_db()
    assert deployment.status == DeploymentStatus.ROLLING_BACK
    assert opened(deployment) == ["US-EAST"]
    assert all(
        device.poll() is None
        for name, device in world.devices.items()
        if name.startswith("apac")
    )


def blue_green(world: World, images) -> Deployment:
    old, new = images
    world.fleet(5, old)
    return world.launch(new, "BlueGreen", parameters={"verification_duration": 60.0})


def test_the_green_half_goes_live_when_it_is_verified(world: World, images) -> None:
    deployment = blue_green(world, images)

    assert live_fleet(world, deployment) == "blue"
    assert len(world.update_offered()) == 3
    assert live_fleet(world, deployment) == "blue"
    world.live_on(60)
    assert live_fleet(world, deployment) == "green"
    assert len(world.update_offered()) == 2
    world.live_on(30)
    deployment.refresh_from_db()
    assert deployment.status == DeploymentStatus.RUNNING
    world.live_on(60)

    deployment.refresh_from_db()
    assert deployment.status == DeploymentStatus.COMPLETED
    assert live_fleet(world, deployment) == "green"
    assert events(deployment).count("deployment.switched") == 1


def test_a_failure_after_the_switch_leaves_green_live(world: World, images) -> None:
    deployment = blue_green(world, images)
    world.update_offered()
    world.live_on(60)
    blue = [device for device in world.devices.values() if device.poll()]
    for device in blue:
        device.go_through()
        device.beat(application_metrics={"errorRate": 0.9})
    world.tick(5)

    assert live_fleet(world, deployment) == "green"
    assert len(world.update_offered()) == 2
    world.tick(1)
    deployment.refresh_from_db()
    assert deployment.status == DeploymentStatus.FAILED
    assert statuses(deployment) == {"success": 3, "rolled_back": 2}


def test_a_failure_before_the_switch_never_switched(world: World, images) -> None:
    deployment = blue_green(world, images)
    for device in world.devices.values():
        if device.poll():
            device.go_through()
            device.beat(application_metrics={"errorRate": 0.9})
    world.tick(5)

    assert live_fleet(world, deployment) == "blue"
    assert "deployment.switched_back" not in events(deployment)


def test_three_batches_are_in_flight(world: World, images) -> None:
    old, new = images
    world.fleet(9, old)
    deployment = world.launch(
        new,
        "Rolling",
        parameters={
            "batch_size": 2,
            "batch_wait_duration": 60.0,
            "max_concurrent_batches": 3,
        },
    )

    assert opened(deployment) == ["batch 1", "batch 2", "batch 3"]
    assert len(world.update_offered()) == 6
    assert len(opened(deployment)) == 3
    world.live_on(60)
    assert len(opened(deployment)) == 5
    assert len(world.update_offered()) == 3
    world.live_on(60)
    deployment.refresh_from_db()
    assert deployment.status == DeploymentStatus.COMPLETED


def test_a_batch_that_is_slow_holds_its_own_place_only(world: World, images) -> None:
    old, new = images
    world.fleet(6, old)
    deployment = world.launch(
        new,
        "Rolling",
        parameters={
            "batch_size": 2,
            "batch_wait_duration": 0.0,
            "max_concurrent_batches": 2,
        },
        device_timeout=timedelta(hours=5),
    )
    offered = [device for device in world.devices.values() if device.poll()]
    slow = next(d for d in offered if d.target(deployment).stage_number == 1)
    for device in offered:
        if device is not slow:
            device.go_through()
    world.live_on(PROOF_SECONDS)

    # Batch 1 is unfinished, batch 2 has passed, so batch 3 has its place.
    assert opened(deployment) == ["batch 1", "batch 2", "batch 3"]
    slow.go_through()
    world.update_offered()
    deployment.refresh_from_db()
    assert deployment.status == DeploymentStatus.COMPLETED
