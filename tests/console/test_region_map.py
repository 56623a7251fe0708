"""The map of the regions on the overview."""

import os
import subprocess
import sys
from typing import Any

import pytest

from hotswap.common.console.region_map import (
    MAX_RADIUS,
    Region,
    RegionMap,
    region_map,
    short_number,
)
from tests.console.conftest import ConsoleClient, Scene
from tests.live import PROJECT_DIR


def region(name: str, devices: int, **parts: int) -> Region:
    return Region(name, devices, tuple(parts.items()), "", "/")


def drawn(*regions: Region) -> RegionMap:
    found = region_map(regions, "Map")
    assert found is not None
    return found


def test_areas_are_numbers_of_devices() -> None:
    apac, eu = drawn(region("EU", 225), region("APAC", 400)).spots

    assert apac.radius == pytest.approx(MAX_RADIUS)
    assert (eu.radius / apac.radius) ** 2 == pytest.approx(225 / 400)
    assert (apac.number, eu.number) == ("400", "225")


def test_slices_are_shares_of_the_devices_one_after_the_other() -> None:
    (spot,) = drawn(region("EU", 200, green=50, red=0, blue=100)).spots

    assert [(each.tone, each.start, each.length) for each in spot.slices] == [
        ("green", 0, 25),
        ("blue", 25, 50),
    ]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (7, "7"),
        (999, "999"),
        (1_000, "1k"),
        (1_299, "1.2k"),
        (34_999, "34k"),
        (999_999, "999k"),
        (1_950_000, "1.9M"),
        (12_000_000, "12M"),
    ],
)
def test_a_number_that_is_cut_is_never_more_than_there_are(
    number: int, words: str
) -> None:
    assert short_number(number) == words


def test_a_place_is_where_its_degrees_are(settings: Any) -> None:
    settings.REGION_PLACES = {"A": [0, 0], "B": [75, -180], "C": [-60, 180]}

    spots = drawn(*(region(name, 1) for name in "ABC")).spots

    assert [(spot.x, spot.y) for spot in spots] == [(180, 75), (0, 0), (360, 135)]


def test_a_name_lies_on_no_other(settings: Any) -> None:
    settings.REGION_PLACES = {"EU": [53, -8], "EU-CENTRAL": [50, 9], "FAR": [80, 90]}

    spots = drawn(region("EU", 2), region("EU-CENTRAL", 9), region("FAR", 1)).spots

    above = {spot.region.name: spot.label_y < spot.y for spot in spots}
    assert above == {"EU-CENTRAL": True, "EU": False, "FAR": False}


def test_what_has_no_place_or_no_device_is_not_drawn(settings: Any) -> None:
    settings.REGION_PLACES = {"A": [0, 0]}

    assert region_map([region("A", 0), region("B", 5)], "Map") is None


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
