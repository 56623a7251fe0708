"""Handing out stored images: verified bytes, or a short-lived address (FR-FW-001)."""

import logging
from collections.abc import Iterator
from functools import partial

from firmware import links, storage, storage_locations
from firmware.encrypted_format import DamagedImageError, MissingImageError
from firmware.exceptions import ImageUnavailableError, StoreUnavailableError
from firmware.models import Firmware
from firmware.services import copies
from firmware.services.damage import note_damage
from firmware.services.keys import file_key

logger = logging.getLogger(__name__)
NOT_IN_THIS_FOLDER = (
    "the image lies in the folder of another host: hosts of one fleet share that "
    "folder, or keep their images in a bucket"
)


def stored_bytes(
    firmware: Firmware, start: int, end: int, *, region: str = ""
) -> Iterator[bytes]:
    """Yield the bytes [start, end) of the image, each verified before it leaves.

    Of an image that its store encrypts, only the whole can be verified, at its end.

    Args:
        region: whose places are asked first.

    Raises:
        ImageUnavailableError: the stored image is damaged at every place that holds
            it. This is noted on the firmware, so that nobody is offered it again.
        StoreUnavailableError: the store does not answer, or the image lies in the
            folder of another host; nothing is known of the image.
    """
    name = firmware.storage_name
    held = copies.holders(name, region=region)

    def mark_replica_lost(place: str, damage: str) -> None:
        if len(held) > 1:
            copies.mark_replica_lost(firmware, place, damage)

    try:
        pieces = storage.read_image(
            name,
            partial(file_key, name),
            size=firmware.size,
            start=start,
            end=end,
            at=held,
            on_damage=mark_replica_lost,
        )
        if storage.is_plain(name) and (start, end) == (0, firmware.size):
            pieces = storage.checked(pieces, firmware.sha256)
        yield from pieces
    except DamagedImageError as error:
        if isinstance(error, MissingImageError) and copies.is_in_another_folder(name):
            raise StoreUnavailableError(NOT_IN_THIS_FOLDER) from error
        note_damage(firmware, str(error))
        raise ImageUnavailableError(
            f"the stored image of {firmware} is damaged: {error}"
        ) from error
    except storage.STORE_ERRORS as error:
        logger.exception("Store does not give an image")
        raise StoreUnavailableError(storage.failure_of(error)) from error


def download_link(firmware: Firmware, *, region: str) -> str | None:
    """Return a short-lived address of the image; None if it goes through the server.

    Who may have it is decided before. Within the life of the address, a minute at
    most, whoever holds it can fetch this one image, also after a revocation.

    Raises:
        ImageUnavailableError: it is gone from all of them; this is noted.
        StoreUnavailableError: no place that holds it answers.
    """
    name = firmware.storage_name
    if not storage.is_plain(name):
        return None
    held = copies.holders(name, region=region)
    if held == [storage_locations.FOLDER]:
        # A folder has no links; the image is from when there was a bucket.
        return None
    try:
        return links.link_to(
            name,
            held_by=held,
            region=region,
            on_missing=lambda place: copies.mark_replica_lost(firmware, place, "gone"),
        )
    except links.NoPlaceHasItError as error:
        note_damage(firmware, "the stored file is gone")
        raise ImageUnavailableError(
            f"the stored image of {firmware} is gone from every bucket"
        ) from error
    except links.NoPlaceAnswersError as error:
        raise StoreUnavailableError(storage.failure_of(error)) from error
