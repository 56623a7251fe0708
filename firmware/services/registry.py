"""Registering, approving and retiring firmware (FR-FW-001)."""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any
from uuid import UUID

import pgtrigger
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone
from django.utils.module_loading import import_string

from firmware import links, places, signing, storage
from firmware.choices import ABSENT, DELETABLE, FirmwareStatus
from firmware.exceptions import (
    ChecksumMismatchError,
    FirmwareInUseError,
    FirmwareNotFoundError,
    ImageChangedError,
    ImageUnavailableError,
    InvalidVersionError,
    ModelExistsError,
    ModelNotFoundError,
    OwnUploadError,
    SignatureRevokedError,
    StoreUnavailableError,
    TooManyVersionsError,
    UnknownModelError,
    VersionExistsError,
    VersionSchemeInUseError,
    WrongStatusError,
)
from firmware.frames import DamagedImageError, MissingImageError
from firmware.models import (
    DeviceModel,
    Firmware,
    Manifest,
    SigningKey,
    WrappedKey,
)
from firmware.services import copies
from firmware.services.keys import (
    current_signer,
    file_key,
    hold_rings,
    keep_file_key,
    lock_rings,
    signer_of,
    signing_key_for,
)
from firmware.storage import Digester, Digests, StagedImage
from firmware.versions import (
    ONE_TEXT_A_VERSION,
    VersionScheme,
    check_version,
    upload_key,
    upload_number,
    version_key,
)
from hotswap.common import audit
from hotswap.common.etags import check_match
from hotswap.common.models import User
from hotswap.common.rows import Columns, prepared_cursor
from hotswap.common.words import counted

logger = logging.getLogger(__name__)
ORPHAN_AGE = timedelta(hours=1)
NOT_IN_THIS_FOLDER = (
    "the image lies in the folder of another host: hosts of one fleet share that "
    "folder, or keep their images in a bucket"
)


class UploadOutcome(StrEnum):
    """What became of an upload."""

    NEW = "new"
    KNOWN = "known"
    REPAIRED = "repaired"


def create_device_model(
    *,
    actor: User | None,
    name: str,
    description: str = "",
    requires_secure_boot: bool = False,
    version_scheme: VersionScheme = VersionScheme.SEMVER,
) -> DeviceModel:
    """Add a kind of device to the catalogue.

    Args:
        requires_secure_boot: give updates only to devices that report secure boot.
        version_scheme: how the versions of its firmware are written and ordered.

    Raises:
        ModelExistsError: the name is taken.
    """
    with transaction.atomic():
        model, is_new = DeviceModel.objects.get_or_create(
            name=name,
            defaults={
                "description": description,
                "requires_secure_boot": requires_secure_boot,
                "version_scheme": version_scheme.value,
            },
        )
        if not is_new:
            raise ModelExistsError(f"there is a device model {name!r} already")
        audit.record(
            actor=actor,
            verb="device-model.created",
            object_kind="device-model",
            object_id=model.pk,
            details={
                "name": name,
                "requiresSecureBoot": requires_secure_boot,
                "versionScheme": version_scheme.value,
            },
        )
    return model


def found_device_model(model_id: UUID) -> DeviceModel:
    """Return a model of the catalogue by its id.

    Raises:
        ModelNotFoundError: there is none.
    """
    model = DeviceModel.objects.filter(pk=model_id).first()
    if model is None:
        raise ModelNotFoundError("there is no such device model")
    return model


def change_device_model(
    *,
    actor: User,
    model_id: UUID,
    changes: dict[str, Any],
    expected: frozenset[str] | None = None,
) -> DeviceModel:
    """Change what the catalogue says of a kind of device.

    A requirement of secure boot counts from the next launch and the next offer on;
    orders that devices have already go on. A version scheme can be changed while the
    model has no firmware; what its devices say they run is read anew.

    Args:
        changes: any of `description`, `requires_secure_boot`, `version_scheme`.

    Raises:
        ModelNotFoundError, PreconditionFailedError.
        VersionSchemeInUseError: it has firmware, whose versions its scheme orders.
    """
    with transaction.atomic():
        model = (
            DeviceModel.objects.select_for_update(no_key=True)
            .filter(pk=model_id)
            .first()
        )
        if model is None:
            raise ModelNotFoundError("there is no such device model")
        check_match(model, expected)
        changed = [name for name in changes if getattr(model, name) != changes[name]]
        if not changed:
            return model
        if (
            "version_scheme" in changed
            and Firmware.objects.filter(model=model).exists()
        ):
            raise VersionSchemeInUseError(
                f"{model} has firmware, whose versions are {model.version_scheme}: the "
                "scheme can be changed only before the first upload"
            )
        for name in changed:
            setattr(model, name, changes[name])
        model.updated_at = timezone.now()
        model.save(update_fields=[*changed, "updated_at"])
        if "version_scheme" in changed:
            import_string(settings.VERSION_ORDER_CHANGED_HOOK)(model_id=model.pk)
        audit.record(
            actor=actor,
            verb="device-model.changed",
            object_kind="device-model",
            object_id=model.pk,
            details={
                "fields": sorted(changed),
                "requiresSecureBoot": model.requires_secure_boot,
                "versionScheme": model.version_scheme,
            },
        )
    return model


def device_model_named(name: str) -> DeviceModel:
    """Return a model of the catalogue.

    Raises:
        UnknownModelError: there is none of that name (422).
    """
    model = DeviceModel.objects.filter(name=name).first()
    if model is None:
        raise UnknownModelError(f"there is no device model {name!r}")
    return model


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
        _fill_digests(known, staged.digests)
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
            hold_rings()
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
            _tell(firmware, "uploaded", actor)
    except BaseException:
        copies.withdraw(name)
        raise
    logger.info(
        "Firmware uploaded",
        extra={"firmwareId": str(firmware.pk), "firmwareVersion": version},
    )
    return firmware, UploadOutcome.NEW


def _tell(firmware: Firmware, verb: str, actor: User | None) -> None:
    """Let those be told who asked for it, in the transaction of the deed."""
    import_string(settings.FIRMWARE_TOLD_HOOK)(
        firmware=firmware, verb=verb, actor=actor
    )


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
    firmware = _locked(firmware_id)
    _fill_digests(firmware, staged.digests)
    if firmware.damaged_at is None:
        return UploadOutcome.KNOWN
    firmware.storage_name = name
    keep_file_key(name, staged.key)
    _clear_damage(firmware, actor, "uploaded again")
    return UploadOutcome.REPAIRED


def _clear_damage(firmware: Firmware, actor: User | None, how: str) -> None:
    """Write down that the stored image is whole again; the caller holds the lock."""
    damage = firmware.damage
    firmware.damaged_at = None
    firmware.damage = ""
    firmware.updated_at = timezone.now()
    firmware.save(update_fields=["storage_name", "damaged_at", "damage", "updated_at"])
    audit.record(
        actor=actor,
        verb="firmware.repaired",
        object_kind="firmware",
        object_id=firmware.pk,
        details={"sha256": firmware.sha256, "damage": damage, "how": how},
    )


def _fill_digests(firmware: Firmware, digests: Digests) -> None:
    """Note SHA-1 and MD5 of an image from before they were computed on arrival."""
    if firmware.sha1 and firmware.md5:
        return
    firmware.sha1, firmware.md5 = digests.sha1, digests.md5
    Firmware.objects.filter(pk=firmware.pk, sha1="").update(
        sha1=digests.sha1, md5=digests.md5
    )


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
        digests = _read_digests(firmware)
    except ImageUnavailableError:
        digests = None
    with transaction.atomic():
        firmware = _locked(firmware_id)
        if digests is not None:
            _fill_digests(firmware, digests)
            if firmware.damaged_at is not None and firmware.storage_name == name:
                _clear_damage(firmware, actor, "found whole again")
        audit.record(
            actor=actor,
            verb="firmware.verified",
            object_kind="firmware",
            object_id=firmware.pk,
            details={"sha256": firmware.sha256, "damage": firmware.damage},
        )
    return firmware


def _read_digests(firmware: Firmware) -> Digests:
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


def _locked(firmware_id: UUID) -> Firmware:
    firmware = (
        Firmware.objects.select_for_update(of=("self",), no_key=True)
        .select_related("model")
        .filter(pk=firmware_id)
        .first()
    )
    if firmware is None:
        raise FirmwareNotFoundError("there is no such firmware")
    return firmware


def _require(firmware: Firmware, status: FirmwareStatus, verb: str) -> None:
    if firmware.status != status:
        raise WrongStatusError(
            f"only {status.value} firmware can be {verb}: this is {firmware.status}"
        )


def _move(
    firmware: Firmware, actor: User | None, verb: str, fields: dict[str, Any]
) -> None:
    for name, value in fields.items():
        setattr(firmware, name, value)
    firmware.updated_at = timezone.now()
    firmware.save(update_fields=[*fields, "updated_at"])
    audit.record(
        actor=actor,
        verb=f"firmware.{verb}",
        object_kind="firmware",
        object_id=firmware.pk,
        details={"sha256": firmware.sha256, "comment": firmware.status_comment},
    )


def approve_firmware(
    *,
    actor: User,
    firmware_id: UUID,
    comment: str = "",
    expected: frozenset[str] | None = None,
) -> Firmware:
    """Approve a Draft for deployment, binding the approval to its bytes.

    The stored image is read and compared with its checksum first: what is approved
    is what lies there now.

    Raises:
        WrongStatusError: not a Draft.
        OwnUploadError: four eyes are asked for and the approver is the uploader.
        ImageChangedError: the stored image is not the one that was uploaded.
    """
    firmware = Firmware.objects.filter(pk=firmware_id).first()
    if firmware is None:
        raise FirmwareNotFoundError("there is no such firmware")
    _check_approval(firmware, actor, expected)
    # Outside the lock: reading 100 MB takes a while, and the bytes cannot change
    # without their tags failing at every later read too.
    try:
        digests = _read_digests(firmware)
    except ImageUnavailableError as error:
        raise ImageChangedError(error.detail) from error
    with transaction.atomic():
        firmware = _locked(firmware_id)
        _check_approval(firmware, actor, expected)
        _fill_digests(firmware, digests)
        if firmware.damaged_at is not None:
            raise ImageChangedError(
                f"the stored image of {firmware} was found damaged: {firmware.damage}; "
                "upload the same bytes again, or have the restored file checked"
            )
        _move(
            firmware,
            actor,
            "approved",
            {
                "status": FirmwareStatus.APPROVED,
                "approved_by": actor,
                "approved_at": timezone.now(),
                "approved_sha256": firmware.sha256,
                "status_comment": comment,
            },
        )
        _tell(firmware, "approved", actor)
    return firmware


def _check_approval(
    firmware: Firmware, actor: User, expected: frozenset[str] | None
) -> None:
    check_match(firmware, expected)
    _require(firmware, FirmwareStatus.DRAFT, "approved")
    if settings.FOUR_EYES and firmware.uploaded_by_id == actor.pk:
        raise OwnUploadError("whoever uploaded a firmware cannot approve it")


def reject_firmware(
    *,
    actor: User,
    firmware_id: UUID,
    comment: str,
    expected: frozenset[str] | None = None,
) -> Firmware:
    """Reject a Draft for good.

    Raises:
        WrongStatusError: not a Draft.
    """
    with transaction.atomic():
        firmware = _locked(firmware_id)
        check_match(firmware, expected)
        _require(firmware, FirmwareStatus.DRAFT, "rejected")
        _move(
            firmware,
            actor,
            "rejected",
            {"status": FirmwareStatus.REJECTED, "status_comment": comment},
        )
        _tell(firmware, "rejected", actor)
    return firmware


def deprecate_firmware(
    *,
    actor: User,
    firmware_id: UUID,
    reason: str,
    cancel_deployments: bool = False,
    expected: frozenset[str] | None = None,
) -> tuple[Firmware, list[UUID]]:
    """Close an approved version to new deployments, and recall it if asked to.

    A recall also cancels the deployments of it that wait or run: what has not begun
    to install stops, what has finishes. A version that is deprecated already can
    still be recalled.

    Returns:
        The firmware, and the deployments that were cancelled.

    Raises:
        WrongStatusError: not approved (nor deprecated, for a recall).
    """
    with transaction.atomic():
        firmware = _locked(firmware_id)
        check_match(firmware, expected)
        if not (cancel_deployments and firmware.status == FirmwareStatus.DEPRECATED):
            _require(firmware, FirmwareStatus.APPROVED, "deprecated")
            _move(
                firmware,
                actor,
                "deprecated",
                {"status": FirmwareStatus.DEPRECATED, "status_comment": reason},
            )
            _tell(firmware, "deprecated", actor)
        cancelled: list[UUID] = []
        if cancel_deployments:
            # The lock above keeps launches of this firmware waiting, so that none
            # slips in between.
            cancelled = import_string(settings.FIRMWARE_RECALLED_HOOK)(
                firmware=firmware, actor=actor, reason=reason
            )
            audit.record(
                actor=actor,
                verb="firmware.recalled",
                object_kind="firmware",
                object_id=firmware.pk,
                details={
                    "sha256": firmware.sha256,
                    "comment": reason,
                    "deployments": [str(pk) for pk in cancelled],
                },
            )
    return firmware, cancelled


def reinstate_firmware(
    *,
    actor: User,
    firmware_id: UUID,
    reason: str,
    expected: frozenset[str] | None = None,
) -> Firmware:
    """Open a deprecated version to new deployments again.

    The approval is that of before, which is bound to the checksum. Deployments that a
    recall has cancelled stay cancelled.

    Raises:
        WrongStatusError: not deprecated.
        OwnUploadError: four eyes are asked for and the actor is the uploader.
        ImageChangedError: the stored image is damaged.
        SignatureRevokedError: the image is to be signed again first.
    """
    with transaction.atomic():
        firmware = _locked(firmware_id)
        check_match(firmware, expected)
        _require(firmware, FirmwareStatus.DEPRECATED, "reinstated")
        if settings.FOUR_EYES and firmware.uploaded_by_id == actor.pk:
            raise OwnUploadError("whoever uploaded a firmware cannot reinstate it")
        if firmware.damaged_at is not None:
            raise ImageChangedError(
                f"the stored image of {firmware} is damaged: {firmware.damage}"
            )
        if firmware.signature_revoked_at is not None:
            raise SignatureRevokedError(
                f"the key that signed {firmware} was revoked: sign the image again"
            )
        _move(
            firmware,
            actor,
            "reinstated",
            {"status": FirmwareStatus.APPROVED, "status_comment": reason},
        )
    return firmware


def delete_firmware(
    *,
    actor: User,
    firmware_id: UUID,
    expected: frozenset[str] | None = None,
) -> None:
    """Remove a Draft or rejected firmware, its image included.

    Its version is free again. The image file goes after the commit; one that its store
    does not let go is removed when the store is tidied.

    Raises:
        WrongStatusError: it was approved once.
        FirmwareInUseError: devices run its bytes, or an order leads back to them.
    """
    with transaction.atomic():
        # Nobody signs it meanwhile.
        lock_rings()
        # With its key: whoever is about to refer to it waits, or goes without it.
        firmware = (
            Firmware.objects.select_for_update(of=("self",), no_key=False)
            .select_related("model")
            .filter(pk=firmware_id)
            .first()
        )
        if firmware is None:
            raise FirmwareNotFoundError("there is no such firmware")
        check_match(firmware, expected)
        if firmware.status not in DELETABLE:
            raise WrongStatusError(
                "only Draft and Rejected firmware can be deleted: "
                f"this is {firmware.status}"
            )
        use: str = import_string(settings.FIRMWARE_IN_USE_HOOK)(firmware=firmware)
        if use:
            raise FirmwareInUseError(f"{firmware} cannot be deleted: {use}")
        name = firmware.storage_name
        WrappedKey.objects.filter(storage_name=name).delete()
        with pgtrigger.ignore("firmware.ImageSignature:image_signature_stays"):
            firmware.later_signatures.all().delete()
        firmware.delete()
        audit.record(
            actor=actor,
            verb="firmware.deleted",
            object_kind="firmware",
            object_id=firmware_id,
            details={
                "model": firmware.model.name,
                "version": firmware.version,
                "sha256": firmware.sha256,
                "status": firmware.status,
            },
        )
        transaction.on_commit(partial(copies.withdraw, name), robust=True)


def change_release_notes(
    *,
    actor: User,
    firmware_id: UUID,
    release_notes: str,
    expected: frozenset[str] | None = None,
) -> Firmware:
    """Rewrite the notes of a Draft; approved notes stay what was approved.

    Raises:
        WrongStatusError: not a Draft.
    """
    with transaction.atomic():
        firmware = _locked(firmware_id)
        check_match(firmware, expected)
        _require(firmware, FirmwareStatus.DRAFT, "changed")
        _move(firmware, actor, "changed", {"release_notes": release_notes})
    return firmware


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

    def set_aside(place: str, damage: str) -> None:
        if len(held) > 1:
            copies.set_aside(firmware, place, damage)

    try:
        pieces = storage.read_image(
            name,
            partial(file_key, name),
            size=firmware.size,
            start=start,
            end=end,
            at=held,
            on_damage=set_aside,
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
    if held == [places.FOLDER]:
        # A folder has no links; the image is from when there was a bucket.
        return None
    try:
        return links.link_to(
            name,
            held_by=held,
            region=region,
            on_missing=lambda place: copies.set_aside(firmware, place, "gone"),
        )
    except links.NoPlaceHasItError as error:
        note_damage(firmware, "the stored file is gone")
        raise ImageUnavailableError(
            f"the stored image of {firmware} is gone from every bucket"
        ) from error
    except links.NoPlaceAnswersError as error:
        raise StoreUnavailableError(storage.failure_of(error)) from error


def note_damage(firmware: Firmware, damage: str) -> None:
    """Write down that the stored image is damaged, once."""
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
    logger.error(
        "Stored image is damaged",
        extra={"firmwareId": str(firmware.pk), "damage": damage},
    )


MANIFEST = Columns(Manifest, "m")
KEY = Columns(SigningKey, "k", without=("sealed_private_key",))
# There is one active key, and it is preferred to all others.
NEWEST_MANIFEST = f"""
    SELECT {MANIFEST.sql}, {KEY.sql} FROM firmware_manifest m
    JOIN firmware_signingkey k ON k.id = m.key_id
    WHERE m.firmware_id = %s AND m.sequence > %s AND k.status = 'Active'
    ORDER BY m.sequence DESC LIMIT 1
"""  # noqa: S608


def _newest_manifest(
    firmware: Firmware, above: int, trusted: frozenset[str] | None, now: datetime
) -> Manifest | None:
    """Return the newest manifest under the active key, if that may sign for it."""
    with prepared_cursor() as cursor:
        cursor.execute(NEWEST_MANIFEST, [firmware.pk, above])
        row = cursor.fetchone()
    if row is None:
        return None
    values = iter(row)
    manifest = MANIFEST.take(values)
    manifest.key = KEY.take(values)
    is_known = trusted is None or manifest.key.key_id in trusted
    return manifest if is_known and manifest.key.may_sign(now) else None


# Microseconds since 1970 by the database's clock, which all hosts share; a clock that
# was set back counts on from the highest. Two at the same microsecond: the second one
# waits for the first, inserts nothing, and looks again.
INTO_MANIFESTS = """
    INSERT INTO firmware_manifest
        (sequence, firmware_id, body, signature, key_id, issued_at)
    SELECT GREATEST(
            (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
            max(sequence) + 1
        ), %s::uuid, '', '', %s::uuid, %s::timestamptz
    FROM firmware_manifest
    ON CONFLICT (sequence) DO NOTHING
    RETURNING sequence
"""


def _begin_manifest(firmware: Firmware, key: SigningKey, now: datetime) -> Manifest:
    """Return a manifest without body and signature, of a sequence never used before.

    Devices remember the highest sequence that they have accepted. It holds the time of
    issue, so that it is above all that were ever issued even where the rows of the
    latest are gone, as after the restore of a backup.
    """
    while True:
        with prepared_cursor() as cursor:
            cursor.execute(INTO_MANIFESTS, [firmware.pk, key.pk, now])
            row = cursor.fetchone()
        if row is not None:
            return Manifest(sequence=row[0], firmware=firmware, key=key, issued_at=now)


def manifest_for(
    firmware: Firmware, *, above: int, trusted: frozenset[str] | None = None
) -> Manifest:
    """Return a signed manifest whose sequence is higher than the given one.

    The newest manifest of the firmware serves every device that has not seen a higher
    sequence; a device that has (it went back and comes again) gets a new one.

    Args:
        trusted: names of the signing keys that the device has pinned, where it says;
            see `signing_key_for`.
    """
    assert firmware.status != ABSENT
    now = timezone.now()
    newest = _newest_manifest(firmware, above, trusted, now)
    if newest is not None:
        return newest
    key = signing_key_for(trusted, now=now)
    newest = (
        Manifest.objects.select_related("key")
        .filter(firmware=firmware, key=key, sequence__gt=above)
        .order_by("-sequence")
        .first()
    )
    if newest is not None:
        return newest
    with transaction.atomic():
        hold_rings()
        # Again: the ring may have changed before it was held.
        key = signing_key_for(trusted, now=now)
        signer = signer_of(key)
        manifest = _begin_manifest(firmware, key, now)
        manifest.body = signing.build_manifest(
            model=firmware.model.name,
            version=firmware.version,
            sequence=manifest.sequence,
            security_version=firmware.security_version,
            sha256=firmware.sha256,
            size_bytes=firmware.size,
            signing_key_id=signer.key_id,
            issued_at=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        manifest.signature = signing.sign_message(signer.private, manifest.body)
        manifest.save(update_fields=["body", "signature"])
    return manifest


def absent_firmware(*, model_id: UUID, sha256: str, version: str) -> UUID:
    """Return the record of an image that devices hold and the server does not.

    It is made at the first need. What devices call the image is part of it, so that
    none of them can put a name on another's.
    """
    known = Firmware.with_absent.filter(
        status=ABSENT, model=model_id, sha256=sha256, version=version
    ).values_list("pk", flat=True)
    found = known.first()
    if found is not None:
        return found
    row = Firmware(
        model_id=model_id,
        version=version,
        precedence="",
        status=ABSENT,
        size=0,
        sha256=sha256,
        signature="",
        # Nothing is signed by it; each row has some key.
        key_id=current_signer().row_id,
    )
    row.storage_name = f"absent-{row.pk}"
    Firmware.with_absent.bulk_create([row], ignore_conflicts=True)
    # Whoever was first.
    return known.get()


def sign_slot_return(
    firmware: Firmware, *, device_id: str, trusted: frozenset[str] | None
) -> Manifest:
    """Return a signed leave for one device to boot an absent image that it has kept.

    Always a new one: it is bound to the device, and newer than all that it has seen.
    An image manifest is never signed for such an image, as the digest is nothing but
    the word of a device, and other devices would take it for the server's.
    """
    assert firmware.status == ABSENT
    now = timezone.now()
    with transaction.atomic():
        hold_rings()
        key = signing_key_for(trusted, now=now)
        signer = signer_of(key)
        manifest = _begin_manifest(firmware, key, now)
        manifest.body = signing.build_slot_return(
            device_id=device_id,
            model=firmware.model.name,
            version=firmware.version,
            sequence=manifest.sequence,
            sha256=firmware.sha256,
            signing_key_id=signer.key_id,
            issued_at=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        manifest.signature = signing.sign_message(signer.private, manifest.body)
        manifest.save(update_fields=["body", "signature"])
    return manifest


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
    for place in places.place_names():
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
