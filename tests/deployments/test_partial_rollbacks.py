"""What an operator sends back of a deployment that goes on."""

from typing import Any

import pytest

from deployments.exceptions import NothingToRollBackError, UnknownScopeError
from deployments.models import Deployment, MailRecipient, Notification, Rollback
from deployments.reads.rollback_report import deployment_rollbacks
from deployments.reads.status import deployment_status
from deployments.services.operate import (
    cancel_deployment,
    resume_deployment,
    retry_failed,
    rollback_deployment,
)
from deployments.services.receivers import create_receiver
from hotswap.common.models import AuditEvent
from hotswap.common.wire import to_wire
from tests.api import problem_of
from tests.deployments.world import World, events, statuses

BAD = {"application_metrics": {"errorRate": 0.5}}


def roll_back(world: World, deployment: Deployment, **scope: Any) -> Deployment:
    return rollback_deployment(
        actor=world.admin,
        deployment_id=deployment.pk,
        reason="too warm",
        scope=scope,
        now=world.now,
    )


def regional(world: World, **changes: Any) -> Deployment:
    """Launch to EU, which is updated, and then to APAC, which waits."""
    old, new = world.image("1.0.0"), world.image("2.0.0")
    for region in ("EU", "APAC"):
        world.fleet(3, old, region=region, prefix=region.lower())
    deployment = world.launch(
        new,
        "Regional",
        parameters={"regions": ["EU", "APAC"], "pause_duration": 600.0},
        **changes,
    )
    world.update_offered()
    return deployment


def direct(world: World, count: int = 4) -> Deployment:
    """Launch to devices and let them be updated."""
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(count, old)
    deployment = world.launch(new)
    world.update_offered()
    return deployment


def row_of(world: World, deployment: Deployment) -> dict[str, Any]:
    deployment.refresh_from_db()
    (row,) = deployment_rollbacks(deployment, world.now).results
    return to_wire(row)


def test_one_device_goes_back_and_the_others_stay(world: World) -> None:
    deployment = direct(world)

    roll_back(world, deployment, device_ids=["d-000"])
    took = world.update_offered()
    world.tick(1)

    assert [device.name for device in took] == ["d-000"]
    assert statuses(deployment) == {"success": 3, "rolled_back": 1}
    deployment.refresh_from_db()
    assert deployment.status == "Completed"
    assert world.devices["d-000"].runs.version == "1.0.0"


def test_devices_go_back_in_a_running_deployment_without_a_mark_against_it(
    world: World,
) -> None:
    deployment = regional(world)

    roll_back(world, deployment, device_ids=["eu-000", "eu-001"])
    world.update_offered()
    world.live_on(600, step=20)

    deployment.refresh_from_db()
    assert deployment.status == "Running"
    assert len(world.update_offered()) == 3
    deployment.refresh_from_db()
    assert deployment.status == "Completed"
    assert statuses(deployment) == {"success": 4, "rolled_back": 2}
    status = deployment_status(deployment, world.now)
    assert status.stages[0].exposed == 1
    assert status.success_rate == 100


def test_a_return_that_fails_is_not_counted_against_the_gate(world: World) -> None:
    deployment = regional(world)
    device = world.devices["eu-000"]

    roll_back(world, deployment, device_ids=["eu-000"])
    device.poll()
    world.live_on(3700, step=25, but=[device])
    world.update_offered()

    target = device.target(deployment)
    assert (target.status, target.error_code) == ("failed", "rollback_unconfirmed")
    deployment.refresh_from_db()
    assert deployment.status in ("Running", "Completed")
    assert row_of(world, deployment)["outcome"] == "failed"


def test_a_region_goes_back_and_is_not_tried_again(world: World) -> None:
    deployment = regional(world)

    roll_back(world, deployment, region="EU")
    assert statuses(deployment) == {"rolling_back": 3, "pending": 3}
    world.update_offered()
    world.tick(1)

    assert statuses(deployment) == {"rolled_back": 3, "pending": 3}
    with pytest.raises(Exception, match="no device of this deployment failed"):
        retry_failed(actor=world.admin, deployment_id=deployment.pk, reason="again")
    codes = set(deployment.targets.exclude(error_code="").values_list("error_code"))
    assert codes == {("returned_by_operator",)}


def test_without_evidence_a_stage_asks_a_person_to_go_on(world: World) -> None:
    deployment = regional(world)

    roll_back(world, deployment, stage=1)
    world.update_offered()
    world.live_on(700, step=20)

    deployment.refresh_from_db()
    assert (deployment.status, deployment.pause_reasons) == ("Paused", ["health"])
    assert statuses(deployment) == {"rolled_back": 3, "pending": 3}
    resume_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="go", now=world.now
    )
    world.tick(1)
    assert len(world.update_offered()) == 3


def test_a_region_of_any_strategy_goes_back(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(2, old, region="EU", prefix="eu")
    world.fleet(2, old, region="APAC", prefix="apac")
    deployment = world.launch(new)
    world.update_offered()

    roll_back(world, deployment, region="APAC")
    took = world.update_offered()
    world.tick(1)

    assert [device.name for device in took] == ["apac-000", "apac-001"]
    assert row_of(world, deployment)["scope"] == {"level": "region", "region": "APAC"}


def test_devices_that_were_not_ordered_are_left_out_with_their_stage(
    world: World,
) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    first, second = world.fleet(2, old)
    deployment = world.launch(new)
    first.poll()
    first.report("downloading")

    roll_back(world, deployment, stage=1)

    assert second.poll() is None
    target = second.target(deployment)
    assert (target.status, target.error_code) == ("cancelled", "left_out_by_operator")
    order = first.poll()
    assert order is not None
    assert order["action"] == "rollback"


def test_what_had_failed_by_itself_stays_a_failure(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(3, old)
    deployment = world.launch(new, health_threshold=30)
    bad, good, _ = world.devices.values()
    for device in (bad, good):
        device.poll()
        device.go_through()
    world.live_on(15)
    bad.beat(**BAD)
    world.tick(1)

    roll_back(world, deployment, device_ids=[bad.name, good.name])

    assert bad.target(deployment).error_code == "error_rate"
    assert not bad.target(deployment).is_withdrawn
    assert good.target(deployment).is_withdrawn
    status = deployment_status(deployment, world.now)
    assert status.stages[0].exposed == 1
    assert status.success_rate == 0


def test_it_is_kept_logged_told_and_audited(world: World) -> None:
    create_receiver(kind=MailRecipient, actor=world.admin, address="ops@example.com")
    deployment = direct(world)

    roll_back(world, deployment, device_ids=["d-001", "d-000"])
    under_way = row_of(world, deployment)
    world.update_offered()
    world.tick(1)
    over = row_of(world, deployment)

    assert (under_way["level"], under_way["outcome"]) == ("devices", "under way")
    assert (over["devices"], over["restored"], over["outcome"]) == (2, 2, "restored")
    assert over["scope"] == {"level": "devices", "devices": 2}
    log = events(deployment)
    assert log.index("rollback.started") < log.index("rollback.finished")
    told = Notification.objects.get(type="rollback.started").payload["data"]
    assert told["devices"] == [{"id": "d-000"}, {"id": "d-001"}]
    assert told["total"] == 2
    ended = Notification.objects.get(type="rollback.finished").payload["data"]
    assert ended["message"] == "2 devices: 2 devices proved the former firmware"
    audited = AuditEvent.objects.get(verb="deployment.rolled-back")
    assert audited.details == {"reason": "too warm", "scope": {"devices": 2}}
    assert Rollback.objects.get().finished_at is not None


def test_the_whole_deployment_may_go_back_after_a_part(world: World) -> None:
    deployment = direct(world)
    roll_back(world, deployment, device_ids=["d-000"])

    rollback_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="all", now=world.now
    )
    assert len(world.update_offered()) == 4
    world.tick(1)

    deployment.refresh_from_db()
    assert deployment.status == "RolledBack"
    assert not Rollback.objects.filter(finished_at=None).exists()


def test_a_cancelled_deployment_waits_for_what_goes_back(world: World) -> None:
    deployment = regional(world)
    roll_back(world, deployment, stage=1)

    cancel_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="no", now=world.now
    )
    world.tick(1)
    deployment.refresh_from_db()
    assert deployment.status == "Running"
    world.update_offered()
    world.tick(1)

    deployment.refresh_from_db()
    assert deployment.status == "Cancelled"
    assert statuses(deployment) == {"rolled_back": 3, "cancelled": 3}


def test_what_went_back_cannot_go_back_again(world: World) -> None:
    deployment = direct(world)
    roll_back(world, deployment, device_ids=["d-000"])

    with pytest.raises(NothingToRollBackError):
        roll_back(world, deployment, device_ids=["d-000"])

    assert Rollback.objects.count() == 1


@pytest.mark.parametrize(
    ("scope", "pointer", "code"),
    [
        ({"stage": 3}, "/scope/stage", "unknown_stage"),
        ({"region": "MARS"}, "/scope/region", "unknown_region"),
        ({"device_ids": ["eu-000", "x"]}, "/scope/deviceIds/1", "unknown_device"),
    ],
)
def test_an_unknown_part_is_refused_by_name(
    world: World, scope: dict[str, Any], pointer: str, code: str
) -> None:
    deployment = regional(world)

    with pytest.raises(UnknownScopeError) as refused:
        roll_back(world, deployment, **scope)

    (error,) = refused.value.errors
    assert (error.pointer, error.code) == (pointer, code)
    assert statuses(deployment) == {"success": 3, "pending": 3}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"scope": {"stage": 1}}, 400, "required"),
        ({"reason": "r", "scope": {}}, 400, "required"),
        ({"reason": "r", "scope": {"stage": 1, "region": "EU"}}, 400, "conflict"),
        ({"reason": "r", "scope": {"deviceIds": ["a", "a"]}}, 400, "duplicate"),
        ({"reason": "r", "scope": {"stage": 0}}, 400, "min_value"),
        ({"reason": "r", "scope": {"stage": 2}}, 409, "nothing_to_roll_back"),
        ({"reason": "r", "scope": {"stage": 9}}, 422, "unknown_stage"),
    ],
)
def test_the_route_refuses_a_scope_that_makes_no_sense(
    world: World, operator: Any, body: dict[str, Any], status: int, code: str
) -> None:
    deployment = regional(world)

    answer = operator.post(f"/api/v1/deployments/{deployment.pk}/rollback", body)

    problem = problem_of(answer, status)
    assert code in {problem["code"], *(each["code"] for each in problem["errors"])}


def test_the_route_sends_a_stage_back(world: World, operator: Any) -> None:
    deployment = regional(world)

    answer = operator.post(
        f"/api/v1/deployments/{deployment.pk}/rollback",
        {"reason": "r", "scope": {"stage": 1}},
    )

    assert answer.status_code == 200
    assert answer.json()["status"] == "Running"
    assert statuses(deployment) == {"rolling_back": 3, "pending": 3}
