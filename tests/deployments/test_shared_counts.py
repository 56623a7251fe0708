"""The counts of large deployments, shared by those who watch for a moment."""

from datetime import timedelta

import pytest

from deployments.models import Deployment
from deployments.reads import shared_counts
from deployments.reads.status import deployment_status
from deployments.services.operate import pause_deployment
from tests.deployments.world import World


@pytest.fixture
def large(world: World, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """A deployment of three devices, where three are many."""
    monkeypatch.setattr(shared_counts, "SHARED_FROM", 3)
    monkeypatch.setattr(shared_counts, "_shared", {})
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(3, old)
    deployment = world.launch(new)
    world.tick()
    deployment.refresh_from_db()
    return deployment


def watched(world: World, deployment: Deployment, seconds: float) -> tuple[int, float]:
    """Return how many devices have an order, and how old that number is."""
    now = world.now + timedelta(seconds=seconds)
    status = deployment_status(deployment, now, may_share=True)
    return status.progress.notified, (now - status.counted_at).total_seconds()


def test_a_count_is_shared_for_a_moment_and_says_how_old_it_is(
    world: World, large: Deployment
) -> None:
    first, second, _ = world.devices.values()
    first.poll()
    assert watched(world, large, 0) == (1, 0)
    second.poll()

    assert watched(world, large, 1.5) == (1, 1.5)
    assert watched(world, large, 1.6) == (2, 0)


def test_a_change_of_the_deployment_is_counted_at_once(
    world: World, large: Deployment
) -> None:
    first, second, _ = world.devices.values()
    first.poll()
    watched(world, large, 0)
    second.poll()
    # As a tick does that began before the count and ends after it.
    paused = pause_deployment(
        actor=world.admin,
        deployment_id=large.pk,
        reason="look",
        now=world.now - timedelta(seconds=1),
    )

    assert watched(world, paused, 1.1) == (2, 0)


def test_what_is_over_is_always_counted(world: World, large: Deployment) -> None:
    world.update_offered()
    large.refresh_from_db()
    now = world.now
    first = deployment_status(large, now, may_share=True)

    later = deployment_status(large, now + timedelta(seconds=1), may_share=True)

    assert large.status == "Completed"
    assert first.progress.success == 3
    assert later.counted_at == now + timedelta(seconds=1)


def test_whoever_needs_it_exact_gets_it_exact(world: World, large: Deployment) -> None:
    first, second, _ = world.devices.values()
    first.poll()
    watched(world, large, 0)
    second.poll()

    status = deployment_status(large, world.now)

    assert status.progress.notified == 2


def test_a_small_deployment_is_always_counted(
    world: World, large: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_counts, "SHARED_FROM", 4)
    first, second, _ = world.devices.values()
    first.poll()
    watched(world, large, 0)
    second.poll()

    assert watched(world, large, 0.5) == (2, 0)


def test_what_nobody_watches_any_more_is_forgotten(
    world: World, large: Deployment
) -> None:
    watched(world, large, 0)
    other = world.launch(world.image("2.6.0"))

    watched(world, other, 2)

    assert list(shared_counts._shared) == [other.pk]
