"""Removing stored images: what interrupted uploads left, and what is out of use."""

import logging
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone
from django.utils.module_loading import import_string

from firmware import storage, storage_locations
from firmware.models import Firmware, WrappedKey
from firmware.services import copies
from firmware.services.damage import locked_firmware
from hotswap.common import audit

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
    copies.forget_orphans(before=oldest)
    in_use = Firmware.objects.filter(storage_name=OuterRef("storage_name"))
    WrappedKey.objects.filter(created_at__lt=oldest).exclude(Exists(in_use)).delete()
    return removed


def remove_images(before: datetime, limit: int) -> int:
    """Remove stored images that have been out of use since before a time.

    Those are rejected and deprecated ones of which the rest of HotSwap says that no
    device runs them or may go back to them, and that no open deployment names them.
    The firmware stays, with its digests and signatures; whoever uploads the same bytes
    puts them back. The files become those of nobody, and go when the store is tidied,
    so that downloads end by themselves.

    Returns:
        How many images were removed.
    """
    removed = 0
    for firmware_id in _unused_images(before=before, limit=limit):
        with transaction.atomic():
            firmware = locked_firmware(firmware_id)
            # Asked again under the lock: it may have been reinstated meanwhile.
            if not _unused_images(before=before, limit=1, firmware_id=firmware_id):
                continue
            now = timezone.now()
            firmware.storage_name = storage.new_name()
            firmware.damaged_at = firmware.removed_at = firmware.updated_at = now
            firmware.damage = "it was removed because of its age"
            firmware.save(
                update_fields=[
                    *("storage_name", "damaged_at", "damage", "removed_at"),
                    "updated_at",
                ]
            )
            audit.record(
                actor=None,
                verb="firmware.image-removed",
                object_kind="firmware",
                object_id=firmware.pk,
                details={"sha256": firmware.sha256, "size": firmware.size},
            )
        removed += 1
    return removed


def _unused_images(
    *, before: datetime, limit: int, firmware_id: UUID | None = None
) -> list[UUID]:
    found: list[UUID] = import_string(settings.UNUSED_IMAGES_HOOK)(
        before=before, limit=limit, firmware_id=firmware_id
    )
    return found


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
