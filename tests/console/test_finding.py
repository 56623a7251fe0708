"""How people find things: the search, the moving index, refusals that explain."""

import pytest

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


def test_the_index_asks_for_itself_again(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    shown = viewer_client.get("/admin/").content.decode()

    assert 'id="hs-index" hx-get="/admin/" hx-trigger="every 15s ' in shown
    assert 'hx-select="#hs-index"' in shown


@pytest.mark.parametrize("path", ["common/user/", "devices/enrolmenttoken/"])
def test_a_refusal_names_the_person_and_the_role(
    viewer_client: ConsoleClient, path: str
) -> None:
    answer = viewer_client.get(f"/admin/{path}")

    assert answer.status_code == 403
    said = f"You are logged in as {viewer_client.person.username}, Viewer"
    assert said in answer.content.decode()
