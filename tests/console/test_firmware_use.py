"""What the list, the page and the approval of a firmware say of the fleet."""

import json
import re
from datetime import timedelta
from html import unescape
from uuid import uuid4

import pytest
from django.urls import reverse
from django.utils import timezone

from deployments.models import Deployment
from firmware.models import Firmware
from firmware.selectors import common_images, signature_holds
from firmware.services.verification import verify_firmware
from tests.console.conftest import ConsoleClient
from tests.deployments.world import World
from tests.firmware.factories import FirmwareFactory

FIRMWARE = "/admin/firmware/firmware/"
QUEUE = "/admin/firmware/approvalrequest/"


@pytest.fixture
def world(db: None) -> World:
    return World()


def page_of(client: ConsoleClient, firmware: Firmware) -> str:
    return client.get(f"{FIRMWARE}{firmware.pk}/change/").content.decode()


def test_the_list_says_who_runs_it_and_how_its_installs_ended(
    viewer_client: ConsoleClient, world: World
) -> None:
    old, new = world.image("1.0.0"), world.image("1.1.0")
    good, bad, _ = world.fleet(3, old)
    world.launch(new, max_attempts=1, health_threshold=1)
    good.poll()
    good.go_through()
    bad.poll()
    bad.report("failed", error_code="self_test_failed")
    world.live_on(20)

    listed = viewer_client.get(FIRMWARE)

    rows = {row.version: row for row in listed.context["cl"].result_list}
    assert [rows[v].figures.device_count for v in ("1.0.0", "1.1.0")] == [2, 1]
    assert rows["1.1.0"].figures.success_percent == 50
    assert '50 % <span class="hs-hint">of 2</span>' in listed.content.decode()
    assert listed.content.decode().count(world.admin.username) >= 4


def test_the_page_lists_all_its_deployments(
    viewer_client: ConsoleClient, world: World
) -> None:
    old, new = world.image("1.0.0"), world.image("1.1.0")
    device = world.fleet(1, old)[0]
    failed = world.launch(new, max_attempts=1, name="first try")
    device.poll()
    device.report("failed", error_code="self_test_failed")
    world.live_on(10)
    failed.refresh_from_db()
    assert failed.status == "Failed"

    page = page_of(viewer_client, new)

    assert "first try" in page
    assert "0 of 1" in page
    assert "first try" not in page_of(viewer_client, old)


def test_what_is_in_progress_is_in_the_words_of_its_badge(
    viewer_client: ConsoleClient, world: World
) -> None:
    old, new = world.image("1.0.0"), world.image("1.1.0")
    world.fleet(1, old)
    deployment = world.launch(new, name="first try")
    Deployment.objects.filter(pk=deployment.pk).update(status="RollingBack")

    page = page_of(viewer_client, new)

    assert "(Rolling back)" in page
    assert "RollingBack" not in page


def test_the_last_check_of_the_image_is_kept(
    admin_client: ConsoleClient, world: World
) -> None:
    draft = FirmwareFactory.create()
    before = page_of(admin_client, draft)
    verify_firmware(actor=admin_client.person, firmware_id=draft.pk)

    page = page_of(admin_client, draft)

    assert "not read as a whole since its upload" in before
    assert "whole, read as a whole" in page
    assert f"by {admin_client.person.username}" in page
    assert f"Firmware verified by {admin_client.person.username}: whole" in page


def test_a_signature_that_does_not_hold_is_said(
    admin_client: ConsoleClient, world: World
) -> None:
    draft, other = FirmwareFactory.create(), FirmwareFactory.create(version="9.9.9")
    sound = page_of(admin_client, draft)
    unsound = Firmware.objects.get(pk=draft.pk)
    unsound.signature = other.signature

    assert "Valid" in sound
    assert signature_holds(draft)
    assert not signature_holds(unsound)


def test_the_approval_says_what_it_changes_for_the_fleet(
    admin_client: ConsoleClient, world: World
) -> None:
    old, newest = world.image("2.0.0", content=b"x" * 1000), world.image("3.0.0")
    world.fleet(2, old)
    world.fleet(1, newest, prefix="n")
    draft = world.image(
        "2.1.0",
        approved=False,
        content=b"x" * 3000,
        release_notes="mends the valve",
        request_comment="please hurry",
    )

    dialog = admin_client.get(f"{FIRMWARE}{draft.pk}/approve/").content.decode()
    queue = admin_client.get(QUEUE).content.decode()

    said = "2.0.0 → 2.1.0; +2.0 kB; other release notes; 2 of 3 devices run 2.0.0"
    for text in (dialog, queue):
        assert said in unescape(text)
    assert f"Uploaded by {world.admin.username}." in dialog
    assert "mends the valve" in dialog
    assert "please hurry" in dialog
    assert f"by the key {draft.key.key_id} is valid." in dialog
    assert draft.sha256 in dialog


def test_what_was_never_uploaded_is_named_as_such(
    admin_client: ConsoleClient, world: World
) -> None:
    old = world.image("2.0.0")
    device = world.fleet(1, old)[0]
    device.beat(firmware_version="0.9", firmware_checksum="ab" * 32)
    draft = world.image("2.1.0", approved=False)

    dialog = admin_client.get(f"{FIRMWARE}{draft.pk}/approve/").content.decode()

    assert "1 of 1 device runs 0.9; that image was never uploaded here" in dialog
    assert common_images([old.model_id])[old.model_id].firmware is None


def test_adoption_is_what_devices_have_reported(
    viewer_client: ConsoleClient, world: World
) -> None:
    world.now = timezone.now() - timedelta(hours=2)
    old, new = world.image("1.0.0"), world.image("1.1.0")
    world.fleet(2, old)
    world.live_on(1800, step=300)
    world.launch(new)
    world.update_offered()
    url = reverse("admin:deployments_deployment_adoption", args=[old.pk])

    page = viewer_client.get(url).content.decode()
    unknown = viewer_client.get(url.replace(str(old.pk), str(uuid4())))
    unused = world.image("9.0.0")
    nothing = viewer_client.get(url.replace(str(old.pk), str(unused.pk)))

    (chart,) = re.findall(r'data-hs-chart="([^"]*)"', page)
    points = json.loads(unescape(chart))["series"][0]["points"]
    numbers = [number for _, number in points]
    assert (max(numbers), numbers[-1]) == (2, 0)
    assert unknown.status_code == 404
    assert "No device has reported to run it." in nothing.content.decode()
    assert f'hx-get="{url}"' in page_of(viewer_client, old)
