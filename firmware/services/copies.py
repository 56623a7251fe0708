"""Which buckets hold which image, and the work of bringing it to all of them.

Rules:
- An upload is accepted when one place has it; the others are work in the database.
- A copy counts once its bytes were read there and had the image's checksum; one that
  is found damaged or gone no longer counts and becomes work again.
- One worker copies at a time, so that slow buckets never take all workers from the
  ticks. A copy belongs to it for a while: if it dies, another begins it anew.
- A folder is never copied to another place. Its one row only says which folder holds
  the image: to a host that has another one the image is not there, which is no damage.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from django.db import connection, transaction
from django.utils import timezone

from firmware import storage, storage_locations
from firmware.choices import ABSENT, FirmwareStatus
from firmware.encrypted_format import DamagedImageError
from firmware.models import Firmware, ImageCopy
from firmware.services.keys import file_key
from firmware.storage import StagedImage
from hotswap.common import audit
from hotswap.common.leases import end_lease, renew_lease, take_lease

logger = logging.getLogger(__name__)
LEASE_NAME = "image-copies"
# A worker that has not ended a copy within this time is taken for dead.
LEASE = timedelta(minutes=10)
FIRST_WAIT = timedelta(seconds=10)
LONGEST_WAIT = timedelta(hours=1)
# Of one run: more images than these wait for the next.
COPIES_A_RUN = 20
# No name of a bucket holds a colon.
FOLDER_PREFIX = f"{storage_locations.FOLDER}:"

ADD_MISSING = """
    INSERT INTO firmware_imagecopy
        (storage_name, place, due_at, attempts, failure)
    SELECT f.storage_name, p.name, %(now)s, 0, ''
    FROM firmware_firmware f CROSS JOIN unnest(%(places)s::text[]) AS p (name)
    WHERE f.status NOT IN (%(rejected)s, %(absent)s) AND f.damaged_at IS NULL
    AND NOT EXISTS (
        SELECT FROM firmware_imagecopy c
        WHERE c.storage_name = f.storage_name AND c.place = p.name
    )
    ON CONFLICT DO NOTHING
"""


def publish(staged: StagedImage, name: str) -> None:
    """Bring a staged image to the first place that takes it.

    Raises:
        storage.STORE_ERRORS: no place took it.
    """
    place = storage.publish(staged, name)
    ImageCopy.objects.create(
        storage_name=name,
        place=_own_folder() if place == storage_locations.FOLDER else place,
        stored_at=timezone.now(),
    )


def _own_folder() -> str:
    return f"{FOLDER_PREFIX}{storage.folder_id()}"


def is_in_another_folder(name: str) -> bool:
    """Say whether an image lies in the folder of another host alone."""
    if storage_locations.location_names() != [storage_locations.FOLDER]:
        return False
    folders = ImageCopy.objects.filter(
        storage_name=name, place__startswith=FOLDER_PREFIX
    ).values_list("place", flat=True)
    return bool(folders) and _own_folder() not in folders


def withdraw(name: str) -> None:
    """Remove an image that no firmware speaks of.

    A place that does not answer keeps it until the store is tidied.
    """
    for place in holders(name):
        try:
            storage.withdraw(name, place)
        except storage.STORE_ERRORS:
            logger.warning(
                "Image stays for the next tidying",
                extra={"place": place},
                exc_info=True,
            )
    ImageCopy.objects.filter(storage_name=name).delete()


def holders(name: str, *, region: str = "") -> list[str]:
    """Return the places that hold an image, in the order of a region.

    An image from before copies were counted may be at any of the places.
    """
    order = storage_locations.location_names(region)
    if order == [storage_locations.FOLDER]:
        return order
    held = set(
        ImageCopy.objects.filter(
            storage_name=name, stored_at__isnull=False
        ).values_list("place", flat=True)
    )
    return [place for place in order if place in held] or order


def mark_replica_lost(firmware: Firmware, place: str, reason: str) -> None:
    """Stop counting on a copy; it is made again from another one."""
    if place == storage_locations.FOLDER:
        return
    with transaction.atomic():
        lost = ImageCopy.objects.filter(
            storage_name=firmware.storage_name, place=place, stored_at__isnull=False
        ).update(stored_at=None, due_at=timezone.now(), failure=reason[:200])
        if lost:
            audit.record(
                actor=None,
                verb="firmware.copy-lost",
                object_kind="firmware",
                object_id=firmware.pk,
                details={"place": place, "reason": reason},
            )


def check_copies(firmware: Firmware) -> None:
    """Read each copy of an image; those that are not right are set aside.

    A single copy is left to the caller, who reads it anyway.
    """
    held = holders(firmware.storage_name)
    if len(held) < 2:
        return
    for place in held:
        try:
            _check(firmware, place)
        except DamagedImageError as error:
            mark_replica_lost(firmware, place, str(error))
        except storage.STORE_ERRORS as error:
            # Read again before it counts, as soon as it answers.
            mark_replica_lost(
                firmware, place, f"does not answer: {type(error).__name__}"
            )


def _check(firmware: Firmware, place: str) -> None:
    storage.check_copy(
        firmware.storage_name,
        place,
        partial(file_key, firmware.storage_name),
        size=firmware.size,
        sha256=firmware.sha256,
    )


def note_vanished(place: str, *, present: set[str], before: datetime) -> None:
    """Set aside copies that a place turns out not to hold.

    Args:
        present: all names that lie there.
        before: when they were listed; what was stored since is left alone.
    """
    lost = ImageCopy.objects.filter(place=place, stored_at__lt=before).exclude(
        storage_name__in=present
    )
    for firmware in Firmware.objects.filter(
        storage_name__in=lost.values("storage_name")
    ):
        mark_replica_lost(firmware, place, "gone")


def forget_orphans(*, before: datetime) -> None:
    """Drop the rows of images that no firmware speaks of any more."""
    ImageCopy.objects.filter(stored_at__lt=before).exclude(
        storage_name__in=Firmware.objects.values("storage_name")
    ).delete()


def complete_copies(*, now: datetime | None = None, limit: int = COPIES_A_RUN) -> int:
    """Bring images to the buckets that do not hold them yet.

    Returns:
        How many copies were completed; none if another worker is at it.
    """
    order = storage_locations.location_names()
    if order == [storage_locations.FOLDER]:
        return 0
    now = now or timezone.now()
    if not take_lease(LEASE_NAME, length=LEASE, now=now):
        return 0
    try:
        return _complete_due(now, order, limit)
    finally:
        end_lease(LEASE_NAME)


def _complete_due(now: datetime, order: list[str], limit: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            ADD_MISSING,
            {
                "now": now,
                "places": order,
                "rejected": FirmwareStatus.REJECTED,
                "absent": ABSENT,
            },
        )
    completed = 0
    for _ in range(limit):
        copy = _claim(now, order)
        if copy is None:
            break
        renew_lease(LEASE_NAME, now=timezone.now())
        completed += _complete(copy, now)
    return completed


def _claim(now: datetime, order: Sequence[str]) -> ImageCopy | None:
    with transaction.atomic():
        copy = (
            ImageCopy.objects.select_for_update(skip_locked=True, no_key=True)
            .filter(stored_at__isnull=True, due_at__lte=now, place__in=order)
            .order_by("due_at")
            .first()
        )
        if copy is not None:
            copy.due_at = now + LEASE
            copy.attempts += 1
            copy.save(update_fields=["due_at", "attempts"])
    return copy


def _complete(copy: ImageCopy, now: datetime) -> bool:
    firmware = Firmware.objects.filter(storage_name=copy.storage_name).first()
    if firmware is None:
        copy.delete()
        return False
    try:
        _bring(firmware, copy.place)
    except (DamagedImageError, *storage.STORE_ERRORS) as error:
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(copy.attempts - 1, 20))
        ImageCopy.objects.filter(pk=copy.pk, stored_at__isnull=True).update(
            due_at=now + wait, failure=f"{type(error).__name__}: {error}"[:200]
        )
        logger.warning(
            "Image not copied",
            extra={"place": copy.place, "reason": f"{type(error).__name__}: {error}"},
        )
        return False
    ImageCopy.objects.filter(pk=copy.pk).update(stored_at=timezone.now(), failure="")
    logger.info(
        "Image copied",
        extra={"firmwareId": str(firmware.pk), "place": copy.place},
    )
    return True


def _bring(firmware: Firmware, place: str) -> None:
    """Have a place hold an image, and read it there.

    Raises:
        DamagedImageError: no place has it as it was uploaded.
        storage.STORE_ERRORS: a place does not answer.
    """
    name = firmware.storage_name
    try:
        # There already: from before copies were counted, or set aside for a while.
        _check(firmware, place)
        return
    except DamagedImageError as error:
        failure: Exception = error
    for source in holders(name):
        if source == place:
            continue
        try:
            storage.copy_image(name, source, place)
            _check(firmware, place)
            return
        except (DamagedImageError, *storage.STORE_ERRORS) as error:
            failure = error
    raise failure
