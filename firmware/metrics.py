"""The gauges of images and their copies."""

from typing import Final

from hotswap.common.metrics import Gauge

COPIES_MISSING = Gauge(
    "hotswap_image_copies_missing",
    "",
    "Copies of images that are still to be made",
    {"place": ()},
    """
    SELECT place, count(*) FROM firmware_imagecopy
    WHERE stored_at IS NULL GROUP BY 1
    """,
)
IMAGES_DAMAGED = Gauge(
    "hotswap_images_damaged",
    "",
    "Images whose stored bytes are known to be damaged",
    {},
    """
    SELECT count(*) FROM firmware_firmware WHERE damage <> '' AND removed_at IS NULL
    """,
)
GAUGES: Final = (COPIES_MISSING, IMAGES_DAMAGED)
