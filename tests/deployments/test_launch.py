"""Launching: who takes part, who is left out, and what is refused whole."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.test import override_settings

from deployments.exceptions import (
    FirmwareNotDeployableError,
    IneligibleDevicesError,
    NoEligibleDevicesError,
    TooManyDeploymentsError,
    TooManyDevicesError,
)
from deployments.models import Deployment, Target
from deployments.services.launch import create_deployment
from deployments.services.preview import preview_deployment
from deployments.services.requests import DeploymentRequest, Selection
from devices.models import Device
from devices.rules import Rule
from devices.services.groups import add_members, create_group
from firmware.services.approval import deprecate_firmware
from firmware.services.damage import note_damage
from tests.deployments.world import World, statuses


def names(deployment: Deployment) -> set[str]:
    return set(
        Target.objects.filter(deployment=deployment).values_list(
            "device__device_id", flat=True
        )
    )


def chosen(*device_ids: str) -> dict[str, Any]:
    return {"selection": Selection(device_ids=device_ids)}


def test_a_list_targets_exactly_its_devices(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(3, old)

    deployment = world.launch(new, **chosen("d-000", "d-002"))

    assert names(deployment) == {"d-000", "d-002"}


def test_groups_and_regions_target_their_members(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(2, old, prefix="east")
    world.fleet(2, old, prefix="west", region="US-WEST")
    group = create_group(actor=world.admin, name="lab", type="Static")
    add_members(actor=world.admin, group_id=group.pk, device_ids=["east-000"])

    by_group = world.launch(new, selection=Selection(group_ids=(group.pk,)))
    by_region = world.launch(new, selection=Selection(regions=("US-WEST",)))

    assert names(by_group) == {"east-000"}
    assert names(by_region) == {"west-000", "west-001"}


def test_a_dynamic_group_targets_whom_its_rule_means_at_the_launch(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(2, old, prefix="east")
    world.fleet(2, old, prefix="west", region="US-WEST")
    west = create_group(
        actor=world.admin, name="west", type="Dynamic", rule=Rule(regions=("US-WEST",))
    )
    lab = create_group(actor=world.admin, name="lab")
    add_members(actor=world.admin, group_id=lab.pk, device_ids=["east-000"])

    deployment = world.launch(new, selection=Selection(group_ids=(west.pk, lab.pk)))
    world.fleet(1, old, prefix="late", region="US-WEST")
    world.tick()

    assert names(deployment) == {"east-000", "west-000", "west-001"}


def test_an_unknown_device_of_a_list_is_named(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(1, old)

    with pytest.raises(IneligibleDevicesError) as caught:
        world.launch(new, **chosen("d-000", "ghost"))

    assert [error.pointer for error in caught.value.errors] == ["/targetDevices/1"]
    assert not Deployment.objects.exists()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"enabled": False}, "disabled"),
        ({"firmware_checksum": "new"}, "already_installed"),
        ({"security_version": 9}, "security_version"),
    ],
)
def test_a_list_is_refused_whole_when_one_device_cannot_take_part(
    world: World, change: dict[str, Any], code: str
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(2, old)
    if "firmware_checksum" in change:
        change = {"firmware_checksum": new.sha256}
    Device.objects.filter(device_id="d-001").update(**change)

    with pytest.raises(IneligibleDevicesError) as caught:
        world.launch(new, **chosen("d-000", "d-001"))

    assert [(e.pointer, e.code) for e in caught.value.errors] == [
        ("/targetDevices/1", code)
    ]
    assert not Deployment.objects.exists()
    assert not Target.objects.exists()


def test_an_offline_device_of_a_list_is_refused_unless_it_may_wait(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(1, old)
    world.now += timedelta(days=1)

    with pytest.raises(IneligibleDevicesError) as caught:
        world.launch(new, **chosen("d-000"))
    waiting = world.launch(new, **chosen("d-000"), offline_devices="wait")

    assert [error.code for error in caught.value.errors] == ["offline"]
    assert statuses(waiting) == {"pending": 1}


def faults(caught: Any) -> list[tuple[str, str]]:
    return [(error.pointer, error.code) for error in caught.value.errors]


def test_all_faults_of_a_list_are_named_at_once_and_in_its_order(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    foreign = world.image("1.0.0", model="gateway-v1")
    world.fleet(2, old)
    world.fleet(1, foreign, prefix="gate")
    world.now += timedelta(days=1)
    world.fleet(2, old, prefix="on")
    Device.objects.filter(device_id="d-001").update(enabled=False)
    listed = ("ghost", "d-000", "on-000", "d-001", "gate-000", "phantom", "on-001")

    with pytest.raises(IneligibleDevicesError) as caught:
        world.launch(new, **chosen(*listed))
    with pytest.raises(IneligibleDevicesError) as previewed:
        world.preview(new, **chosen(*listed))

    assert faults(caught) == [
        ("/targetDevices/0", "unknown_device"),
        ("/targetDevices/1", "offline"),
        ("/targetDevices/3", "disabled"),
        ("/targetDevices/4", "wrong_model"),
        ("/targetDevices/5", "unknown_device"),
    ]
    assert faults(previewed) == faults(caught)
    assert caught.value.detail.startswith(
        "5 of 7 devices are not eligible: 2 unknown_device, "
    )
    assert not Deployment.objects.exists()


@pytest.mark.parametrize("scheduled", [False, True])
def test_a_list_leaves_offline_and_busy_devices_out_if_it_asks_for_that(
    world: World, scheduled: bool
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(1, old, prefix="off")
    world.now += timedelta(days=1)
    busy, _ = world.fleet(2, old)
    world.launch(new, **chosen(busy.name))
    busy.poll()
    asked = chosen("off-000", "d-000", "d-001") | {
        "offline_devices": "exclude",
        "busy_devices": "exclude",
    }
    if scheduled:
        asked["scheduled_at"] = world.now + timedelta(seconds=10)

    deployment, audience = create_deployment(
        actor=world.admin, request=world.request(new, **asked), now=world.now
    )
    world.tick(11)

    assert [(x.device_id, x.code) for x in audience.excluded] == [
        ("d-000", "busy"),
        ("off-000", "offline"),
    ]
    assert (audience.matched, audience.eligible) == (3, 1)
    assert names(deployment) == {"d-001"}


def test_a_list_that_leaves_offline_devices_out_still_refuses_the_ineligible(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(3, old)
    world.now += timedelta(days=1)
    world.devices["d-000"].beat()
    Device.objects.filter(device_id="d-001").update(enabled=False)

    with pytest.raises(IneligibleDevicesError) as caught:
        world.launch(
            new, **chosen("d-000", "d-001", "d-002"), offline_devices="exclude"
        )

    assert faults(caught) == [("/targetDevices/1", "disabled")]


def test_a_list_of_offline_devices_that_are_left_out_has_nobody_to_update(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(1, old)
    world.now += timedelta(days=1)

    with pytest.raises(NoEligibleDevicesError) as caught:
        world.launch(new, **chosen("d-000"), offline_devices="exclude")

    assert [error.code for error in caught.value.errors] == ["offline"]


def test_a_group_is_refused_for_an_offline_device_behind_a_hundred_exclusions(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(3, old)
    Device.objects.filter(device_id__lt="d-002").update(enabled=False)
    world.now += timedelta(days=1)
    world.fleet(1, old, prefix="on")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deployments.services.targeting.SHOWN_EXCLUSIONS", 2)
        with pytest.raises(IneligibleDevicesError) as caught:
            world.launch(new, offline_devices="reject")

    assert [error.code for error in caught.value.errors] == ["offline"]


def test_a_fleet_may_leave_offline_devices_out_and_refuse_busy_ones(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(1, old, prefix="off")
    world.now += timedelta(days=1)
    world.fleet(1, old)

    deployment = world.launch(new, offline_devices="exclude", busy_devices="reject")

    assert names(deployment) == {"d-000"}


def test_devices_of_another_model_are_left_out_of_a_whole_fleet(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    foreign = world.image("1.0.0", model="gateway-v1")
    world.fleet(2, old)
    world.fleet(1, foreign, prefix="gateway")

    deployment = world.launch(new)

    assert names(deployment) == {"d-000", "d-001"}
    assert (deployment.matched_count, deployment.target_count) == (3, 2)


def test_a_fleet_without_an_eligible_device_is_refused(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(1, old)
    Device.objects.update(enabled=False)

    with pytest.raises(NoEligibleDevicesError):
        world.launch(new)

    assert not Deployment.objects.exists()


def test_only_approved_and_whole_firmware_is_deployed(world: World) -> None:
    old = world.image("2.4.0")
    world.fleet(1, old)
    draft = world.image("2.5.0", approved=False)
    retired = world.image("2.5.1")
    deprecate_firmware(actor=world.admin, firmware_id=retired.pk, reason="old")
    damaged = world.image("2.5.2")
    note_damage(damaged, "frame 0 does not verify")

    codes = []
    for firmware in (draft, retired, damaged):
        with pytest.raises(FirmwareNotDeployableError) as caught:
            world.launch(firmware)
        codes.append(caught.value.code)

    assert codes == ["firmware_not_approved", "firmware_not_approved", "image_damaged"]
    assert not Deployment.objects.exists()


def test_the_limits_of_the_specification_hold(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(3, old)

    with override_settings(MAX_DEVICES_PER_DEPLOYMENT=2):
        with pytest.raises(TooManyDevicesError):
            world.launch(new)
    world.launch(new)
    with override_settings(MAX_RUNNING_DEPLOYMENTS=1):
        with pytest.raises(TooManyDeploymentsError):
            world.launch(new)

    assert Deployment.objects.count() == 1


def test_ranks_are_a_permutation_that_differs_between_deployments(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(20, old)

    orders = []
    for _ in range(3):
        deployment = world.launch(new, "Canary")
        rows = Target.objects.filter(deployment=deployment).order_by("rank")
        orders.append(list(rows.values_list("device_id", flat=True)))
        assert list(rows.values_list("rank", flat=True)) == list(range(1, 21))
        assert list(rows.values_list("stage_number", flat=True)) == (
            [1] * 2 + [2] * 4 + [3] * 14
        )

    assert len({tuple(order) for order in orders}) == 3


def test_a_preview_writes_nothing_and_names_each_exclusion(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(12, old)
    Device.objects.filter(device_id="d-003").update(enabled=False)

    preview = preview_deployment(
        request=DeploymentRequest(
            firmware_id=new.pk,
            strategy="Canary",
            selection=Selection(everyone=True),
            parameters={
                "initial_percentage": 10,
                "increments": [100],
                "wait_duration": 60.0,
            },
        ),
        now=world.now,
    )

    assert (preview.audience.matched, preview.audience.eligible) == (12, 11)
    assert [(x.device_id, x.code) for x in preview.audience.excluded] == [
        ("d-003", "disabled")
    ]
    assert preview.plan is not None
    assert [stage.boundary for stage in preview.plan.stages] == [2, 11]
    assert not Deployment.objects.exists()


def test_a_scheduled_deployment_is_frozen_at_its_launch(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(2, old)
    deployment = world.launch(new, scheduled_at=world.now + timedelta(hours=1))
    assert (deployment.status, statuses(deployment)) == ("Scheduled", {})
    world.fleet(1, old, prefix="later")

    world.tick(3599)
    assert not Target.objects.exists()
    world.tick(2)

    deployment.refresh_from_db()
    assert deployment.status == "Running"
    assert names(deployment) == {"d-000", "d-001", "later-000"}


def test_a_scheduled_deployment_that_became_impossible_fails_with_the_reason(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(1, old)
    deployment = world.launch(new, scheduled_at=world.now + timedelta(hours=1))
    deprecate_firmware(actor=world.admin, firmware_id=new.pk, reason="recalled")

    world.tick(3601)

    deployment.refresh_from_db()
    assert deployment.status == "Failed"
    assert "Deprecated" in deployment.failure_reason


def test_a_device_that_appears_late_still_gets_its_order(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(20, old)
    deployment = world.launch(new)
    late = world.devices.pop("d-007")
    world.update_offered()
    deployment.refresh_from_db()
    assert deployment.status == "Running"

    world.devices[late.name] = late
    world.update_offered()
    world.tick()

    deployment.refresh_from_db()
    assert deployment.status == "Completed"
    assert statuses(deployment) == {"success": 20}


def test_a_device_that_is_never_seen_is_skipped_after_the_deadline(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(20, old)
    deployment = world.launch(new, offline_deadline=timedelta(minutes=5))
    lost = world.devices.pop("d-007")
    world.update_offered()

    world.live_on(310, step=20)

    deployment.refresh_from_db()
    assert deployment.status == "Completed"
    target = lost.target(deployment)
    assert (target.status, target.error_code) == ("skipped", "never_seen")


def test_devices_of_a_stage_that_has_not_opened_are_never_skipped(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(10, old)
    world.live_on(600, step=25)
    deployment = world.launch(new, "Canary", offline_deadline=timedelta(minutes=5))
    world.update_offered()

    world.tick(20)
    world.tick(20)

    assert statuses(deployment) == {"success": 1, "pending": 9}


def test_a_stage_that_lacks_evidence_pauses_for_a_person(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(4, old)
    deployment = world.launch(new, offline_deadline=timedelta(minutes=5))
    for name in ("d-000", "d-001"):
        world.devices.pop(name)
    world.update_offered()

    world.live_on(310, step=20)

    deployment.refresh_from_db()
    assert deployment.status == "Paused"
    assert deployment.pause_reasons == ["health"]
    assert "only 2 of 4" in deployment.pause_detail


def test_an_unknown_firmware_is_refused(world: World) -> None:
    with pytest.raises(FirmwareNotDeployableError) as caught:
        preview_deployment(
            request=DeploymentRequest(
                firmware_id=uuid4(),
                strategy="Direct",
                selection=Selection(everyone=True),
                parameters={},
            ),
            now=world.now,
        )

    assert caught.value.code == "unknown_firmware"


def test_deployments_without_a_name_are_numbered_where_they_are_alike(
    world: World,
) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(2, old)
    later = world.now + timedelta(hours=1)

    found = [
        world.launch(new, strategy, scheduled_at=later).name
        for strategy in ("Direct", "Direct", "Rolling")
    ]

    assert found == [f"{new} (Direct)", f"{new} (Direct) #2", f"{new} (Rolling)"]
