"""What is known of a stored image: that it is damaged, or whole; its digests.

All other services of firmware may call this one, and it calls none of them.
"""

import logging
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from firmware.exceptions import FirmwareNotFoundError
from firmware.models import Firmware
from firmware.storage import Digests
from hotswap.common import audit
from hotswap.common.models import User

logger = logging.getLogger(__name__)


def clear_damage(firmware: Firmware, actor: User | None, how: str) -> None:
    """Write down that the stored image is whole again; the caller holds the lock."""
    damage = firmware.damage
    firmware.damaged_at = None
    firmware.damage = ""
    firmware.removed_at = None
    firmware.updated_at = timezone.now()
    firmware.save(
        update_fields=[
            *("storage_name", "damaged_at", "damage", "removed_at", "updated_at"),
        ]
    )
    audit.record(
        actor=actor,
        verb="firmware.repaired",
        object_kind="firmware",
        object_id=firmware.pk,
        details={"sha256": firmware.sha256, "damage": damage, "how": how},
        changed=firmware,
    )


def fill_digests(firmware: Firmware, digests: Digests) -> None:
    """Note SHA-1 and MD5 of an image from before they were computed on arrival."""
    if firmware.sha1 and firmware.md5:
        return
    firmware.sha1, firmware.md5 = digests.sha1, digests.md5
    Firmware.objects.filter(pk=firmware.pk, sha1="").update(
        sha1=digests.sha1, md5=digests.md5
    )


def locked_firmware(firmware_id: UUID) -> Firmware:
    """Return a firmware under the lock of its row.

    Raises:
        FirmwareNotFoundError: there is none.
    """
    firmware = (
        Firmware.objects.select_for_update(of=("self",), no_key=True)
        .select_related("model")
        .filter(pk=firmware_id)
        .first()
    )
    if firmware is None:
        raise FirmwareNotFoundError("there is no such firmware")
    return firmware


def note_damage(firmware: Firmware, damage: str) -> None:
    """Write down that the stored image is damaged, and notify of it; once."""
    with transaction.atomic():
        noted = Firmware.objects.filter(pk=firmware.pk, damaged_at__isnull=True).update(
            damaged_at=timezone.now(), damage=damage[:200], updated_at=timezone.now()
        )
        if noted:
            audit.record(
                actor=None,
                verb="firmware.damaged",
                object_kind="firmware",
                object_id=firmware.pk,
                details={"damage": damage},
            )
            import_string(settings.FIRMWARE_EVENT_HOOK)(
                firmware=Firmware.objects.select_related("model").get(pk=firmware.pk),
                verb="damaged",
                actor=None,
            )
    logger.error(
        "Stored image is damaged",
        extra={"firmwareId": str(firmware.pk), "damage": damage},
    )
