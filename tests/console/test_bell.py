"""The bell in the frame: what needs attention, and what of it is new."""

import re

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from deployments.choices import DeliveryStatus
from deployments.models import Delivery
from hotswap.console.bell import read_lately
from tests.console.conftest import ConsoleClient, Scene

BELL = "/admin/bell/"
NEW = re.compile(r'hs-bell-new">(\d+)')


def rings(client: ConsoleClient) -> int:
    """Return how many lines are new."""
    read_lately.forget()
    found = NEW.search(client.get(BELL).content.decode())
    return int(found[1]) if found else 0


def test_every_page_has_it_and_asks_for_its_number_afterwards(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    for path in ("/admin/", f"/admin/devices/device/{scene.device.pk}/change/"):
        page = viewer_client.get(path).content.decode()

        assert page.count('id="hs-bell"') == 1
        assert f'hx-get="{BELL}"' in page


def test_what_was_seen_is_not_new_until_it_changes(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    before = rings(viewer_client)

    opened = viewer_client.post(BELL)
    again = viewer_client.post(BELL)

    assert before >= 1
    shown = opened.content.decode()
    assert "of firmware to be approved" in shown
    assert 'class="hs-new"' in shown
    assert opened["HX-Trigger"] == "hs-bell-seen"
    assert "of firmware to be approved" in again.content.decode()
    assert 'class="hs-new"' not in again.content.decode()
    assert rings(viewer_client) == 0
    scene.world.image("9.9.9", approved=False)
    assert rings(viewer_client) == 1


def test_it_is_silent_where_nothing_needs_attention(
    viewer_client: ConsoleClient,
) -> None:
    read_lately.get("concerns", list, 60)

    assert b"hs-bell-new" not in viewer_client.get(BELL).content
    assert b"Nothing needs your attention" in viewer_client.post(BELL).content


def test_it_rings_for_what_its_reader_may_see(
    admin_client: ConsoleClient, viewer_client: ConsoleClient, scene: Scene
) -> None:
    Delivery.objects.filter(pk=scene.delivery.pk).update(
        status=DeliveryStatus.FAILED, last_attempt_at=timezone.now()
    )
    read_lately.forget()

    assert b"could not be delivered" in admin_client.post(BELL).content
    assert b"could not be delivered" not in viewer_client.post(BELL).content


def test_one_reading_is_enough_for_everybody(
    admin_client: ConsoleClient, viewer_client: ConsoleClient, scene: Scene
) -> None:
    rings(admin_client)

    with CaptureQueriesContext(
        connection,
    ) as asked:
        viewer_client.get(BELL)

    assert not [each for each in asked if "firmware_firmware" in each["sql"]]


def test_only_looking_and_opening_are_known(viewer_client: ConsoleClient) -> None:
    assert viewer_client.put(BELL).status_code == 405
