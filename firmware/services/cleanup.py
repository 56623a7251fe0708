"""Removing what interrupted uploads left in the stores."""

import logging
from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef
from django.utils import timezone

from firmware import storage, storage_locations
from firmware.models import Firmware, WrappedKey
from firmware.services import copies

logger = logging.getLogger(__name__)
ORPHAN_AGE = timedelta(hours=1)


def tidy_store(*, now: datetime | None = None) -> int:
    """Remove what interrupted uploads left: files that no row speaks of, an hour old.

    A copy that has vanished from its bucket is noted, so that it is made again. A
    place that does not answer is left for the next time.

    Returns:
        How many files and unfinished uploads were removed.
    """
    now = now or timezone.now()
    oldest = now - ORPHAN_AGE
    removed = 0
    for part in storage.incoming_folder().glob("*.part"):
        if part.stat().st_mtime < oldest.timestamp():
            part.unlink(missing_ok=True)
            removed += 1
    for place in storage_locations.location_names():
        try:
            removed += _tidy_place(place, oldest)
        except storage.STORE_ERRORS:
            logger.warning("Place is not tidied", extra={"place": place}, exc_info=True)
    copies.forget_strays(before=oldest)
    in_use = Firmware.objects.filter(storage_name=OuterRef("storage_name"))
    WrappedKey.objects.filter(created_at__lt=oldest).exclude(Exists(in_use)).delete()
    return removed


def _tidy_place(place: str, oldest: datetime) -> int:
    removed = 0
    store = storage.image_store(place)
    began_at = timezone.now()
    try:
        names = set(store.listdir("")[1])
    except FileNotFoundError:
        names = set()
    known = set(
        Firmware.objects.filter(storage_name__in=names).values_list(
            "storage_name", flat=True
        )
    )
    for name in names - known:
        if store.get_modified_time(name) < oldest:
            store.delete(name)
            removed += 1
    copies.note_vanished(place, present=names, before=began_at)
    return removed + storage.abort_unfinished(place, before=oldest)
