"""What a pack tells of a firmware: image, signatures, manifests, approval."""

import base64
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from firmware.exceptions import FirmwareNotFoundError
from firmware.models import Firmware, FirmwareSbom, Manifest
from hotswap.common.evidence.export import export_evidence, person, plain
from hotswap.common.evidence.pack import EvidenceFile, json_file, ndjson_file
from hotswap.common.models import User

CHUNK = 1000


def firmware_evidence(*, actor: User, firmware_id: UUID) -> Iterator[bytes]:
    """Give the evidence pack of a firmware; that it goes out is audited.

    Raises:
        FirmwareNotFoundError: there is none.
    """
    firmware = (
        Firmware.objects.select_related("model", "key", "uploaded_by", "approved_by")
        .filter(pk=firmware_id)
        .first()
    )
    if firmware is None:
        raise FirmwareNotFoundError("there is no such firmware")
    return export_evidence(
        actor=actor,
        kind="firmware",
        object_id=firmware.pk,
        subject={"id": str(firmware.pk), "name": str(firmware)},
        files=firmware_files(firmware),
    )


def firmware_files(firmware: Firmware) -> list[EvidenceFile]:
    """Return what is known of an image, and all that was signed about it."""
    files = [
        json_file("firmware.json", plain(describe_firmware(firmware))),
        ndjson_file("manifests.ndjson", _manifests(firmware)),
    ]
    sbom = FirmwareSbom.objects.filter(firmware=firmware).first()
    if sbom is not None:
        files.append(EvidenceFile("sbom.json", [bytes(sbom.document)]))
    return files


def describe_firmware(firmware: Firmware) -> dict[str, Any]:
    """Return image, approval and signatures, with the keys that made them."""
    signed = [(firmware.key, firmware.signature)]
    signed += [
        (later.key, later.signature)
        for later in firmware.later_signatures.select_related("key")
    ]
    return {
        "id": firmware.pk,
        "model": firmware.model.name,
        "version": firmware.version,
        "status": firmware.status,
        "size": firmware.size,
        "sha256": firmware.sha256,
        "sha1": firmware.sha1,
        "md5": firmware.md5,
        "securityVersion": firmware.security_version,
        "rebootRequired": firmware.reboot_required,
        "releaseNotes": firmware.release_notes,
        "uploadedBy": person(firmware.uploaded_by),
        "uploadedAt": firmware.created_at,
        "requestComment": firmware.request_comment,
        "approvedBy": person(firmware.approved_by),
        "approvedAt": firmware.approved_at,
        "approvedSha256": firmware.approved_sha256,
        "statusComment": firmware.status_comment,
        "damagedAt": firmware.damaged_at,
        "damage": firmware.damage,
        "signatureRevokedAt": firmware.signature_revoked_at,
        "signatures": [
            {
                "keyId": key.key_id,
                "keyStatus": key.status,
                "algorithm": key.algorithm,
                "signature": signature,
                "publicKey": key.public_key,
            }
            for key, signature in signed
        ],
    }


def _manifests(firmware: Firmware) -> Iterator[dict[str, Any]]:
    found = Manifest.objects.filter(firmware=firmware).select_related("key")
    for manifest in found.order_by("sequence").iterator(CHUNK):
        yield {
            "sequence": manifest.sequence,
            "manifest": base64.b64encode(bytes(manifest.body)).decode(),
            "signature": manifest.signature,
            "keyId": manifest.key.key_id,
        }
