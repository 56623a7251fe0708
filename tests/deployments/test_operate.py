"""Pause, resume, cancel; and who wins when two act at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from django.db import connection, transaction
from django.db.utils import DatabaseError

from deployments.exceptions import UpdateClosedError, WrongStatusError
from deployments.models import Deployment, Event, Target, Update
from deployments.services.operate import (
    cancel_deployment,
    pause_deployment,
    resume_deployment,
    rollback_deployment,
)
from deployments.services.tick import tick
from deployments.strategies.registry import make_plan
from deployments.strategies.types import Fleet
from hotswap.common.models import AuditEvent
from tests.deployments.world import World, events, statuses

Act = Callable[..., Deployment]


def act(world: World, deployment: Deployment, verb: Act) -> Deployment:
    return verb(
        actor=world.admin,
        deployment_id=deployment.pk,
        reason="because",
        now=world.now,
    )


def test_a_paused_deployment_gives_no_new_orders_and_lets_others_finish(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    first, second = world.fleet(2, old)
    deployment = world.launch(new)
    first.poll()

    act(world, deployment, pause_deployment)
    assert second.poll() is None
    first.go_through()
    world.live_on(15)
    assert statuses(deployment) == {"success": 1, "pending": 1}
    act(world, deployment, resume_deployment)
    world.update_offered()

    deployment.refresh_from_db()
    assert deployment.status == "Completed"


def test_a_paused_canary_opens_no_stage(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(10, old)
    deployment = world.launch(new, "Canary")
    act(world, deployment, pause_deployment)
    world.update_offered()

    world.live_on(300)

    deployment.refresh_from_db()
    assert deployment.status == "Paused"
    assert deployment.open_rank == 1


def test_a_breach_rolls_a_paused_deployment_back(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(10, old)
    deployment = world.launch(new, "Canary")
    (canary,) = (device for device in world.devices.values() if device.poll())
    canary.go_through()
    act(world, deployment, pause_deployment)

    canary.beat(application_metrics={"errorRate": 0.9})
    world.tick(1)

    deployment.refresh_from_db()
    assert deployment.status == "RollingBack"


def test_cancel_stops_what_has_not_begun_to_install_and_lets_the_rest_finish(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    waiting, downloading, installing = world.fleet(3, old)
    deployment = world.launch(new)
    downloading.poll()
    downloading.report("downloading")
    installing.poll()
    for status in ("downloading", "verifying", "installing"):
        installing.report(status)

    act(world, deployment, cancel_deployment)
    assert waiting.poll() is None
    with pytest.raises(UpdateClosedError):
        downloading.report("verifying")
    deployment.refresh_from_db()
    assert deployment.status == "Running"
    installing.report("rebooting")
    installing.reboot_into(new)
    installing.beat()
    installing.report("confirming")
    world.live_on(15)

    deployment.refresh_from_db()
    assert deployment.status == "Cancelled"
    assert waiting.target(deployment).status == "cancelled"
    assert downloading.target(deployment).status == "cancelled"
    assert installing.target(deployment).status == "success"


@pytest.mark.parametrize(
    "verb", [pause_deployment, resume_deployment, cancel_deployment]
)
def test_a_completed_deployment_cannot_be_paused_resumed_or_cancelled(
    world: World, verb: Act
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(1, old)
    deployment = world.launch(new)
    world.update_offered()

    with pytest.raises(WrongStatusError):
        act(world, deployment, verb)


def test_every_act_of_a_person_is_in_the_audit_trail(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(1, old)
    deployment = world.launch(new)

    for verb in (pause_deployment, resume_deployment, rollback_deployment):
        act(world, deployment, verb)

    rows = AuditEvent.objects.filter(object_id=str(deployment.pk), actor_kind="person")
    assert list(rows.order_by("id").values_list("verb", flat=True)) == [
        "deployment.created",
        "deployment.paused",
        "deployment.resumed",
        "deployment.rolled-back",
    ]
    assert set(rows.values_list("actor", flat=True)) == {world.admin.pseudonym}


@pytest.mark.parametrize(
    ("model", "illegal"),
    [(Deployment, "Scheduled"), (Target, "success")],
)
def test_the_database_refuses_an_illegal_move(
    world: World, model: type[Deployment | Target], illegal: str
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(1, old)
    world.launch(new)

    with pytest.raises(DatabaseError, match="transition"), transaction.atomic():
        model.objects.update(status=illegal)


def test_log_lines_cannot_be_rewritten(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(1, old)
    world.launch(new)

    with pytest.raises(DatabaseError), transaction.atomic():
        Event.objects.update(message="nothing happened")


def test_a_tick_that_runs_twice_changes_nothing(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(10, old)
    deployment = world.launch(new, "Canary")
    world.update_offered()
    before = (list(Target.objects.order_by("pk").values()), events(deployment))

    for _ in range(3):
        tick(now=world.now)

    assert (list(Target.objects.order_by("pk").values()), events(deployment)) == before


def test_a_late_tick_opens_no_stage_before_its_wait_is_over(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(10, old)
    deployment = world.launch(new, "Canary")
    world.update_offered()
    settled = deployment.stages.get(number=1).settled_at
    assert settled is not None

    world.live_on(50)
    assert Deployment.objects.get().open_rank == 1
    world.live_on(20)

    second = deployment.stages.get(number=2)
    assert second.opened_at is not None
    assert second.opened_at >= settled + timedelta(seconds=60)
    assert Deployment.objects.get().open_rank == 3


def in_threads(count: int, work: Callable[[int], object]) -> list[object]:
    """Run the work in threads that start together; errors are results too."""
    barrier = Barrier(count)

    def run(index: int) -> object:
        barrier.wait()
        try:
            return work(index)
        except Exception as error:  # noqa: BLE001
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@pytest.mark.django_db(transaction=True)
def test_of_several_operators_at_once_exactly_one_wins() -> None:
    world = World()
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(1, old)
    deployment = world.launch(new)

    results = in_threads(6, lambda _: act(world, deployment, pause_deployment))

    winners = [result for result in results if isinstance(result, Deployment)]
    losers = [result for result in results if isinstance(result, WrongStatusError)]
    assert (len(winners), len(losers)) == (1, 5)


@pytest.mark.django_db(transaction=True)
def test_a_device_that_polls_many_times_at_once_gets_one_order() -> None:
    world = World()
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    world.launch(new)

    results = in_threads(8, lambda _: device.poll())

    orders = {answer["updateId"] for answer in results if isinstance(answer, dict)}
    errors = [result for result in results if isinstance(result, Exception)]
    assert errors == []
    assert len(orders) == 1
    assert Update.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_device_wanted_by_two_deployments_gets_the_older_one_first() -> None:
    world = World()
    old, new = world.image("2.4.0"), world.image("2.5.0")
    newest = world.image("2.7.0")
    (device,) = world.fleet(1, old)
    older = world.launch(new)
    world.now += timedelta(seconds=1)
    newer = world.launch(newest)

    results = in_threads(6, lambda _: device.poll())

    versions = {
        answer["firmware"]["version"] for answer in results if isinstance(answer, dict)
    }
    assert versions == {"2.5.0"}
    assert device.target(older).status == "notified"
    assert device.target(newer).status == "pending"
    assert device.open_updates() == 1


@pytest.mark.django_db(transaction=True)
def test_three_ticks_at_once_while_devices_report_lose_and_repeat_nothing() -> None:
    world = World()
    old, new = world.image("2.4.0"), world.image("2.5.0")
    devices = world.fleet(6, old)
    deployment = world.launch(new)
    for device in devices:
        device.poll()
        device.go_through()
    world.now += timedelta(seconds=11)

    def work(index: int) -> object:
        if index < 3:
            return tick(now=world.now)
        return devices[index - 3].beat()

    results = in_threads(9, work)
    for device in devices:
        device.beat()
    tick(now=world.now)
    tick(now=world.now)

    assert [result for result in results if isinstance(result, Exception)] == []
    assert statuses(deployment) == {"success": 6}
    assert events(deployment).count("device.updated") == 6
    assert events(deployment).count("deployment.completed") == 1


@pytest.mark.django_db(transaction=True)
def test_a_cancel_and_ticks_never_lock_up_with_devices_that_poll() -> None:
    world = World()
    old, new = world.image("2.4.0"), world.image("2.5.0")
    devices = world.fleet(12, old)
    deployment = world.launch(new)

    def work(index: int) -> object:
        if index == 0:
            return act(world, deployment, cancel_deployment)
        if index < 4:
            return [tick(now=world.now) for _ in range(5)]
        order = devices[index - 4].poll()
        return order and devices[index - 4].report("downloading")

    results = in_threads(16, work)
    world.tick()
    world.tick()

    errors = [result for result in results if isinstance(result, Exception)]
    assert [e for e in errors if not isinstance(e, UpdateClosedError)] == []
    deployment.refresh_from_db()
    assert deployment.status == "Cancelled"
    assert statuses(deployment) == {"cancelled": 12}


def test_plans_need_no_database() -> None:
    assert make_plan("Direct", Fleet(7), {}).stages[0].boundary == 7
