"""A map of the regions for orientation: where devices are, and how they fare.

Rules:
- Equirectangular, from 60 degrees south to 75 north, on `static/hotswap/world.svg`.
  What lies beside the map has the figures; a region without a place
  (`HOTSWAP_REGION_PLACES`) is there alone.
- The area of a circle is the number of its devices, which stands in it, as long as the
  number finds room; its slices are the devices of each colour, clockwise from above.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from django.conf import settings

NORTH: Final = 75.0
SOUTH: Final = -60.0
WIDTH: Final = 360.0
HEIGHT: Final = NORTH - SOUTH
MAX_RADIUS: Final = 13.0
# Room for four letters.
MIN_RADIUS: Final = 8.5
# Of a name on the map: its height, and what a letter of it is wide.
LETTER_HEIGHT: Final = 9.0
LETTER_WIDTH: Final = 5.6


@dataclass(frozen=True, slots=True)
class Region:
    """A region and its devices.

    Attributes:
        parts: how many of its devices have each colour; the others have none.
        says: the same in words.
    """

    name: str
    devices: int
    parts: tuple[tuple[str, int], ...]
    says: str
    url: str


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a circle, in percent of its circumference."""

    tone: str
    start: float
    length: float


@dataclass(frozen=True, slots=True)
class Spot:
    """A region on the map, in units of a degree from its upper left corner.

    Attributes:
        label_y: baseline of its name, above it or below.
    """

    region: Region
    x: float
    y: float
    radius: float
    label_y: float

    @property
    def number(self) -> str:
        return short_number(self.region.devices)

    @property
    def number_y(self) -> float:
        return self.y + 2.5

    @property
    def half_radius(self) -> float:
        """Radius of a line that is as wide as the radius, and so fills the circle."""
        return self.radius / 2

    @property
    def slices(self) -> list[Slice]:
        drawn, start = [], 0.0
        for tone, number in self.region.parts:
            length = 100 * number / self.region.devices
            if length:
                drawn.append(Slice(tone, start, length))
            start += length
        return drawn


@dataclass(frozen=True, slots=True)
class RegionMap:
    """What is drawn: the spots, the largest first."""

    spots: tuple[Spot, ...]
    title: str

    width = WIDTH
    height = HEIGHT


def is_on_the_map(name: str) -> bool:
    """Tell whether a region has a place."""
    return name in settings.REGION_PLACES


def region_map(regions: Sequence[Region], title: str) -> RegionMap | None:
    """Place the regions that have devices; None if none of them has a place."""
    placed = [each for each in regions if each.devices and is_on_the_map(each.name)]
    most = max((each.devices for each in placed), default=0)
    spots: list[Spot] = []
    for each in sorted(placed, key=lambda region: -region.devices):
        latitude, longitude = settings.REGION_PLACES[each.name]
        radius = max(MIN_RADIUS, MAX_RADIUS * math.sqrt(each.devices / most))
        x, y = longitude + 180.0, min(max(NORTH - latitude, 0.0), HEIGHT)
        above, below = y - radius - 2, y + radius + LETTER_HEIGHT
        has_room = above > LETTER_HEIGHT and not any(
            _overlap(spot, each.name, x, above) for spot in spots
        )
        spots.append(Spot(each, x, y, radius, above if has_room else below))
    return RegionMap(tuple(spots), title) if spots else None


def short_number(number: int) -> str:
    """Write a number in four letters or fewer, rounded down: 1,299 is `1.2k`."""
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= 10 * unit:
            return f"{number // unit}{letter}"
        if number >= unit:
            return f"{number // (unit // 10) / 10:g}{letter}"
    return str(number)


def _overlap(spot: Spot, name: str, x: float, label_y: float) -> bool:
    """Tell whether a name would lie on the one of a spot."""
    width = LETTER_WIDTH * (len(name) + len(spot.region.name)) / 2
    return abs(spot.x - x) < width and abs(spot.label_y - label_y) < LETTER_HEIGHT
