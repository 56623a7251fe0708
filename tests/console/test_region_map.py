"""The map of the regions on the overview."""

import os
import subprocess
import sys
from typing import Any

import pytest

from hotswap.console.figures import Part
from hotswap.console.region_map import MAX_RADIUS, region_map
from tests.console.conftest import ConsoleClient, Scene
from tests.live import PROJECT_DIR


def part(name: str, devices: int, online: int) -> Part:
    return Part(name, "", devices, online, 0, 0, 0)


def test_areas_are_numbers_of_devices() -> None:
    drawn = region_map([part("EU", 100, 25), part("APAC", 400, 400)])

    assert drawn is not None
    apac, eu = drawn.spots
    assert apac.radius == pytest.approx(MAX_RADIUS)
    assert (eu.radius / apac.radius) ** 2 == pytest.approx(100 / 400)
    assert (eu.online_radius / eu.radius) ** 2 == pytest.approx(25 / 100)
    assert apac.online_radius == apac.radius


def test_a_place_is_where_its_degrees_are(settings: Any) -> None:
    settings.REGION_PLACES = {"A": [0, 0], "B": [75, -180], "C": [-60, 180]}

    drawn = region_map([part(name, 1, 0) for name in "ABC"])

    assert drawn is not None
    assert [(spot.x, spot.y) for spot in drawn.spots] == [(180, 75), (0, 0), (360, 135)]


def test_a_name_lies_on_no_other(settings: Any) -> None:
    settings.REGION_PLACES = {"EU": [53, -8], "EU-CENTRAL": [50, 9], "FAR": [80, 90]}

    drawn = region_map([part("EU", 2, 2), part("EU-CENTRAL", 9, 9), part("FAR", 1, 1)])

    assert drawn is not None
    above = {spot.part.name: spot.label_y < spot.y for spot in drawn.spots}
    assert above == {"EU-CENTRAL": True, "EU": False, "FAR": False}


def test_what_has_no_place_or_no_device_is_not_drawn(settings: Any) -> None:
    settings.REGION_PLACES = {"A": [0, 0]}

    assert region_map([part("A", 0, 0), part("B", 5, 5)]) is None


def test_the_overview_shows_it_above_the_table(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    page = viewer_client.get("/admin/").content.decode()

    region = scene.device.region
    assert page.count('class="hs-map"') == 1
    assert f'<a href="/admin/devices/device/?region={region}"><title>{region}: ' in page


@pytest.mark.parametrize("given", ['{"EU": [95, 0]}', '{"EU": ["a", 0]}', '{"EU": 1}'])
def test_a_place_that_is_none_ends_the_start(given: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import hotswap.settings.test"],
        cwd=PROJECT_DIR,
        env={**os.environ, "HOTSWAP_REGION_PLACES": given},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "HOTSWAP_REGION_PLACES, 'EU': must be [latitude, longitude]" in done.stderr
