"""The way back of devices whose former image was never on the server."""

import json
from base64 import b64decode
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError

from deployments.models import Target, Update
from deployments.services.launch import create_deployment
from deployments.services.offers import find_download
from devices.services import erasure
from devices.services.registry import register_device
from firmware.choices import ABSENT
from firmware.models import DeviceModel, Firmware, Manifest
from firmware.services.manifests import manifest_for
from health.models import DeviceState
from tests.deployments.world import MODEL, ScriptedDevice, World, events

FACTORY = "f" * 64


@pytest.fixture
def new(world: World) -> Firmware:
    return world.image("2.0.0")


@pytest.fixture
def device(world: World, new: Firmware) -> ScriptedDevice:
    """A device that runs an image which nobody has uploaded, and can go back to it."""
    return from_factory(world, "d-factory", other_slot_checksum="")


def from_factory(world: World, name: str, **said: Any) -> ScriptedDevice:
    device, _ = register_device(
        actor=world.admin, device_id=name, model_name=MODEL, region="US-EAST"
    )
    model = DeviceModel.objects.get(name=MODEL)
    runs = Firmware(model=model, version="1.0.0-factory", sha256=FACTORY)
    scripted = ScriptedDevice(world, device.pk, name, runs)
    world.devices[name] = scripted
    scripted.beat(**said)
    return scripted


def update_and_fail(
    device: ScriptedDevice, new: Firmware, *, keeps: str | None = FACTORY
) -> None:
    """Let a device take the new image and report errors from there."""
    assert device.poll()
    device.work()
    device.reboot_into(new)
    device.beat(other_slot_checksum=keeps)
    device.report("confirming")
    device.beat(application_metrics={"errorRate": 1.0})
    device.world.tick(1)


def test_device_goes_back_to_what_it_has_kept_and_proves_it(
    world: World, device: ScriptedDevice, new: Firmware
) -> None:
    deployment = world.launch(new)
    former = device.runs
    update_and_fail(device, new)

    order = device.poll()

    assert order is not None
    assert (order["action"], order["source"]) == ("rollback", "slot")
    assert order["firmware"] == {
        "version": "1.0.0-factory",
        "model": MODEL,
        "checksum": FACTORY,
    }
    leave = json.loads(b64decode(order["manifest"]))
    assert leave["type"] == "slot-return"
    assert (leave["deviceId"], leave["sha256"]) == (device.name, FACTORY)
    installed = Update.objects.get(device=device.pk, kind="install")
    assert leave["sequence"] > installed.manifest_id
    device.work()
    device.reboot_into(former)
    device.beat(other_slot_checksum=new.sha256)
    device.report("confirming")
    world.live_on(20)
    assert device.target(deployment).status == "rolled_back"
    assert "device.ordered_back" in events(deployment)


def test_no_manifest_is_signed_for_what_a_device_claims(
    world: World, device: ScriptedDevice, new: Firmware
) -> None:
    world.launch(new)
    update_and_fail(device, new)
    device.poll()

    absent = Firmware.with_absent.get(status=ABSENT)
    types = {
        json.loads(bytes(each.body))["type"]
        for each in Manifest.objects.filter(firmware=absent)
    }

    assert types == {"slot-return"}
    with pytest.raises(AssertionError):
        manifest_for(absent, above=0)


def test_absent_image_is_in_no_list_and_cannot_be_fetched(
    world: World, device: ScriptedDevice, new: Firmware
) -> None:
    world.launch(new)
    update_and_fail(device, new)
    device.poll()
    absent = Firmware.with_absent.get(status=ABSENT)

    assert absent not in Firmware.objects.all()
    assert find_download(device_id=device.device.pk, firmware_id=absent.pk) is None
    # The same version may be uploaded all the same, whatever its bytes.
    assert world.image("1.0.0-factory").version == absent.version


def test_two_devices_of_one_image_share_its_record(
    world: World, device: ScriptedDevice, new: Firmware
) -> None:
    other = from_factory(world, "d-other", other_slot_checksum="")
    deployment = world.launch(new)
    for each in (device, other):
        each.poll()

    former = set(
        Target.objects.filter(deployment=deployment).values_list(
            "from_firmware_id", flat=True
        )
    )

    assert len(former) == 1
    assert Firmware.with_absent.filter(status=ABSENT).count() == 1


def test_agent_that_cannot_is_left_where_it_is(world: World, new: Firmware) -> None:
    device = from_factory(world, "d-old")
    deployment = world.launch(new)
    update_and_fail(device, new, keeps=None)

    assert device.poll() is None
    target = device.target(deployment)
    assert target.from_firmware_id is None
    assert target.status == "failed"
    assert "not on the server" in target.message


def test_device_that_kept_another_image_is_not_ordered_to_it(
    world: World, device: ScriptedDevice, new: Firmware
) -> None:
    deployment = world.launch(new)
    update_and_fail(device, new, keeps="e" * 64)

    assert device.poll() is None
    target = device.target(deployment)
    assert (target.status, target.error_code) == ("failed", "no_previous_image")
    assert "other slot" in target.message


def test_device_without_a_way_back_is_not_recalled_again_and_again(
    world: World, device: ScriptedDevice, new: Firmware
) -> None:
    deployment = world.launch(new)
    update_and_fail(device, new, keeps="e" * 64)
    device.poll()

    for _ in range(2):
        world.now += timedelta(seconds=5)
        device.beat(other_slot_checksum="e" * 64)
        world.tick()

    target = device.target(deployment)
    assert (target.status, target.error_code) == ("failed", "no_previous_image")
    deployment.refresh_from_db()
    assert deployment.status == "Failed"


def test_agent_that_is_replaced_by_an_older_one_is_taken_for_that(
    device: ScriptedDevice,
) -> None:
    def told() -> str | None:
        return DeviceState.objects.get(device=device.pk).other_slot_checksum

    device.beat()
    assert told() == ""
    device.beat(other_slot_checksum="a" * 64)
    assert told() == "a" * 64
    device.boot += 1
    device.beat()
    assert told() is None


def test_preview_warns_of_those_only_that_have_no_way_back(
    world: World, device: ScriptedDevice, new: Firmware
) -> None:
    def warned() -> dict[str, int]:
        return {each.code: each.count for each in world.preview(new).warnings}

    assert warned() == {}
    from_factory(world, "d-old")
    assert warned() == {"no_previous_image": 1, "whole_fleet": 2}


def test_launch_itself_warns_of_those_that_have_no_way_back(
    world: World, device: ScriptedDevice, new: Firmware
) -> None:
    from_factory(world, "d-old")

    _, audience = create_deployment(
        actor=world.admin, request=world.request(new), now=world.now
    )

    warned = {each.code: each.count for each in audience.warnings}
    assert audience.eligible == 2
    assert warned == {"no_previous_image": 1, "whole_fleet": 2}


def test_leave_of_a_device_that_is_erased_names_it_no_more(
    world: World, device: ScriptedDevice, new: Firmware
) -> None:
    world.launch(new)
    update_and_fail(device, new)
    assert device.poll()

    erasure.erase_device(actor=world.admin, device_id=device.name)

    leaves = Manifest.objects.filter(firmware__status=ABSENT)
    assert leaves
    assert not any(bytes(each.body) for each in leaves)


def test_poll_repeats_the_same_leave(
    world: World, device: ScriptedDevice, new: Firmware
) -> None:
    world.launch(new)
    update_and_fail(device, new)
    first = device.poll()
    again = device.poll()

    assert first is not None
    assert again == first


def test_absent_image_has_no_signature(world: World, new: Firmware) -> None:
    with pytest.raises(IntegrityError):
        Firmware.with_absent.create(
            model=new.model,
            version="1",
            status=ABSENT,
            size=1,
            sha256=FACTORY,
            signature="",
            key=new.key,
            storage_name="absent",
        )
