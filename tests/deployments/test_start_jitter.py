"""Spreading the start of a stage over its devices."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from deployments.services.operate import pause_deployment, resume_deployment
from deployments.start_jitter import jitter_of
from tests.deployments.world import World

HOUR = timedelta(hours=1)


def test_shares_of_many_names_fill_the_spread_evenly() -> None:
    shares = [jitter_of(HOUR, f"device {number}") for number in range(6000)]

    tenths = [0] * 10
    for share in shares:
        tenths[int(share / HOUR * 10)] += 1

    assert all(500 <= tenth <= 700 for tenth in tenths)


@given(
    name=st.text(max_size=50),
    spread=st.timedeltas(timedelta(seconds=1), timedelta(days=366)),
)
def test_a_share_is_the_same_each_time_and_never_the_whole(
    name: str, spread: timedelta
) -> None:
    assert timedelta(0) <= jitter_of(spread, name) < spread
    assert jitter_of(spread, name) == jitter_of(spread, name)


def test_devices_of_a_stage_start_within_the_spread_and_not_together(
    world: World,
) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    fleet = world.fleet(20, old)
    deployment = world.launch(new, start_spread=timedelta(minutes=10))

    started = []
    for _ in range(10):
        world.tick(60)
        started.append(sum(device.poll() is not None for device in fleet))

    assert started[0] < 10
    assert started == sorted(started)
    assert started[-1] == 20
    assert deployment.status == "Running"


def test_a_device_whose_turn_comes_later_says_so(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new, start_spread=HOUR)
    turn = world.now + jitter_of(HOUR, f"{deployment.pk} {device.pk}")

    assert device.poll() is None

    target = device.target(deployment)
    assert target.next_attempt_at == turn
    assert (
        target.message == "the start of its stage is spread, and its turn comes later"
    )


def test_the_spread_begins_anew_when_a_deployment_goes_on(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new, start_spread=HOUR)
    pause_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="wait", now=world.now
    )
    world.tick(7200)
    resume_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="go", now=world.now
    )

    assert device.poll() is None

    turn = world.now + jitter_of(HOUR, f"{deployment.pk} {device.pk}")
    assert device.target(deployment).next_attempt_at == turn


def test_another_attempt_is_not_spread(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    (device,) = world.fleet(1, old)
    world.launch(new, start_spread=HOUR)
    world.tick(3600)
    assert device.poll()
    device.report("failed", error_code="install_failed")

    world.tick(10)

    assert device.poll()
