"""A firmware that went wrong is marked wherever it is listed or chosen."""

from typing import Any

import pytest

from deployments.models import Quarantine
from deployments.services.operate import rollback_deployment
from firmware.models import Firmware
from hotswap.common.roles import Role
from tests.console.conftest import ConsoleClient, Scene
from tests.console.test_deployments import LAUNCH
from tests.deployments.world import World

FIRMWARE = "/admin/firmware/firmware/"
SAID = "rolled back once, 0 of 2 proved"


@pytest.fixture
def world(db: None) -> World:
    return World()


@pytest.fixture
def bad(world: World) -> Firmware:
    """Return the newest image, which an operator took back from two devices."""
    old, bad = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(2, old)
    deployment = world.launch(bad, max_attempts=1)
    for device in world.devices.values():
        device.poll()
        device.report("failed", error_code="self_test_failed")
    rollback_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="bad", now=world.now
    )
    world.tick(1)
    Quarantine.objects.all().delete()
    return bad


def firmware_field(client: ConsoleClient, query: str = "") -> Any:
    return client.get(LAUNCH + query).context["form"]["firmwareId"]


def test_the_list_and_the_page_of_a_firmware_say_what_went_wrong(
    viewer_client: ConsoleClient, bad: Firmware
) -> None:
    listed = viewer_client.get(FIRMWARE).content.decode()
    page = viewer_client.get(f"{FIRMWARE}{bad.pk}/change/").content.decode()

    assert listed.count(SAID) == 1
    assert f"has gone wrong before: {SAID}" in page


def test_the_list_of_firmware_asks_once_for_all(
    viewer_client: ConsoleClient, world: World, django_assert_max_num_queries: Any
) -> None:
    for number in range(12):
        world.image(f"1.0.{number}")

    with django_assert_max_num_queries(16):
        viewer_client.get(FIRMWARE)


def test_the_newest_version_that_did_not_go_wrong_is_preselected(
    operator_client: ConsoleClient, world: World, bad: Firmware
) -> None:
    newest = world.image("1.5.0")
    world.image("1.2.0")

    field = firmware_field(operator_client)

    assert field.value() == str(newest.pk)
    assert (str(bad.pk), f"sensor-v1 2.0.0 – {SAID}") in field.field.choices
    assert (str(newest.pk), "sensor-v1 1.5.0") in field.field.choices


def test_nothing_is_preselected_where_all_went_wrong(
    operator_client: ConsoleClient, world: World, bad: Firmware
) -> None:
    Firmware.objects.exclude(pk=bad.pk).update(status="Deprecated")

    page = operator_client.get(LAUNCH).content.decode()

    assert firmware_field(operator_client).value() == ""
    assert '<option value="" selected>Choose a firmware</option>' in page


def test_pages_lead_to_a_launch_that_is_filled_in(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    links = {
        f"{FIRMWARE}{scene.approved.pk}/change/": f"firmwareId={scene.approved.pk}",
        f"/admin/devices/devicegroup/{scene.group.pk}/change/": (
            f"target=groups&amp;targetGroups={scene.group.pk}"
        ),
        f"/admin/devices/device/{scene.device.pk}/change/": (
            "target=devices&amp;targetDevices=d-000"
        ),
    }
    for page, query in links.items():
        assert f"{LAUNCH}?{query}" in operator_client.get(page).content.decode()

    of_group = operator_client.get(
        f"{LAUNCH}?target=groups&targetGroups={scene.group.pk}"
    ).context["form"]
    of_device = operator_client.get(
        f"{LAUNCH}?target=devices&targetDevices=d-000"
    ).context["form"]

    assert of_group["target"].value() == "groups"
    assert of_group["targetGroups"].value() == [str(scene.group.pk)]
    assert of_device["targetDevices"].value() == "d-000"


def test_a_viewer_sees_that_launching_needs_an_operator(
    log_in: Any, scene: Scene
) -> None:
    page = log_in(Role.VIEWER).get(f"{FIRMWARE}{scene.approved.pk}/change/")

    assert "needs Operator" in page.content.decode()
    assert LAUNCH not in page.content.decode()


def test_a_draft_offers_no_launch(operator_client: ConsoleClient, scene: Scene) -> None:
    page = operator_client.get(f"{FIRMWARE}{scene.draft.pk}/change/")

    assert f"{LAUNCH}?" not in page.content.decode()
