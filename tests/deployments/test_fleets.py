"""Blue-green keeps somebody serving, and a region may go back alone."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from deployments.exceptions import (
    FleetEmptyError,
    FleetIsLiveError,
    WrongStatusError,
)
from deployments.models import (
    Deployment,
    Hold,
    MailRecipient,
    Notification,
    Target,
    Update,
)
from deployments.reads.rollback_report import deployment_rollback
from deployments.reads.status import deployment_status
from deployments.scopes import DescribedScope
from deployments.services.operate import (
    acknowledge_hold,
    pause_deployment,
    resume_deployment,
    rollback_deployment,
)
from deployments.services.receivers import create_receiver
from devices.models import Device
from tests.deployments.world import ScriptedDevice, World, events, statuses
from tests.devices.factories import GroupFactory

BAD = {"application_metrics": {"errorRate": 0.9}}
STAGES = {"green": 1, "blue": 2}
NAMED = {"verification_duration": 30.0}
FINAL = ("Completed", "RolledBack", "Failed", "Cancelled")


def check_fleets(deployment: Deployment, *, strictly: bool = True) -> None:
    """Check that one half at most is being changed, and not the one that serves.

    Args:
        strictly: no device of the half that serves has an order. Else single ones may
            that failed by themselves, or came late.
    """
    deployment.refresh_from_db()
    orders = Update.objects.filter(deployment=deployment, closed_at=None)
    halves = set(orders.values_list("target__stage_number", flat=True))
    assert len(halves) <= 1, f"both halves are being changed: {halves}"
    live = STAGES[deployment.live_fleet]
    if strictly:
        assert live not in halves, f"{deployment.live_fleet} serves and is changed"
        return
    served = orders.filter(target__stage_number=live, kind="rollback")
    assert not served.filter(target__error_code="").exists()


def step(world: World, deployment: Deployment, seconds: int = 5) -> None:
    world.live_on(seconds)
    check_fleets(deployment)


def half(deployment: Deployment, fleet: str) -> list[str]:
    return list(
        Target.objects.filter(deployment=deployment, stage_number=STAGES[fleet])
        .order_by("rank")
        .values_list("device__device_id", flat=True)
    )


def members(world: World, deployment: Deployment, fleet: str) -> list[ScriptedDevice]:
    return [world.devices[name] for name in half(deployment, fleet)]


def launch(world: World, **parameters: Any) -> Deployment:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(6, old)
    return world.launch(
        new, "BlueGreen", parameters={"verification_duration": 30.0} | parameters
    )


def update(world: World, deployment: Deployment) -> list[str]:
    """Let whoever is given an order carry it out, to the proof."""
    took = [device for device in world.devices.values() if device.poll()]
    check_fleets(deployment)
    for device in took:
        device.go_through()
        check_fleets(deployment)
    for _ in range(4):
        step(world, deployment)
    return sorted(device.name for device in took)


def to_the_switch(world: World, deployment: Deployment) -> None:
    assert update(world, deployment) == sorted(half(deployment, "green"))
    for _ in range(12):
        deployment.refresh_from_db()
        if deployment.live_fleet == "green":
            return
        step(world, deployment)
    raise AssertionError("it did not switch")


def break_blue(world: World, deployment: Deployment) -> list[ScriptedDevice]:
    """Let blue take the new firmware and fail on it."""
    step(world, deployment)
    blue = [device for device in world.devices.values() if device.poll()]
    assert sorted(each.name for each in blue) == sorted(half(deployment, "blue"))
    for device in blue:
        device.go_through()
        device.beat(**BAD)
    world.tick(1)
    check_fleets(deployment)
    return blue


def go_on(world: World, deployment: Deployment, *, rounds: int = 30) -> list[list[str]]:
    """Let everybody carry out what is ordered until it is over; say who did, when."""
    took = []
    for _ in range(rounds):
        if found := update(world, deployment):
            took.append(found)
        deployment.refresh_from_db()
        if deployment.status in FINAL:
            return took
    raise AssertionError(f"not over: {deployment.status}, {deployment.waiting_for}")


def test_a_failing_green_half_goes_back_and_blue_is_never_touched(
    world: World,
) -> None:
    deployment = launch(world)
    for device in world.devices.values():
        if device.poll():
            device.go_through()
            device.beat(**BAD)
    world.tick(1)

    took = go_on(world, deployment)

    assert took == [sorted(half(deployment, "green"))]
    assert (deployment.status, deployment.live_fleet) == ("RolledBack", "blue")
    blue = Target.objects.filter(deployment=deployment, stage_number=2)
    assert not Update.objects.filter(target__in=blue).exists()
    assert statuses(deployment) == {"rolled_back": 3, "cancelled": 3}


def test_a_failing_blue_half_goes_back_alone_and_green_serves_on(world: World) -> None:
    deployment = launch(world)
    to_the_switch(world, deployment)
    break_blue(world, deployment)

    deployment.refresh_from_db()
    assert (deployment.status, deployment.live_fleet) == ("RollingBack", "green")
    took = go_on(world, deployment)

    assert took == [sorted(half(deployment, "blue"))]
    assert (deployment.status, deployment.live_fleet) == ("Failed", "green")
    assert deployment.failure_reason == (
        "blue is back on its former firmware; green serves on 2.0.0"
    )
    assert statuses(deployment) == {"success": 3, "rolled_back": 3}
    assert "deployment.switched_back" not in events(deployment)
    row = deployment_rollback(deployment)
    assert row is not None
    assert (row.outcome, row.devices) == ("restored", 3)
    assert row.scope == DescribedScope("stage", stages=(2,))


def test_both_halves_go_back_one_after_the_other(world: World) -> None:
    deployment = launch(world, on_blue_failure="both")
    to_the_switch(world, deployment)
    break_blue(world, deployment)

    took = go_on(world, deployment)

    assert took == [sorted(half(deployment, each)) for each in ("blue", "green")]
    assert (deployment.status, deployment.live_fleet) == ("RolledBack", "blue")
    assert statuses(deployment) == {"rolled_back": 6}
    log = events(deployment)
    back = [n for n, event in enumerate(log) if event == "device.returned"]
    assert back[2] < log.index("deployment.switched_back") < back[3]


def test_green_is_kept_if_blue_does_not_come_back(world: World) -> None:
    deployment = launch(world, on_blue_failure="both")
    to_the_switch(world, deployment)
    lost, *others = break_blue(world, deployment)
    for device in others:
        device.poll()
        device.go_through()
    for _ in range(160):
        world.live_on(25, step=25, but=[lost])
        check_fleets(deployment)

    assert (deployment.status, deployment.live_fleet) == ("Failed", "green")
    assert "rollback_unconfirmed: 1 device has not" in deployment.failure_reason
    assert "the green fleet serves on" in deployment.failure_reason
    assert statuses(deployment) == {"success": 3, "rolled_back": 2, "failed": 1}


def test_a_failing_green_half_after_the_switch_waits_until_blue_can_serve(
    world: World,
) -> None:
    deployment = launch(world)
    to_the_switch(world, deployment)
    step(world, deployment)
    assert update(world, deployment) == sorted(half(deployment, "blue"))
    for device in members(world, deployment, "green"):
        device.beat(**BAD)
    world.tick(1)
    deployment.refresh_from_db()
    assert deployment.status == "RollingBack"

    took = go_on(world, deployment)

    assert took == [sorted(half(deployment, each)) for each in ("blue", "green")]
    assert (deployment.status, deployment.live_fleet) == ("RolledBack", "blue")


def test_blue_serves_again_at_once_if_it_was_not_begun(world: World) -> None:
    deployment = launch(world, hold_until_acknowledged=True)
    acknowledge(world, deployment)
    update(world, deployment)
    step(world, deployment, 30)
    acknowledge(world, deployment)
    step(world, deployment)
    deployment.refresh_from_db()
    assert (deployment.live_fleet, phase(deployment)) == ("green", "update-blue")

    for device in members(world, deployment, "green"):
        device.beat(**BAD)
    world.tick(1)
    acknowledge(world, deployment)
    world.tick(1)
    # The traffic goes to blue; green is held once more before it is sent back.
    seen = []
    for _ in range(8):
        deployment.refresh_from_db()
        seen.append((deployment.live_fleet, phase(deployment)))
        if phase(deployment):
            acknowledge(world, deployment)
        world.tick(1)
        check_fleets(deployment, strictly=deployment.live_fleet != "green")
    assert ("blue", "return-green") in seen
    took = go_on(world, deployment)

    assert took == [sorted(half(deployment, "green"))]
    assert deployment.status == "RolledBack"
    blue = Target.objects.filter(deployment=deployment, stage_number=2)
    assert not Update.objects.filter(target__in=blue).exists()


def test_an_operator_rolls_back_blue_first(world: World) -> None:
    deployment = launch(world)
    to_the_switch(world, deployment)
    step(world, deployment)
    update(world, deployment)
    step(world, deployment, 40)
    deployment.refresh_from_db()
    assert deployment.status == "Completed"

    rollback_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="no", now=world.now
    )
    took = go_on(world, deployment)

    assert took == [sorted(half(deployment, each)) for each in ("blue", "green")]
    assert (deployment.status, deployment.live_fleet) == ("RolledBack", "blue")


def test_the_half_that_serves_is_not_sent_back_alone(world: World) -> None:
    deployment = launch(world)
    to_the_switch(world, deployment)

    with pytest.raises(FleetIsLiveError):
        rollback_deployment(
            actor=world.admin,
            deployment_id=deployment.pk,
            reason="no",
            scope={"stage": 1},
            now=world.now,
        )

    assert "rollback.started" not in events(deployment)


def test_a_device_that_came_late_waits_until_the_other_half_is_at_rest(
    world: World,
) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(40, old)
    deployment = world.launch(
        new,
        "BlueGreen",
        parameters={"verification_duration": 0},
        health_threshold=50,
    )
    late = members(world, deployment, "green")[0]
    for device in world.devices.values():
        if device is not late and device.poll():
            device.go_through()
    world.live_on(20)
    blue = members(world, deployment, "blue")
    assert late.poll() is None
    assert blue[0].poll() is not None
    assert late.poll() is None
    check_fleets(deployment)

    for device in blue:
        device.poll()
        device.go_through()
    world.live_on(20)
    order = late.poll()

    assert order is not None
    check_fleets(deployment, strictly=False)


# --- Holds ---------------------------------------------------------------------------


def phase(deployment: Deployment) -> str:
    hold = Hold.objects.filter(deployment=deployment, ended_at=None).last()
    return hold.phase if hold else ""


def acknowledge(world: World, deployment: Deployment) -> None:
    acknowledge_hold(
        actor=world.admin, deployment_id=deployment.pk, comment="off", now=world.now
    )
    world.tick(1)


def test_each_half_is_held_before_its_orders_and_before_the_switch(
    world: World,
) -> None:
    deployment = launch(world, switch_hold=60.0)
    assert phase(deployment) == "update-green"
    # Two halves of five and a half minutes, and three holds of one.
    assert estimated_end(world, deployment) - world.now == timedelta(seconds=840)
    step(world, deployment, 50)
    assert not any(device.poll() for device in world.devices.values())
    assert estimated_end(world, deployment) - world.now == timedelta(seconds=790)

    step(world, deployment, 15)
    assert update(world, deployment) == sorted(half(deployment, "green"))
    step(world, deployment, 30)
    assert (phase(deployment), live(deployment)) == ("switch", "blue")
    step(world, deployment, 60)
    assert (phase(deployment), live(deployment)) == ("update-blue", "green")
    assert not any(device.poll() for device in world.devices.values())
    step(world, deployment, 60)

    assert update(world, deployment) == sorted(half(deployment, "blue"))
    assert events(deployment).count("fleet.draining") == 3


def estimated_end(world: World, deployment: Deployment) -> datetime:
    status = deployment_status(deployment, world.now)
    assert status.estimate_basis == "forecast"
    assert status.estimated_completion_at is not None
    return status.estimated_completion_at


def live(deployment: Deployment) -> str:
    deployment.refresh_from_db()
    return deployment.live_fleet


def test_a_hold_without_a_time_waits_for_its_acknowledgement(world: World) -> None:
    deployment = launch(world, hold_until_acknowledged=True)
    step(world, deployment, 600)

    status = deployment_status(deployment, world.now)
    assert status.hold is not None
    assert status.hold.phase == "update-green"
    assert (status.hold.fleet, status.hold.until) == ("green", None)
    assert status.waiting_for == "the green fleet to drain before it is updated"
    assert status.estimated_completion_at is None
    acknowledge(world, deployment)

    assert len(update(world, deployment)) == 3
    assert deployment_status(deployment, world.now).hold is None
    hold = Hold.objects.first()
    assert hold is not None
    assert hold.acknowledged_by == world.admin


def test_a_hold_is_not_skipped_by_a_pause(world: World) -> None:
    deployment = launch(world, hold_until_acknowledged=True)
    acting: dict[str, Any] = {
        "actor": world.admin,
        "deployment_id": deployment.pk,
        "reason": "lunch",
    }
    pause_deployment(**acting, now=world.now)
    step(world, deployment, 20)
    resume_deployment(**acting, now=world.now)
    step(world, deployment, 20)

    assert phase(deployment) == "update-green"
    assert not any(device.poll() for device in world.devices.values())


def test_there_is_nothing_to_acknowledge_without_a_hold(world: World) -> None:
    deployment = launch(world)

    with pytest.raises(WrongStatusError):
        acknowledge(world, deployment)


# --- What a load balancer is told ----------------------------------------------------


def test_switches_and_holds_name_the_devices(world: World) -> None:
    create_receiver(kind=MailRecipient, actor=world.admin, address="ops@example.com")
    deployment = launch(world, switch_hold=30.0)
    step(world, deployment, 40)
    update(world, deployment)
    step(world, deployment, 100)

    draining = Notification.objects.filter(type="fleet.draining").order_by("at")
    told = [each.payload["data"] for each in draining]
    assert [each["phase"] for each in told] == ["update-green", "switch", "update-blue"]
    assert [each["fleet"] for each in told] == ["green", "blue", "blue"]
    switched = Notification.objects.get(type="deployment.switched").payload["data"]
    assert [each["id"] for each in switched["devices"]] == half(deployment, "green")
    assert switched["total"] == 3
    assert switched["fleetsUrl"].endswith(f"/api/v1/deployments/{deployment.pk}/fleets")


def test_the_fleets_are_shown_with_their_devices(world: World, viewer: Any) -> None:
    deployment = launch(world)
    update(world, deployment)

    answer = viewer.get(f"/api/v1/deployments/{deployment.pk}/fleets")

    assert answer.status_code == 200
    body = answer.json()
    assert (body["liveFleet"], body["hold"]) == ("blue", None)
    by_name = {fleet["name"]: fleet for fleet in body["fleets"]}
    assert by_name["green"]["devices"] == half(deployment, "green")
    assert by_name["green"]["statuses"]["success"] == 3
    assert by_name["blue"]["isLive"]
    page = viewer.get(by_name["blue"]["devicesUrl"]).json()
    assert [row["deviceId"] for row in page["results"]] == half(deployment, "blue")


def test_other_strategies_have_no_fleets(world: World, viewer: Any) -> None:
    world.fleet(1, world.image("1.0.0"))
    deployment = world.launch(world.image("2.0.0"))

    answer = viewer.get(f"/api/v1/deployments/{deployment.pk}/fleets")

    assert (answer.status_code, answer.json()["code"]) == (404, "no_fleets")


# --- Whatever fails ------------------------------------------------------------------


def lives(world: World, chance: random.Random) -> Iterator[None]:
    """Let each device take one step of its life, in any order, with any failure."""
    for device in chance.sample(list(world.devices.values()), len(world.devices)):
        if chance.random() < 0.3:
            continue
        order = device.poll()
        if order is None:
            is_new = device.runs.version == "2.0.0"
            device.beat(**(BAD if is_new and chance.random() < 0.05 else {}))
        elif chance.random() < 0.1:
            device.report("failed", error_code="install_failed", message="chance")
        elif chance.random() < 0.8:
            device.go_through()
        yield


@pytest.mark.parametrize("seed", range(4))
def test_somebody_serves_whatever_fails(world: World, seed: int) -> None:
    chance = random.Random(seed)
    deployment = launch(
        world,
        on_blue_failure=chance.choice(["keep-green", "both"]),
        switch_hold=chance.choice([0.0, 20.0]),
    )
    for _ in range(100):
        for _ in lives(world, chance):
            check_fleets(deployment, strictly=False)
        world.tick(chance.choice([2, 10, 20]))
        check_fleets(deployment, strictly=False)
        if deployment.status in FINAL:
            break
        if chance.random() < 0.02 and deployment.status == "Running":
            rollback_deployment(
                actor=world.admin,
                deployment_id=deployment.pk,
                reason="chance",
                now=world.now,
            )

    if deployment.status == "RolledBack":
        assert deployment.live_fleet == "blue"
    if deployment.status == "Completed":
        assert deployment.live_fleet == "green"


# --- A region alone ------------------------------------------------------------------


def regional(world: World, **parameters: Any) -> Deployment:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    for region in ("US-EAST", "EU", "APAC"):
        world.fleet(3, old, region=region, prefix=region.lower())
    deployment = world.launch(
        new,
        "Regional",
        parameters={
            "regions": ["US-EAST", "EU", "APAC"],
            "pause_duration": 30.0,
            **parameters,
        },
    )
    world.update_offered()
    world.live_on(30)
    return deployment


def break_region(world: World) -> None:
    taken = [device for device in world.devices.values() if device.poll()]
    assert {device.name[:2] for device in taken} == {"eu"}
    for device in taken:
        device.go_through()
        device.beat(**BAD)
    world.tick(1)


def test_only_the_region_that_fails_goes_back(world: World) -> None:
    deployment = regional(world, rollback_scope="region")
    break_region(world)

    took = world.update_offered()
    world.tick(1)

    assert {device.name[:2] for device in took} == {"eu"}
    deployment.refresh_from_db()
    assert deployment.status == "Failed"
    assert deployment.failure_reason == (
        "EU went back to the former firmware; US-EAST (3 devices) on 2.0.0 as before"
    )
    assert statuses(deployment) == {"success": 3, "rolled_back": 3, "cancelled": 3}
    row = deployment_rollback(deployment)
    assert row is not None
    assert (row.outcome, row.devices) == ("restored", 3)


def test_all_regions_go_back_unless_it_is_asked_otherwise(world: World) -> None:
    deployment = regional(world)
    break_region(world)

    took = world.update_offered()
    world.tick(1)

    assert len(took) == 6
    deployment.refresh_from_db()
    assert deployment.status == "RolledBack"


def test_a_region_that_fails_meanwhile_goes_back_too(world: World) -> None:
    deployment = regional(world, rollback_scope="region")
    break_region(world)
    for name, device in world.devices.items():
        if name.startswith("us"):
            device.beat(**BAD)
    world.tick(1)

    took = world.update_offered()
    world.tick(1)

    assert len(took) == 6
    deployment.refresh_from_db()
    assert deployment.status == "RolledBack"
    assert "rollback.extended" in events(deployment)
    assert statuses(deployment) == {"rolled_back": 6, "cancelled": 3}


def test_the_first_region_alone_is_a_whole_rollback(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(2, old, region="EU", prefix="eu")
    world.fleet(2, old, region="APAC", prefix="apac")
    deployment = world.launch(
        new,
        "Regional",
        parameters={
            "regions": ["EU", "APAC"],
            "pause_duration": 30.0,
            "rollback_scope": "region",
        },
    )
    break_region(world)
    world.update_offered()
    world.tick(1)

    deployment.refresh_from_db()
    assert deployment.status == "RolledBack"
    assert statuses(deployment) == {"rolled_back": 2, "cancelled": 2}


# --- Named fleets --------------------------------------------------------------------


def tagged(world: World) -> None:
    """Register six devices, two of them in the rack `b`."""
    world.fleet(6, world.image("1.0.0"))
    for name in ("d-001", "d-004"):
        Device.objects.filter(device_id=name).update(tags={"rack": "b", "x": "y"})


def test_a_tag_names_the_green_half(world: World) -> None:
    tagged(world)

    deployment = world.launch(
        world.image("2.0.0"),
        "BlueGreen",
        parameters=NAMED | {"green_fleet": {"tag": {"rack": "b"}}},
    )

    assert sorted(half(deployment, "green")) == ["d-001", "d-004"]
    assert len(half(deployment, "blue")) == 4
    assert [each.size for each in deployment.stages.all()] == [2, 4]


def test_a_group_names_the_green_half(world: World) -> None:
    tagged(world)
    members = Device.objects.filter(device_id__in=["d-000", "d-002", "d-003"])
    group = GroupFactory.create(name="green", members=list(members))
    named = {"green_fleet": {"group": str(group.pk)}}
    asked: dict[str, Any] = {"parameters": NAMED | named}

    preview = world.preview(world.image("2.0.0"), "BlueGreen", **asked)
    deployment = world.launch(preview.firmware, "BlueGreen", **asked)

    assert preview.plan is not None
    assert [each.boundary for each in preview.plan.stages] == [3, 6]
    assert sorted(half(deployment, "green")) == ["d-000", "d-002", "d-003"]


@pytest.mark.parametrize(
    ("tag", "said"),
    [({"rack": "z"}, "the green fleet has none"), ({}, "the blue fleet has none")],
)
def test_both_halves_need_a_device(
    world: World, tag: dict[str, str], said: str
) -> None:
    tagged(world)
    asked: dict[str, Any] = {"parameters": NAMED | {"green_fleet": {"tag": tag}}}
    image = world.image("2.0.0")

    with pytest.raises(FleetEmptyError, match=said) as refused:
        world.launch(image, "BlueGreen", **asked)
    with pytest.raises(FleetEmptyError):
        world.preview(image, "BlueGreen", **asked)

    assert refused.value.errors[0].pointer == "/greenFleet"
    assert not Deployment.objects.exists()


@pytest.mark.parametrize(
    ("green", "status", "pointer"),
    [
        ({"tag": {"rack": "b"}}, 201, ""),
        ({}, 400, "/greenFleet/group"),
        ({"tag": {"a": "b", "c": "d"}}, 400, "/greenFleet/tag"),
        ({"tag": {"a": "b"}, "group": str(UUID(int=1))}, 400, "/greenFleet/tag"),
        ({"group": str(UUID(int=1))}, 422, "/greenFleet/group"),
        ({"tag": {"rack": "z"}}, 422, "/greenFleet"),
    ],
)
def test_the_route_names_what_is_wrong_with_a_green_fleet(
    world: World, operator: Any, green: dict[str, Any], status: int, pointer: str
) -> None:
    tagged(world)
    body = {
        "firmwareId": str(world.image("2.0.0").pk),
        "strategy": "BlueGreen",
        "targetAll": True,
        "greenFleet": green,
        "switchHold": "PT1M",
        "onBlueFailure": "both",
        "acknowledge": ["whole_fleet"],
    }

    answer = operator.post("/api/v1/deployments", body)

    assert answer.status_code == status, answer.content
    if status != 201:
        assert pointer in {each["pointer"] for each in answer.json()["errors"]}
        return
    found = operator.get(f"/api/v1/deployments/{answer.json()['id']}").json()
    left_out = {"targetAll", "acknowledge"}
    again = {name: found["request"][name] for name in body.keys() - left_out}
    assert again == {name: body[name] for name in again}


def test_fields_of_fleets_belong_to_blue_green(world: World, operator: Any) -> None:
    tagged(world)
    body = {
        "firmwareId": str(world.image("2.0.0").pk),
        "strategy": "Canary",
        "targetAll": True,
        "holdUntilAcknowledged": True,
        "rollbackScope": "region",
    }

    answer = operator.post("/api/v1/deployments", body)

    assert answer.status_code == 400
    pointers = {each["pointer"] for each in answer.json()["errors"]}
    assert pointers == {"/holdUntilAcknowledged", "/rollbackScope"}


def test_the_acknowledge_route_ends_a_hold(world: World, operator: Any) -> None:
    deployment = launch(world, hold_until_acknowledged=True)
    url = f"/api/v1/deployments/{deployment.pk}/acknowledge-hold"

    first = operator.post(url, {"comment": "traffic is off"})
    second = operator.post(url, {"comment": "traffic is off"})

    assert first.status_code == 200
    assert (second.status_code, second.json()["code"]) == (409, "wrong_status")
    world.tick(1)
    assert len(update(world, deployment)) == 3


def test_fleets_that_are_known_are_not_sent_again(world: World, viewer: Any) -> None:
    deployment = launch(world)
    url = f"/api/v1/deployments/{deployment.pk}/fleets"

    etag = viewer.get(url)["ETag"]
    known = viewer.get(url, headers={"If-None-Match": etag})
    update(world, deployment)
    changed = viewer.get(url, headers={"If-None-Match": etag})

    assert (known.status_code, known.content) == (304, b"")
    assert changed.status_code == 200
    assert changed["ETag"] != etag


def test_a_request_for_fleets_waits_for_something_new(
    world: World, viewer: Any
) -> None:
    deployment = launch(world)
    url = f"/api/v1/deployments/{deployment.pk}/fleets"
    etag = viewer.get(url)["ETag"]

    known = viewer.get(url, headers={"If-None-Match": etag, "Prefer": "wait=1"})
    update(world, deployment)
    changed = viewer.get(url, headers={"If-None-Match": etag, "Prefer": "wait=30"})

    assert known.status_code == 304
    assert known["Preference-Applied"] == "wait=1"
    assert changed.status_code == 200
    # It had not to wait.
    assert "Preference-Applied" not in changed
