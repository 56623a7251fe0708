"""A launch that ignores a warning names it, or nothing is launched."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from deployments.choices import DeploymentStatus
from deployments.models import Deployment, Event, Quarantine
from deployments.services.operate import cancel_deployment, rollback_deployment
from deployments.services.requests import Selection
from devices.models import Device
from devices.services.groups import add_members, create_group
from devices.services.registry import change_device, register_device
from firmware.models import Firmware
from hotswap.common.models import AuditEvent
from tests.api import pointers, problem_of
from tests.callers import PersonCaller
from tests.deployments.world import EVERY_WARNING, MODEL, World, events

LATER = timedelta(hours=2)
NONE = frozenset[str]()
ROLLING = {"batch_size": 50, "batch_wait_duration": 60.0, "max_concurrent_batches": 1}


@pytest.fixture
def world(db: None) -> World:
    """A world of the present: the API refuses what lies in the past."""
    return World(now=timezone.now())


@pytest.fixture
def old(world: World) -> Firmware:
    return world.image("1.0.0")


@pytest.fixture
def new(world: World, old: Firmware) -> Firmware:
    return world.image("2.0.0")


def body_for(firmware: Firmware, **changes: Any) -> dict[str, Any]:
    body = {
        "firmwareId": str(firmware.pk),
        "strategy": "Direct",
        "targetAll": True,
        **changes,
    }
    return {name: value for name, value in body.items() if value is not None}


def warned(world: World, firmware: Firmware, **changes: Any) -> dict[str, int]:
    found = world.preview(firmware, **changes).warnings
    assert all(each.must_acknowledge for each in found)
    return {each.code: each.count for each in found}


def of(*names: str) -> Selection:
    return Selection(device_ids=names)


def roll_back(world: World, deployment: Deployment) -> None:
    """Let a person take a deployment back from its devices, to the proof."""
    rollback_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="bad", now=world.now
    )
    world.update_offered()


# --- What is warned of ---------------------------------


def test_a_whole_fleet_is_warned_of_however_it_is_named(
    world: World, old: Firmware, new: Firmware
) -> None:
    world.fleet(3, old)
    group = create_group(actor=world.admin, name="lab")
    add_members(actor=world.admin, group_id=group.pk, device_ids=["d-000", "d-001"])
    by_group = Selection(group_ids=(group.pk,))

    assert warned(world, new) == {"whole_fleet": 3}
    assert warned(world, new, selection=Selection(regions=("US-EAST",))) == {
        "whole_fleet": 3
    }
    assert warned(world, new, selection=of("d-000", "d-001", "d-002")) == {
        "whole_fleet": 3
    }
    assert warned(world, new, selection=by_group) == {}
    # The third can take it no more, so that the group is all that is left.
    change_device(actor=world.admin, device_id="d-002", changes={"enabled": False})
    assert warned(world, new, selection=by_group) == {"whole_fleet": 2}


def test_a_single_device_is_no_whole_fleet(
    world: World, old: Firmware, new: Firmware
) -> None:
    world.fleet(1, old)

    assert warned(world, new) == {}


def test_many_devices_at_once_are_warned_of_and_staged_ones_are_not(
    world: World, old: Firmware, new: Firmware
) -> None:
    world.fleet(1, old)
    model = new.model
    for count, expected in ((99, {}), (100, {"many_at_once": 101})):
        Device.objects.exclude(device_id="d-000").delete()
        Device.objects.bulk_create(
            Device(
                device_id=f"m-{number:03}",
                model=model,
                region="US-EAST",
                firmware_version="1.0.0",
                firmware_checksum=old.sha256,
            )
            for number in range(count)
        )
        found = warned(world, new)
        assert {code: found[code] for code in found if code != "whole_fleet"} == (
            expected
        )
    staged = warned(world, new, strategy="Rolling", parameters=dict(ROLLING))
    assert "many_at_once" not in staged


def test_a_downgrade_says_from_and_to(
    world: World, old: Firmware, new: Firmware
) -> None:
    newest = world.image("10.0.0")
    world.fleet(1, newest, prefix="newest")
    world.fleet(2, new, prefix="new")
    world.fleet(1, old, prefix="old")
    target = world.image("1.5.0")

    found = {each.code: each for each in world.preview(target).warnings}

    assert found["downgrade"].count == 3
    assert found["downgrade"].detail == (
        "This is a downgrade to 1.5.0: 2 devices from 2.0.0, 1 device from 10.0.0"
    )


def test_a_version_without_an_order_is_no_downgrade(
    world: World, old: Firmware, new: Firmware
) -> None:
    (device,) = world.fleet(1, new)
    device.beat(firmware_version="built by hand", firmware_checksum=old.sha256)

    assert "downgrade" not in warned(world, world.image("1.5.0"))


def test_a_firmware_that_was_rolled_back_says_how_often_and_what_proved(
    world: World, old: Firmware, new: Firmware
) -> None:
    world.fleet(2, old)
    first = world.launch(new)
    world.update_offered()
    roll_back(world, first)
    world.fleet(1, old, prefix="other")

    found = world.preview(new, selection=of("other-000")).warnings

    assert [(each.code, each.count, each.detail) for each in found] == [
        (
            "previously_rolled_back",
            1,
            "sensor-v1 2.0.0 has gone wrong before: rolled back once, 2 of 2 proved",
        )
    ]


def test_a_quarantine_is_warned_of_where_its_device_is_meant(
    world: World, old: Firmware, new: Firmware
) -> None:
    first, _, _ = world.fleet(3, old)
    Quarantine.objects.create(
        device_id=first.pk,
        firmware=new,
        failures=2,
        last_code="self_test_failed",
        updated_at=world.now,
        quarantined_at=world.now,
    )

    assert warned(world, new) == {"previously_rolled_back": 2, "whole_fleet": 2}
    assert warned(world, new, selection=of("d-001")) == {}


# --- What a launch answers ---------------------------------


def test_each_warning_is_told_with_whether_it_must_be_acknowledged(
    world: World, old: Firmware, new: Firmware, operator: PersonCaller
) -> None:
    world.fleet(4, old)
    body = body_for(new, strategy="Canary", initialPercentage=50, increments=[])

    warnings = operator.post("/deployments/preview", body).json()["warnings"]

    assert {each["code"]: each["mustAcknowledge"] for each in warnings} == {
        "whole_fleet": True,
        "stage_added": False,
    }


def test_a_launch_that_names_no_warning_writes_nothing_and_is_told_each(
    world: World, old: Firmware, new: Firmware, operator: PersonCaller
) -> None:
    world.fleet(1, new)
    register_device(actor=world.admin, device_id="d-mute", model_name=MODEL)
    target = world.image("1.5.0")
    audited = AuditEvent.objects.count()

    answer = operator.post(
        "/deployments", body_for(target, acknowledge=["no_previous_image"])
    )

    problem = problem_of(answer, 409, "acknowledgement_required")
    assert [(each["pointer"], each["code"]) for each in problem["errors"]] == [
        ("/acknowledge", "downgrade"),
        ("/acknowledge", "whole_fleet"),
    ]
    assert problem["errors"][0]["detail"].endswith("1 device from 2.0.0")
    assert "downgrade, whole_fleet" in problem["detail"]
    assert not Deployment.objects.exists()
    assert not Event.objects.exists()
    assert AuditEvent.objects.count() == audited


def test_what_was_acknowledged_is_shown_logged_and_audited(
    world: World, old: Firmware, new: Firmware, operator: PersonCaller
) -> None:
    world.fleet(2, old)

    made = operator.post(
        "/deployments", body_for(new, acknowledge=["whole_fleet", "downgrade"])
    )

    assert made.status_code == 201, made.content
    found = operator.get(f"/deployments/{made.json()['id']}").json()
    assert found["acknowledged"] == ["downgrade", "whole_fleet"]
    assert made.json()["acknowledged"] == found["acknowledged"]
    audited = AuditEvent.objects.get(verb="deployment.created")
    assert audited.details["acknowledged"] == ["downgrade", "whole_fleet"]
    created = Event.objects.get(event="deployment.created")
    assert "acknowledging downgrade, whole_fleet" in created.message


def test_a_launch_without_warnings_acknowledges_nothing(
    world: World, old: Firmware, new: Firmware, operator: PersonCaller
) -> None:
    world.fleet(2, old)

    made = operator.post(
        "/deployments",
        body_for(new, targetAll=None, targetDevices=["d-000"], offlineDevices="wait"),
    )

    assert made.status_code == 201, made.content
    assert made.json()["acknowledged"] == []
    assert (
        "acknowledged" not in AuditEvent.objects.get(verb="deployment.created").details
    )


@pytest.mark.parametrize("path", ["/deployments", "/deployments/preview"])
@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        (["whole_fleet", "everything"], "/acknowledge/1"),
        (["stage_added"], "/acknowledge/0"),
        ("whole_fleet", "/acknowledge"),
        ([7], "/acknowledge/0"),
    ],
)
def test_a_code_that_is_no_warning_is_named(
    world: World,
    old: Firmware,
    new: Firmware,
    operator: PersonCaller,
    path: str,
    given: Any,
    pointer: str,
) -> None:
    world.fleet(2, old)

    answer = operator.post(path, body_for(new, acknowledge=given))

    assert set(pointers(problem_of(answer, 400))) == {pointer}


def test_the_key_of_a_refused_launch_is_good_for_the_one_that_acknowledges(
    world: World, old: Firmware, new: Firmware, operator: PersonCaller
) -> None:
    world.fleet(2, old)
    headers = {"Idempotency-Key": "nightly"}
    body = body_for(new)
    meant = body | {"acknowledge": ["whole_fleet"]}

    refused = operator.post("/deployments", body, headers=headers)
    made = operator.post("/deployments", meant, headers=headers)
    again = operator.post("/deployments", meant, headers=headers)

    problem_of(refused, 409, "acknowledgement_required")
    assert made.status_code == 201, made.content
    assert again.json() == made.json()
    assert Deployment.objects.count() == 1


def test_a_copy_is_acknowledged_anew(
    world: World, old: Firmware, new: Firmware, operator: PersonCaller
) -> None:
    world.fleet(2, old)
    first = world.launch(new)
    cancel_deployment(actor=world.admin, deployment_id=first.pk, reason="again")
    world.tick(1)
    path = f"/deployments/{first.pk}/copy"

    refused = operator.post(path, {"reason": "again"})
    unknown = operator.post(path, {"reason": "again", "acknowledge": ["all"]})
    made = operator.post(path, {"reason": "again", "acknowledge": ["whole_fleet"]})

    assert first.acknowledged == sorted(EVERY_WARNING)
    problem_of(refused, 409, "acknowledgement_required")
    assert set(pointers(problem_of(unknown, 400))) == {"/acknowledge/0"}
    assert made.status_code == 201, made.content
    assert made.json()["acknowledged"] == ["whole_fleet"]


# --- A launch that waits for its time ---------------------------------


def scheduled(world: World, firmware: Firmware, **changes: Any) -> Deployment:
    asked: dict[str, Any] = {"scheduled_at": world.now + LATER, "acknowledge": NONE}
    return world.launch(firmware, **(asked | changes))


def start(world: World, deployment: Deployment) -> None:
    world.tick(LATER.total_seconds())
    deployment.refresh_from_db()


def test_a_scheduled_launch_is_acknowledged_when_it_is_created(
    world: World, old: Firmware, new: Firmware, operator: PersonCaller
) -> None:
    world.fleet(2, old)
    at = (world.now + LATER).isoformat()

    refused = operator.post("/deployments", body_for(new, scheduledAt=at))
    made = operator.post(
        "/deployments",
        body_for(new, scheduledAt=at, acknowledge=["whole_fleet"]),
    )

    problem_of(refused, 409, "acknowledgement_required")
    deployment = Deployment.objects.get(pk=made.json()["id"])
    start(world, deployment)
    assert deployment.status == DeploymentStatus.RUNNING
    assert "deployment.warning" not in events(deployment)


def test_an_edit_acknowledges_what_it_brings_about(
    world: World, old: Firmware, new: Firmware, operator: PersonCaller
) -> None:
    world.fleet(2, old)
    deployment = scheduled(world, new, selection=of("d-000"), offline_devices="wait")
    path = f"/deployments/{deployment.pk}"
    same = operator.get(path).json()["request"]
    wider = {name: same[name] for name in same if name != "targetDevices"}
    wider["targetAll"] = True

    unchanged = operator.put(path, same)
    refused = operator.put(path, wider)
    deployment.refresh_from_db()
    selection = deployment.selection
    edited = operator.put(path, wider | {"acknowledge": ["whole_fleet"]})

    assert unchanged.status_code == 200, unchanged.content
    problem_of(refused, 409, "acknowledgement_required")
    assert selection["device_ids"] == ["d-000"]
    assert edited.status_code == 200, edited.content
    assert edited.json()["acknowledged"] == ["whole_fleet"]
    assert edited.json()["request"]["acknowledge"] == ["whole_fleet"]
    changes = AuditEvent.objects.get(verb="deployment.edited").details["changes"]
    assert changes["acknowledged"] == {"from": [], "to": ["whole_fleet"]}


def test_a_start_that_reaches_more_than_was_acknowledged_is_logged(
    world: World, old: Firmware, new: Firmware
) -> None:
    world.fleet(1, old)
    deployment = scheduled(world, new)
    register_device(actor=world.admin, device_id="d-mute", model_name=MODEL)

    start(world, deployment)

    assert deployment.status == DeploymentStatus.RUNNING
    logged = Event.objects.filter(event="deployment.warning").order_by("id")
    assert [each.message.split(":")[0] for each in logged] == [
        "no_previous_image",
        "whole_fleet",
    ]


def test_a_start_fails_if_the_firmware_was_rolled_back_since(
    world: World, old: Firmware, new: Firmware
) -> None:
    world.fleet(2, old)
    waiting = scheduled(world, new, selection=of("d-000"), offline_devices="wait")
    named = scheduled(
        world,
        new,
        selection=of("d-001"),
        offline_devices="wait",
        acknowledge=frozenset({"previously_rolled_back"}),
    )
    first = world.launch(new)
    world.update_offered()
    roll_back(world, first)

    start(world, waiting)

    named.refresh_from_db()
    assert waiting.status == DeploymentStatus.FAILED
    assert "previously_rolled_back" in waiting.failure_reason
    assert not waiting.targets.exists()
    assert named.status == DeploymentStatus.RUNNING


def test_a_start_fails_if_it_has_become_a_downgrade(
    world: World, old: Firmware, new: Firmware
) -> None:
    (device,) = world.fleet(1, old)
    waiting = scheduled(world, new, offline_devices="wait")
    device.reboot_into(world.image("3.0.0"))
    device.beat()

    start(world, waiting)

    assert waiting.status == DeploymentStatus.FAILED
    assert "downgrade" in waiting.failure_reason
