"""A map of the regions for orientation: where devices are, and how many are online.

Rules:
- Equirectangular, from 60 degrees south to 75 north. The table beside it has the
  figures; a region without a place (`HOTSWAP_REGION_PLACES`) is in the table alone.
- The area of a circle is the number of devices, that of the one inside it the online.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from django.conf import settings

from hotswap.console.figures import Part

NORTH: Final = 75.0
SOUTH: Final = -60.0
WIDTH: Final = 360.0
HEIGHT: Final = NORTH - SOUTH
MAX_RADIUS: Final = 9.0
MIN_RADIUS: Final = 2.0
# Of a name on the map: its height, and what a letter of it is wide.
LETTER_HEIGHT: Final = 8.0
LETTER_WIDTH: Final = 5.0
# Outlines of the continents, no truer than a glance needs: longitude, latitude.
LAND: Final = (
    (
        *((-165, 62), (-156, 71), (-125, 70), (-95, 72), (-82, 68), (-94, 59)),
        *((-80, 52), (-77, 62), (-65, 59), (-55, 52), (-66, 44), (-75, 38)),
        *((-81, 31), (-80, 25), (-84, 30), (-97, 27), (-97, 20), (-87, 21)),
        *((-83, 10), (-78, 8), (-92, 15), (-105, 20), (-114, 31), (-124, 41)),
        *((-124, 49), (-135, 58), (-152, 60)),
    ),
    (
        *((-78, 8), (-62, 10), (-50, 1), (-35, -6), (-39, -16), (-48, -26)),
        *((-57, -37), (-65, -42), (-68, -54), (-74, -50), (-71, -30), (-71, -18)),
        *((-81, -5), (-78, 2)),
    ),
    (
        *((-10, 37), (-9, 44), (-2, 44), (-4, 49), (4, 52), (9, 57), (5, 60)),
        *((14, 68), (28, 71), (44, 67), (68, 69), (80, 73), (105, 75), (140, 72)),
        *((178, 69), (162, 60), (157, 52), (141, 53), (129, 42), (122, 39)),
        *((121, 31), (110, 20), (107, 10), (104, 2), (98, 10), (93, 21), (80, 15)),
        *((77, 8), (72, 20), (57, 26), (58, 18), (44, 13), (35, 29), (35, 36)),
        *((27, 37), (20, 40), (14, 45), (16, 39), (8, 44), (0, 40), (-5, 36)),
    ),
    (
        *((-6, 35), (10, 37), (20, 31), (33, 31), (43, 11), (51, 11), (40, -4)),
        *((40, -16), (33, -27), (25, -34), (18, -34), (12, -17), (9, 3), (-8, 5)),
        *((-17, 14), (-13, 28)),
    ),
    (
        *((114, -22), (130, -12), (137, -16), (142, -11), (153, -26), (149, -38)),
        *((139, -36), (129, -32), (116, -35)),
    ),
    ((-55, 60), (-70, 75), (-22, 75), (-40, 65)),
    ((131, 32), (141, 36), (145, 43), (139, 38)),
    ((-5, 50), (1, 52), (-3, 58), (-6, 57)),
    ((96, 5), (106, -6), (118, -9), (141, -8), (131, -1), (117, 5), (108, 1)),
    ((173, -41), (178, -38), (168, -46)),
    ((44, -20), (50, -16), (47, -25)),
)
OUTLINES: Final = tuple(
    " ".join(
        f"{180 + longitude},{NORTH - latitude:g}" for longitude, latitude in points
    )
    for points in LAND
)


@dataclass(frozen=True, slots=True)
class Spot:
    """A region on the map, in units of a degree from its upper left corner.

    Attributes:
        label_y: baseline of its name, above it or below.
    """

    part: Part
    x: float
    y: float
    radius: float
    online_radius: float
    label_y: float


@dataclass(frozen=True, slots=True)
class RegionMap:
    """What is drawn: the spots, the largest first."""

    spots: tuple[Spot, ...]

    width = WIDTH
    height = HEIGHT
    outlines = OUTLINES


def region_map(regions: Iterable[Part]) -> RegionMap | None:
    """Place the regions that have devices; None if none of them has a place."""
    placed = [
        (each, settings.REGION_PLACES[each.name])
        for each in regions
        if each.devices and each.name in settings.REGION_PLACES
    ]
    most = max((each.devices for each, _ in placed), default=0)
    spots: list[Spot] = []
    for each, (latitude, longitude) in sorted(placed, key=lambda row: -row[0].devices):
        radius = max(MIN_RADIUS, MAX_RADIUS * math.sqrt(each.devices / most))
        x, y = longitude + 180.0, min(max(NORTH - latitude, 0.0), HEIGHT)
        above, below = y - radius - 2, y + radius + LETTER_HEIGHT
        has_room = above > LETTER_HEIGHT and not any(
            _overlap(spot, each.name, x, above) for spot in spots
        )
        spots.append(
            Spot(
                part=each,
                x=x,
                y=y,
                radius=radius,
                online_radius=radius * math.sqrt(each.online / each.devices),
                label_y=above if has_room else below,
            )
        )
    return RegionMap(tuple(spots)) if spots else None


def _overlap(spot: Spot, name: str, x: float, label_y: float) -> bool:
    """Tell whether a name would lie on the one of a spot."""
    width = LETTER_WIDTH * (len(name) + len(spot.part.name)) / 2
    return abs(spot.x - x) < width and abs(spot.label_y - label_y) < LETTER_HEIGHT
