"""The launch form asks for each warning that must be acknowledged, beside it."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from deployments.models import Deployment, Quarantine
from deployments.services.operate import rollback_deployment
from devices.models import Device
from devices.services.registry import register_device
from firmware.models import Firmware
from tests.console.conftest import ConsoleClient
from tests.console.test_deployments import LAUNCH, confirmed_after, url_of
from tests.deployments.world import MODEL, World

DIRECT = {"strategy": "Direct", "offlineDevices": "wait"}


@pytest.fixture
def world(db: None) -> World:
    return World(now=timezone.now())


@pytest.fixture
def old(world: World) -> Firmware:
    return world.image("1.0.0")


@pytest.fixture
def new(world: World, old: Firmware) -> Firmware:
    return world.image("2.0.0")


def form_for(firmware: Firmware, *names: str, **changes: Any) -> dict[str, Any]:
    target = (
        {"target": "devices", "targetDevices": " ".join(names)}
        if names
        else {"target": "all"}
    )
    return {"firmwareId": str(firmware.pk), **target, **DIRECT, **changes}


def launch(
    client: ConsoleClient, form: dict[str, Any], url: str = LAUNCH, **confirmed: Any
) -> Any:
    """Preview, then launch with all that is asked for but what is given anew."""
    shown = client.post(url, {**form, "preview": "1"})
    assert not any(each.is_done for _, each in shown.context["warnings"] if each)
    sent = confirmed_after(shown) | confirmed
    return client.post(url, {**form, **sent, "launch": "1"})


def test_a_warning_without_a_tick_launches_nothing_and_says_so_at_its_box(
    operator_client: ConsoleClient, world: World, old: Firmware, new: Firmware
) -> None:
    world.fleet(1, old, prefix="other")
    register_device(actor=world.admin, device_id="d-mute", model_name=MODEL)
    form = form_for(new, "d-mute")

    shown = operator_client.post(LAUNCH, {**form, "preview": "1"}).content.decode()
    refused = launch(operator_client, form, acknowledge=[])
    count = Deployment.objects.count()
    launched = launch(operator_client, form)

    box = 'type="checkbox" name="acknowledge" value="no_previous_image"'
    assert f"{box}>" in shown
    assert "Tick it" not in shown
    text = refused.content.decode()
    assert "Nothing was done: confirm what is marked" in text
    assert "Tick it, or launch something else." in text
    assert count == 0
    deployment = Deployment.objects.get()
    assert launched["Location"] == url_of(deployment, "change")
    assert deployment.acknowledged == ["no_previous_image"]
    page = operator_client.get(launched["Location"]).content.decode()
    assert "Acknowledged at its launch: devices have no way back." in page


def test_what_was_ticked_stays_ticked(
    operator_client: ConsoleClient, world: World, new: Firmware
) -> None:
    world.fleet(2, new)
    target = world.image("1.5.0")

    refused = launch(operator_client, form_for(target), typed="3")

    text = refused.content.decode()
    assert "This is a downgrade to 1.5.0: 2 devices from 2.0.0" in text
    assert 'name="acknowledge" value="downgrade" checked>' in text
    assert "Type 2 to confirm the number of devices." in text
    assert not Deployment.objects.exists()


def test_a_firmware_that_went_wrong_is_launched_by_its_typed_version(
    operator_client: ConsoleClient, world: World, old: Firmware, new: Firmware
) -> None:
    (device,) = world.fleet(1, old)
    first = world.launch(new, max_attempts=1)
    device.poll()
    device.report("failed", error_code="self_test_failed")
    rollback_deployment(
        actor=world.admin, deployment_id=first.pk, reason="bad", now=world.now
    )
    world.tick(1)
    Quarantine.objects.all().delete()
    form = form_for(new)

    refused = launch(operator_client, form, typedVersion="2.0")
    count = Deployment.objects.count()
    launched = launch(operator_client, form, typedVersion=" 2.0.0 ")

    text = refused.content.decode()
    assert "has gone wrong before: rolled back once, 0 of 1 proved" in text
    assert text.count("Type 2.0.0 to launch it all the same") == 2
    assert 'value="2.0"' in text
    assert count == 1
    deployment = Deployment.objects.latest("created_at")
    assert launched["Location"] == url_of(deployment, "change")
    assert deployment.acknowledged == ["previously_rolled_back"]


@pytest.mark.parametrize("strategy", ["Direct", "Rolling"])
def test_a_whole_fleet_is_launched_by_its_typed_number(
    operator_client: ConsoleClient,
    world: World,
    old: Firmware,
    new: Firmware,
    strategy: str,
) -> None:
    world.fleet(2, old)
    form = form_for(new, strategy=strategy)

    refused = launch(operator_client, form, typed="")
    count = Deployment.objects.count()
    launch(operator_client, form)

    assert "Type 2 to confirm the number of devices." in refused.content.decode()
    assert count == 0
    assert Deployment.objects.get().acknowledged == ["whole_fleet"]


def test_many_devices_are_launched_by_their_typed_number(
    operator_client: ConsoleClient, world: World, old: Firmware, new: Firmware
) -> None:
    Device.objects.bulk_create(
        Device(
            device_id=f"d-{number:03}",
            model=new.model,
            region="US-EAST" if number else "APAC",
            firmware_version="1.0.0",
            firmware_checksum=old.sha256,
        )
        for number in range(102)
    )
    most = {"target": "regions", "regions": ["US-EAST"]}
    direct = form_for(new, **most)
    rolling = form_for(new, **most, strategy="Rolling")

    refused = [launch(operator_client, form, typed="") for form in (direct, rolling)]
    count = Deployment.objects.count()
    for form in (direct, rolling):
        launch(operator_client, form, typed="101")

    for each in refused:
        assert "Type 101 to confirm the number of devices." in each.content.decode()
    assert count == 0
    acknowledged = Deployment.objects.order_by("created_at")
    assert [each.acknowledged for each in acknowledged] == [["many_at_once"], []]


def test_a_warning_that_has_come_up_since_the_preview_is_shown_first(
    operator_client: ConsoleClient, world: World, old: Firmware, new: Firmware
) -> None:
    first, _ = world.fleet(2, old)
    target = world.image("1.5.0")
    form = form_for(target, "d-000")
    shown = operator_client.post(LAUNCH, {**form, "preview": "1"})
    first.reboot_into(new)
    first.beat()

    answer = operator_client.post(
        LAUNCH,
        {**form, **confirmed_after(shown), "acknowledge": "downgrade", "launch": "1"},
    )

    assert "or a warning, has changed since its preview" in answer.content.decode()
    assert not Deployment.objects.exists()


def test_a_copy_and_an_edit_ask_as_a_launch_does(
    operator_client: ConsoleClient, world: World, old: Firmware, new: Firmware
) -> None:
    world.fleet(2, old)
    later = timezone.now() + timedelta(days=2)
    deployment = world.launch(
        new,
        scheduled_at=later,
        acknowledge=frozenset({"downgrade", "whole_fleet"}),
    )
    copy, edit = url_of(deployment, "copy"), url_of(deployment, "edit")
    form = form_for(new, reason="once more", name="second")
    version = operator_client.get(edit).context["version"]
    changed = form_for(
        new, name="third", version=version, scheduledAt=f"{later:%Y-%m-%dT%H:%M}"
    )

    for url, sent in ((copy, form), (edit, changed)):
        refused = launch(operator_client, sent, url, typed="1")
        assert "Type 2 to confirm the number" in refused.content.decode()
    assert list(Deployment.objects.values_list("name", flat=True)) == [deployment.name]
    for url, sent in ((copy, form), (edit, changed)):
        assert launch(operator_client, sent, url).status_code == 302

    copied = Deployment.objects.get(copied_from=deployment)
    deployment.refresh_from_db()
    assert copied.acknowledged == ["whole_fleet"]
    assert deployment.name == "third"
    # What was acknowledged ahead and does not apply now stays so.
    assert deployment.acknowledged == ["downgrade", "whole_fleet"]
