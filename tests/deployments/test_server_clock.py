"""The clock of the server is set while devices are watched.

Whoever falls silent is noticed all the same, and whoever is healthy is proved.
"""

from datetime import timedelta

import pytest
from django.utils import timezone

from deployments.services.tick import TICK_JOB
from hotswap.common.services import record_run, run_age
from tests.deployments.world import CRITERIA, World

MINUTES = 600
DAY = 24 * 3600


# Seconds by which the clock jumps, and by which it jumps again soon after.
STEPS = [(MINUTES, 0), (-MINUTES, 0), (DAY, -DAY), (-DAY, DAY)]


@pytest.mark.parametrize("step", STEPS)
def test_a_healthy_device_is_proved(world: World, step: tuple[int, int]) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.go_through()
    for seconds in step:
        world.now += timedelta(seconds=seconds)
        world.live_on(5)

    world.live_on(2 * CRITERIA.confirmation_duration.seconds)

    deployment.refresh_from_db()
    assert device.target(deployment).status == "success"
    assert deployment.status == "Completed"


@pytest.mark.parametrize("step", STEPS)
def test_a_silent_device_is_noticed(world: World, step: tuple[int, int]) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(10, old)
    deployment = world.launch(new, "Canary", parameters={"wait_duration": 7.0 * DAY})
    (canary,) = world.update_offered()
    for seconds in step:
        world.now += timedelta(seconds=seconds)
        world.live_on(60, step=20)

    for _ in range(60):
        world.tick(20)
        if canary.target(deployment).error_code:
            break

    assert canary.target(deployment).error_code == "offline"


def test_a_clock_that_was_ahead_begins_anew(db: None) -> None:
    now = timezone.now()

    began = record_run(name=TICK_JOB, now=now)
    ahead = record_run(name=TICK_JOB, now=now + timedelta(days=1))
    right = record_run(name=TICK_JOB, now=now + timedelta(seconds=5))
    late = record_run(name=TICK_JOB, now=now - timedelta(seconds=20))

    assert began == now
    assert ahead == now + timedelta(days=1)
    assert right == late == now + timedelta(seconds=5)


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_age_of_a_run_is_that_of_the_database(db: None, hours: int) -> None:
    """Whatever the clock of the host says where it ran."""
    record_run(name=TICK_JOB, now=timezone.now() + timedelta(hours=hours))

    age = run_age(name=TICK_JOB)

    assert age is not None
    assert timedelta(0) <= age < timedelta(minutes=30)
