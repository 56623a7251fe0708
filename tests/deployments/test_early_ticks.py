"""Ticks before their time: who asks for them, and what they leave alone."""

import secrets
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from deployments import tasks
from deployments.models import Event
from deployments.services.tick import TICK_JOB, tick, tick_early
from deployments.single_flight import Pace
from hotswap.common.models import JobRun
from tests.deployments.agents import QUICK_CRITERIA, new_model
from tests.deployments.fleet import FINAL, Ledger
from tests.deployments.live import LiveAdmin, living
from tests.deployments.world import World
from tests.live import LiveStack
from tests.waiting import wait_until

SWITCH = """
    WITH switched AS (
        UPDATE django_celery_beat_periodictask SET enabled = %s
        WHERE name = 'deployments-tick'
    )
    UPDATE django_celery_beat_periodictasks SET last_update = now()
"""
AGE = """
    SELECT extract(epoch FROM clock_timestamp() - noted_at)::float8
    FROM common_jobrun WHERE name = 'deployments-tick'
"""
TOUCH = "UPDATE common_jobrun SET last_run_at = now() WHERE name = 'deployments-tick'"


def test_a_pace_keeps_to_its_share_of_the_time() -> None:
    pace = Pace(0.1)

    assert pace.wait(0.0) == 0
    pace.note(10.0, 11.0)

    assert pace.wait(11.0) == pytest.approx(9.0)
    assert pace.wait(20.0) == 0


def scheduled(world: World) -> Any:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(1, old)
    deployment = world.launch(new, scheduled_at=world.now + timedelta(seconds=1))
    world.now += timedelta(seconds=2)
    return deployment


def has_started(deployment: Any) -> bool:
    return Event.objects.filter(
        deployment=deployment, event="deployment.started"
    ).exists()


def test_an_early_tick_moves_deployments_and_leaves_the_clock_of_ticks_alone(
    world: World,
) -> None:
    tick(now=world.now)
    deployment = scheduled(world)
    before = JobRun.objects.values().get(name=TICK_JOB)

    tick_early(now=world.now)

    assert has_started(deployment)
    assert JobRun.objects.values().get(name=TICK_JOB) == before


@pytest.mark.parametrize("away", [timedelta(seconds=31), timedelta(seconds=-31)])
def test_an_early_tick_does_nothing_where_regular_ticks_stand_still(
    world: World, away: timedelta
) -> None:
    deployment = scheduled(world)
    tick(now=world.now - timedelta(hours=1))
    JobRun.objects.filter(name=TICK_JOB).update(last_run_at=world.now - away)

    tick_early(now=world.now)

    assert not has_started(deployment)


def test_an_early_tick_does_nothing_before_the_first_regular_one(world: World) -> None:
    deployment = scheduled(world)
    JobRun.objects.filter(name=TICK_JOB).delete()

    tick_early(now=world.now)

    assert not has_started(deployment)


@pytest.fixture
def turn() -> Iterator[float]:
    """The turn of the ticks of this process, which another has."""
    tasks._pace.note(0.0, 0.0)
    taken_at = time.monotonic()
    assert tasks._ticking.take(taken_at)
    yield taken_at
    tasks._ticking.give_back(taken_at)


def test_an_early_tick_waits_for_one_under_way(turn: float) -> None:
    found: list[bool] = []
    waiting = threading.Thread(
        target=lambda: found.append(tasks._wait_for_turn(time.monotonic() + 600))
    )

    waiting.start()
    tasks._ticking.give_back(turn)
    waiting.join(60)

    assert found == [True]


def test_an_early_tick_is_left_to_the_next_regular_one_where_ticks_take_long(
    turn: float,
) -> None:
    now = time.monotonic()

    assert not tasks._wait_for_turn(now + tasks.LOOK_SECONDS)
    tasks._ticking.give_back(turn)
    tasks._pace.note(now - 3600, now)

    assert not tasks._wait_for_turn(now + tasks.LOOK_SECONDS)
    tasks._pace.note(0.0, 0.0)


@pytest.fixture
def without_beats(live_stack: LiveStack) -> Iterator[psycopg.Connection]:
    """Have beat send no ticks any more."""
    address = live_stack.state()["database_url"]
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(SWITCH, [False])

        def is_over() -> bool:
            (age,) = connection.execute(AGE).fetchone() or (0.0,)
            return bool(age > 3)

        wait_until(is_over, what="the last regular tick")
        yield connection
        connection.execute(SWITCH, [True])
        connection.execute(TOUCH)


def test_a_deployment_comes_to_its_end_by_early_ticks_alone(
    live_stack: LiveStack, without_beats: psycopg.Connection
) -> None:
    admin = LiveAdmin(live_stack)
    model = new_model(admin)
    old = admin.upload(model, "1.0.0", secrets.token_bytes(100))
    new = admin.upload(model, "2.0.0", secrets.token_bytes(100))
    devices = admin.register(model, 2, old)
    for device in devices:
        device.beat()
    without_beats.execute(TOUCH)
    launched = admin.post(
        "/deployments",
        {
            "firmwareId": new["id"],
            "strategy": "Direct",
            "targetDevices": [device.name for device in devices],
            **QUICK_CRITERIA,
        },
    )
    ledger = Ledger(live_stack, launched["id"])

    def has_ended() -> bool:
        # Regular ticks would do this.
        without_beats.execute(TOUCH)
        return ledger.status() in FINAL

    with living(devices):
        wait_until(has_ended, what="the end of the deployment")

    assert ledger.status() == "Completed"
