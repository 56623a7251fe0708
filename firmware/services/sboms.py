"""The bill of materials of a firmware: kept as it came, one for each firmware."""

import hashlib
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from firmware.exceptions import FirmwareNotFoundError, InvalidSbomError
from firmware.models import Firmware, FirmwareSbom
from firmware.sboms import read_sbom
from hotswap.common import audit
from hotswap.common.models import User


def put_sbom(*, actor: User, firmware_id: UUID, body: bytes) -> FirmwareSbom:
    """Keep a bill of materials in place of the former one; the same again is no change.

    Raises:
        FirmwareNotFoundError: there is no such firmware.
        InvalidSbomError: it is none that can be read.
    """
    try:
        read = read_sbom(body)
    except ValueError as error:
        raise InvalidSbomError(f"no bill of materials: {error}") from None
    digest = hashlib.sha256(body).hexdigest()
    with transaction.atomic():
        firmware = (
            Firmware.objects.select_for_update(of=("self",), no_key=True)
            .filter(pk=firmware_id)
            .first()
        )
        if firmware is None:
            raise FirmwareNotFoundError("there is no such firmware")
        former = FirmwareSbom.objects.filter(firmware=firmware).first()
        if former is not None and former.sha256 == digest:
            return former
        kept, _ = FirmwareSbom.objects.update_or_create(
            firmware=firmware,
            defaults={
                "form": read.form,
                "spec_version": read.spec_version,
                "document": body,
                "sha256": digest,
                "components": [
                    {"name": each.name, "version": each.version, "purl": each.purl}
                    for each in read.components
                ],
                "uploaded_by": actor,
                "uploaded_at": timezone.now(),
            },
        )
        audit.record(
            actor=actor,
            verb="firmware.sbom-uploaded",
            object_kind="firmware",
            object_id=firmware.pk,
            details={
                "format": read.form,
                "components": len(read.components),
                "sha256": digest,
                "formerSha256": former and former.sha256,
            },
        )
    return kept
