"""Who runs a firmware, and how long the fleet took from its approval."""

from datetime import timedelta

import pytest
from django.urls import reverse

from deployments.reads.exposure import firmware_exposure
from firmware.models import Firmware
from tests.callers import PersonCaller
from tests.console.conftest import ConsoleClient, admin_client, log_in  # noqa: F401
from tests.deployments.world import World


@pytest.fixture
def rolled_out(world: World) -> Firmware:
    """A firmware that two devices ran 10 min after its approval, two after 3 h."""
    old, new = world.image("1.0.0"), world.image("2.0.0")
    devices = world.fleet(4, old)
    world.fleet(1, world.image("1.0.0", model="other"), prefix="x")
    Firmware.objects.filter(pk=new.pk).update(approved_at=world.now)
    approved_at = world.now
    for index, device in enumerate(devices):
        after = timedelta(minutes=10) if index < 2 else timedelta(hours=3)
        world.now = approved_at + after
        device.reboot_into(new)
        device.beat()
    return Firmware.objects.select_related("model").get(pk=new.pk)


def test_the_time_to_each_share_counts_from_the_approval(rolled_out: Firmware) -> None:
    found = firmware_exposure(rolled_out)

    assert (found.devices, found.model_devices, found.percent) == (4, 4, 100.0)
    assert [
        (each.percent, each.devices, each.seconds_from_approval)
        for each in found.reached
    ] == [(50, 2, 600.0), (95, 4, 10_800.0), (99, 4, 10_800.0)]


def test_what_the_fleet_has_not_reached_has_no_time(
    world: World, rolled_out: Firmware
) -> None:
    world.fleet(
        2, Firmware.objects.get(model=rolled_out.model, version="1.0.0"), prefix="late"
    )

    found = firmware_exposure(rolled_out)

    assert (found.devices, found.model_devices, found.percent) == (4, 6, 66.66)
    assert [each.seconds_from_approval for each in found.reached] == [
        10_800.0,
        None,
        None,
    ]


def test_a_firmware_that_nobody_runs_has_reached_nobody(world: World) -> None:
    found = firmware_exposure(world.image("1.0.0"))

    assert (found.devices, found.model_devices, found.percent) == (0, 0, None)
    assert {each.at for each in found.reached} == {None}


def test_the_api_tells_it_and_where_the_devices_are(
    viewer: PersonCaller,
    rolled_out: Firmware,
) -> None:
    body = viewer.get(f"/api/v1/firmware/{rolled_out.pk}/exposure").json()

    assert body["reached"][0]["secondsFromApproval"] == 600.0
    assert len(viewer.get(body["devicesUrl"]).json()["results"]) == 4
    lines = viewer.get(body["exportUrl"]).content.decode().splitlines()
    assert len(lines) == 5


def test_the_page_says_how_long_the_fleet_took(
    admin_client: ConsoleClient,  # noqa: F811
    rolled_out: Firmware,
) -> None:
    url = reverse("admin:deployments_deployment_adoption", args=[rolled_out.pk])

    shown = admin_client.get(url).content.decode()

    assert "50 % of the fleet took <b>10 min</b>" in shown
    assert "99 % of the fleet took <b>3 h</b>" in shown
