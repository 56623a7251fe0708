"""Turns of the threads of one process, and the ticks that take them."""

import threading
import time
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from deployments import tasks
from deployments.models import Deployment, Event
from deployments.services import tick
from deployments.single_flight import SingleFlight
from hotswap.common.models import JobRun
from tests.deployments.world import World
from tests.waiting import is_waited_for, wait_until


def test_a_turn_is_held_by_one_at_a_time() -> None:
    turn = SingleFlight(timeout_seconds=10)

    assert turn.take(0.0)
    assert not turn.take(10.0)


def test_a_turn_that_was_given_back_is_free() -> None:
    turn = SingleFlight(timeout_seconds=10)
    turn.take(0.0)

    turn.give_back(0.0)

    assert turn.take(1.0)


def test_who_holds_a_turn_for_too_long_is_overtaken() -> None:
    turn = SingleFlight(timeout_seconds=10)
    turn.take(0.0)

    assert turn.take(10.5)


def test_one_that_was_overtaken_does_not_end_the_turn_of_the_other() -> None:
    turn = SingleFlight(timeout_seconds=10)
    turn.take(0.0)
    turn.take(10.5)

    turn.give_back(0.0)

    assert not turn.take(11.0)


def test_a_tick_leaves_its_work_to_the_one_that_is_at_it(world: World) -> None:
    deployment = scheduled(world)
    taken_at = time.monotonic()
    assert tasks._ticking.take(taken_at)

    tasks.tick()
    meanwhile = has_started(deployment)
    tasks._ticking.give_back(taken_at)
    tasks.tick()

    assert not meanwhile
    assert has_started(deployment)


def test_a_tick_gives_its_turn_back(world: World) -> None:
    tasks.tick()

    now = time.monotonic()
    assert tasks._ticking.take(now)
    tasks._ticking.give_back(now)


@pytest.mark.django_db(transaction=True)
def test_ticks_of_one_process_do_not_run_side_by_side() -> None:
    world = World()
    tasks.tick()
    deployment = scheduled(world)

    def tick_elsewhere() -> None:
        tasks.tick()
        connection.close()

    thread = threading.Thread(target=tick_elsewhere)
    with transaction.atomic():
        # The other tick stands still at the clock until this transaction ends.
        JobRun.objects.select_for_update().get(name=tick.TICK_JOB)
        thread.start()
        wait_until(is_waited_for, what="the other tick is at work")
        tasks.tick()
        meanwhile = has_started(deployment)
    thread.join(60)

    assert not meanwhile
    assert has_started(deployment)


def test_a_long_tick_touches_its_clock_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tick, "TOUCH_SECONDS", 0.0)
    deployment = scheduled(world)

    tick.tick()

    began_at = Event.objects.get(deployment=deployment, event="deployment.started").at
    assert JobRun.objects.get(name=tick.TICK_JOB).last_run_at > began_at


def test_a_short_tick_touches_its_clock_once(world: World) -> None:
    deployment = scheduled(world)

    tick.tick()

    began_at = Event.objects.get(deployment=deployment, event="deployment.started").at
    assert JobRun.objects.get(name=tick.TICK_JOB).last_run_at == began_at


def test_a_tick_at_a_given_time_never_touches_the_clock_with_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tick, "TOUCH_SECONDS", 0.0)
    scheduled(world)
    world.now += timedelta(hours=1)

    tick.tick(now=world.now)

    assert JobRun.objects.get(name=tick.TICK_JOB).last_run_at == world.now


def scheduled(world: World) -> Deployment:
    """Return a deployment whose time comes with the next tick."""
    world.now = timezone.now() - timedelta(minutes=1)
    world.fleet(1, world.image("1.0.0"))
    deployment = world.launch(
        world.image("1.1.0"), scheduled_at=world.now + timedelta(seconds=5)
    )
    assert deployment.status == "Scheduled"
    return deployment


def has_started(deployment: Deployment) -> bool:
    deployment.refresh_from_db()
    return deployment.started_at is not None
