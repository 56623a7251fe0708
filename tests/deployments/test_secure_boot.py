"""Device models that require secure boot."""

from datetime import timedelta

import pytest

from deployments.exceptions import IneligibleDevicesError
from deployments.models import Deployment, Event
from deployments.services.preview import preview_deployment
from deployments.services.requests import DeploymentRequest, Selection
from firmware.models import DeviceModel
from firmware.services.device_models import change_device_model
from tests.deployments.world import MODEL, World, statuses


def require_secure_boot(world: World) -> None:
    change_device_model(
        actor=world.admin,
        model_id=DeviceModel.objects.get(name=MODEL).pk,
        changes={"requires_secure_boot": True},
    )


def test_a_preview_names_the_devices_without_secure_boot(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    fit, off, _silent = world.fleet(3, old)
    require_secure_boot(world)
    fit.beat(secure_boot="enabled")
    off.beat(secure_boot="disabled")

    preview = preview_deployment(
        request=DeploymentRequest(
            firmware_id=new.pk,
            strategy="Direct",
            selection=Selection(everyone=True),
            parameters={},
        ),
        now=world.now,
    )

    assert preview.audience.eligible == 1
    assert [(x.device_id, x.code) for x in preview.audience.excluded] == [
        ("d-001", "secure_boot_required"),
        ("d-002", "secure_boot_required"),
    ]
    assert "requires secure boot" in preview.audience.excluded[0].detail


def test_a_list_with_such_a_device_is_refused_whole(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    require_secure_boot(world)

    with pytest.raises(IneligibleDevicesError) as caught:
        world.launch(new, selection=Selection(device_ids=(device.name,)))

    assert [error.code for error in caught.value.errors] == ["secure_boot_required"]
    assert not Deployment.objects.exists()


def test_other_models_do_not_ask_for_it(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    device.beat(secure_boot="disabled")

    world.launch(new)

    assert device.poll() is not None


def test_a_device_that_lost_it_after_the_launch_is_skipped_with_the_reason(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    kept, lost = world.fleet(2, old)
    require_secure_boot(world)
    for device in (kept, lost):
        device.beat(secure_boot="enabled")
    deployment = world.launch(new)

    lost.beat(secure_boot="disabled")
    offered = lost.poll()
    kept.poll()

    assert offered is None
    assert kept.order is not None
    assert lost.target(deployment).error_code == "secure_boot_required"
    assert statuses(deployment) == {"skipped": 1, "notified": 1}
    assert Event.objects.filter(event="device.skipped", device_id=lost.pk).exists()


def test_its_way_back_stays_open(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    require_secure_boot(world)
    device.beat(secure_boot="enabled")
    world.launch(new, max_attempts=1, device_timeout=timedelta(minutes=5))
    device.poll()
    device.work()
    device.reboot_into(new)
    device.beat(secure_boot="disabled", application_metrics={"errorRate": 0.9})
    world.tick(1)

    order = device.poll()

    assert order is not None
    assert order["action"] == "rollback"
