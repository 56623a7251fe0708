"""How people find things: the search, the moving index, refusals that explain."""

import pytest

from devices.models import Device
from firmware.models import Firmware
from tests.console.conftest import ConsoleClient, Scene
from tests.devices.factories import GroupFactory


def titles(client: ConsoleClient, text: str) -> set[tuple[str, str]]:
    """Return kind and name of all that the search finds."""
    answer = client.get(f"/admin/search/?s={text}&extended=1")
    return {(each.description, each.title) for each in answer.context["results"]}


def test_the_search_finds_groups_models_and_firmware_by_digest(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    group = GroupFactory.create(name="lab-fleet")
    firmware = Firmware.objects.select_related("model").get(pk=scene.approved.pk)

    assert ("Group", str(group)) in titles(viewer_client, "lab-fl")
    assert ("Device model", firmware.model.name) in titles(
        viewer_client, firmware.model.name[:4]
    )
    assert ("Firmware", str(firmware)) in titles(viewer_client, firmware.model.name)
    assert ("Firmware", str(firmware)) in titles(viewer_client, firmware.sha256[:12])
    assert ("Firmware", str(firmware)) not in titles(viewer_client, "f" * 12)


def test_the_search_shows_people_to_admins_alone(
    admin_client: ConsoleClient, viewer_client: ConsoleClient
) -> None:
    name = viewer_client.person.username

    assert ("Person", name) in titles(admin_client, name)
    assert ("Person", name) not in titles(viewer_client, name)


@pytest.mark.parametrize("path", ["common/user/", "devices/enrolmenttoken/"])
def test_a_refusal_names_the_person_and_the_role(
    viewer_client: ConsoleClient, path: str
) -> None:
    answer = viewer_client.get(f"/admin/{path}")

    assert answer.status_code == 403
    said = f"You are logged in as {viewer_client.person.username}, Viewer"
    assert said in answer.content.decode()


def test_the_search_finds_what_can_be_done(
    operator_client: ConsoleClient, viewer_client: ConsoleClient, scene: Scene
) -> None:
    paused = titles(operator_client, f"pause canary of {scene.approved.version}")

    assert ("Action", f"Pause {scene.deployment.name}") in paused
    assert ("Devices", "Register device") in titles(operator_client, "register dev")
    assert titles(viewer_client, "pause canary") == set()
    assert ("Page", "Quarantine") in titles(viewer_client, "quaran")
    assert ("Page", "Audit") not in titles(viewer_client, "audit")


def test_the_search_finds_devices_by_a_tag(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    Device.objects.filter(pk=scene.device.pk).update(tags={"site": "plant-7"})

    found = titles(viewer_client, "site:plant-7")

    assert ("Devices with this tag", "site: plant-7") in found
    assert titles(viewer_client, "site:plant-8") == set()


def test_the_search_says_that_there_are_more(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    for number in range(9):
        GroupFactory.create(name=f"many-{number}")

    assert ("Group: there are more", "All like many") in titles(viewer_client, "many")


def test_the_search_keeps_nothing(viewer_client: ConsoleClient, scene: Scene) -> None:
    before = titles(viewer_client, "late-group")
    GroupFactory.create(name="late-group")

    assert before == set()
    assert ("Group", "late-group") in titles(viewer_client, "late-group")
