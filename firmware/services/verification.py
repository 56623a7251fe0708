"""Reading stored images as a whole, against their checksums (FR-FW-001)."""

from uuid import UUID

from django.db import transaction

from firmware.exceptions import FirmwareNotFoundError, ImageUnavailableError
from firmware.models import Firmware
from firmware.services import copies
from firmware.services.damage import (
    clear_damage,
    fill_digests,
    locked_firmware,
    note_damage,
)
from firmware.services.delivery import stored_bytes
from firmware.storage import Digester, Digests
from hotswap.common import audit
from hotswap.common.models import User


def verify_firmware(*, actor: User, firmware_id: UUID) -> Firmware:
    """Read the stored image as a whole and compare it with its checksum.

    What is found is written down: damage, or, where damage was noted before and the
    file has been restored since, that it is whole again.

    Returns:
        The firmware; `damaged_at` is None if the image is whole.

    Raises:
        StoreUnavailableError: the store does not answer; nothing is known then.
    """
    firmware = Firmware.objects.filter(pk=firmware_id).first()
    if firmware is None:
        raise FirmwareNotFoundError("there is no such firmware")
    name = firmware.storage_name
    try:
        digests = read_digests(firmware)
    except ImageUnavailableError:
        digests = None
    with transaction.atomic():
        firmware = locked_firmware(firmware_id)
        if digests is not None:
            fill_digests(firmware, digests)
            if firmware.damaged_at is not None and firmware.storage_name == name:
                clear_damage(firmware, actor, "found whole again")
        audit.record(
            actor=actor,
            verb="firmware.verified",
            object_kind="firmware",
            object_id=firmware.pk,
            details={"sha256": firmware.sha256, "damage": firmware.damage},
        )
    return firmware


def read_digests(firmware: Firmware) -> Digests:
    """Read the whole stored image and return its digests.

    Raises:
        ImageUnavailableError: it is not what was uploaded; this is noted.
        StoreUnavailableError: the store does not answer.
    """
    copies.check_copies(firmware)
    digester = Digester()
    for piece in stored_bytes(firmware, 0, firmware.size):
        digester.update(piece)
    digests = digester.digests()
    if digests.sha256 != firmware.sha256:
        note_damage(firmware, "its bytes are not those of its checksum")
        raise ImageUnavailableError(
            f"the stored image of {firmware} is not the one that was uploaded"
        )
    return digests
