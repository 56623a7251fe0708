"""Taking in uploaded images: signed, stored, written down as a Draft (FR-FW-001)."""

import logging
from enum import StrEnum
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils.module_loading import import_string

from firmware import signing, storage
from firmware.exceptions import (
    ChecksumMismatchError,
    InvalidVersionError,
    StoreUnavailableError,
    TooManyVersionsError,
    VersionExistsError,
)
from firmware.models import DeviceModel, Firmware
from firmware.services import copies
from firmware.services.damage import clear_damage, fill_digests, locked_firmware
from firmware.services.device_models import device_model_named
from firmware.services.keys import current_signer, hold_keys, keep_file_key
from firmware.storage import StagedImage
from firmware.versions import (
    ONE_TEXT_A_VERSION,
    VersionScheme,
    check_version,
    upload_key,
    upload_number,
    version_key,
)
from hotswap.common import audit
from hotswap.common.models import User
from hotswap.common.pluralize import counted

logger = logging.getLogger(__name__)


class UploadOutcome(StrEnum):
    """What became of an upload."""

    NEW = "new"
    KNOWN = "known"
    REPAIRED = "repaired"


def register_firmware(
    *,
    actor: User | None,
    model_name: str,
    version: str,
    staged: StagedImage,
    release_notes: str = "",
    security_version: int = 0,
    reboot_required: bool = True,
    request_comment: str = "",
    expected_sha256: str | None = None,
) -> tuple[Firmware, UploadOutcome]:
    """Sign a staged image, put it into the store and write its row as a Draft.

    The same version with the same bytes is the same firmware: the row that is there
    is returned, and the staged file is left to the caller to discard. If its stored
    image was found damaged, the staged one takes its place.

    Args:
        request_comment: what the approver is told.
        expected_sha256: what the uploader computed, in lower hex; None if it did not.

    Returns:
        The firmware, and what became of the upload.

    Raises:
        ChecksumMismatchError: the image is not the one that was to be sent.
        UnknownModelError: no such device model.
        InvalidVersionError: it is no version of the scheme of its model.
        VersionExistsError: the version exists with other bytes, or written otherwise.
        TooManyVersionsError: the model has 1,000 versions.
        StoreUnavailableError: the store did not take the image.

    Source: FR-FW-001; Scalability (1,000 versions a model).
    """
    if expected_sha256 is not None and expected_sha256 != staged.sha256:
        raise ChecksumMismatchError(
            f"the image that arrived has the SHA-256 {staged.sha256}, "
            f"not {expected_sha256}"
        )
    model = device_model_named(model_name)
    known = _same_firmware(model, version, staged)
    if known is not None and known.damaged_at is None:
        fill_digests(known, staged.digests)
        return known, UploadOutcome.KNOWN
    name = storage.new_name()
    # Before the transaction: a distant store may take longer than the database lets
    # a transaction idle.
    try:
        copies.publish(staged, name)
    except storage.STORE_ERRORS as error:
        logger.exception("Store refused an image")
        raise StoreUnavailableError(storage.failure_of(error)) from error
    try:
        with transaction.atomic():
            # The model's row is the lock: two uploads of one version wait here, and
            # so do two that would both be the last of the thousand.
            model = DeviceModel.objects.select_for_update(no_key=True).get(pk=model.pk)
            hold_keys()
            known = _same_firmware(model, version, staged)
            if known is not None:
                outcome = _repair(known.pk, actor, staged, name)
                known.refresh_from_db()
                if outcome is UploadOutcome.KNOWN:
                    copies.withdraw(name)
                return known, outcome
            signer = current_signer()
            signature = signing.sign_digest(
                signer.private, bytes.fromhex(staged.sha256)
            )
            firmware = Firmware.objects.create(
                model=model,
                version=version,
                precedence=_next_key(model, version),
                size=staged.size,
                sha256=staged.sha256,
                sha1=staged.digests.sha1,
                md5=staged.digests.md5,
                signature=signature,
                key_id=signer.row_id,
                storage_name=name,
                release_notes=release_notes,
                security_version=security_version,
                reboot_required=reboot_required,
                request_comment=request_comment,
                uploaded_by=actor,
            )
            keep_file_key(name, staged.key)
            import_string(settings.VERSION_ORDER_CHANGED_HOOK)(
                model_id=model.pk, checksum=firmware.sha256
            )
            audit.record(
                actor=actor,
                verb="firmware.uploaded",
                object_kind="firmware",
                object_id=firmware.pk,
                details={
                    "model": model_name,
                    "version": version,
                    "sha256": staged.sha256,
                    "size": staged.size,
                    "comment": request_comment,
                },
            )
            import_string(settings.FIRMWARE_EVENT_HOOK)(
                firmware=firmware, verb="uploaded", actor=actor
            )
    except BaseException:
        copies.withdraw(name)
        raise
    logger.info(
        "Firmware uploaded",
        extra={"firmwareId": str(firmware.pk), "firmwareVersion": version},
    )
    return firmware, UploadOutcome.NEW


def _same_firmware(
    model: DeviceModel, version: str, staged: StagedImage
) -> Firmware | None:
    """Return the firmware of this version and these bytes; None if it is new.

    Raises:
        InvalidVersionError, VersionExistsError, TooManyVersionsError.
    """
    scheme = VersionScheme(model.version_scheme)
    try:
        check_version(version, scheme)
    except ValueError as error:
        raise InvalidVersionError(
            f"{error}: the version scheme of {model.name} is {scheme}"
        ) from None
    known = Firmware.objects.filter(model=model, version=version).first()
    if known is not None:
        if known.sha256 == staged.sha256:
            return known
        raise VersionExistsError(
            f"{model.name} {version} exists with other bytes: "
            "a changed image needs a new version"
        )
    if scheme in ONE_TEXT_A_VERSION:
        same = Firmware.objects.filter(
            model=model, precedence=version_key(version, scheme)
        ).first()
        if same is not None:
            raise VersionExistsError(
                f"{version} is the same version as {same.version}, which {model.name} "
                "has already"
            )
    versions = Firmware.objects.filter(model=model).count()
    if versions >= settings.FIRMWARE_MAX_VERSIONS_PER_MODEL:
        raise TooManyVersionsError(
            f"{model.name} has {counted(versions, 'version')}, which is the most"
        )
    return None


def _next_key(model: DeviceModel, version: str) -> str:
    """Return the key of a version that is uploaded now; the caller holds the lock."""
    scheme = VersionScheme(model.version_scheme)
    if scheme is not VersionScheme.OPAQUE:
        return version_key(version, scheme)
    last = Firmware.objects.filter(model=model).order_by("-precedence").first()
    return upload_key(1 if last is None else upload_number(last.precedence) + 1)


def _repair(
    firmware_id: UUID, actor: User | None, staged: StagedImage, name: str
) -> UploadOutcome:
    """Put a whole image in the place of a damaged one; what is whole stays.

    The approval stands: it is bound to the checksum, and these bytes have it. The old
    file goes with the next tidying, so that downloads of it end by themselves.
    """
    firmware = locked_firmware(firmware_id)
    fill_digests(firmware, staged.digests)
    if firmware.damaged_at is None:
        return UploadOutcome.KNOWN
    firmware.storage_name = name
    keep_file_key(name, staged.key)
    clear_damage(firmware, actor, "uploaded again")
    return UploadOutcome.REPAIRED
