"""Approving, rejecting, retiring and deleting firmware (FR-FW-001)."""

import hashlib
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pgtrigger
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from firmware.choices import DELETABLE, FirmwareStatus
from firmware.exceptions import (
    FirmwareInUseError,
    FirmwareNotFoundError,
    ImageChangedError,
    ImageUnavailableError,
    OwnUploadError,
    SignatureRevokedError,
    WrongStatusError,
)
from firmware.models import Firmware, WrappedKey
from firmware.services import copies
from firmware.services.damage import fill_digests, locked_firmware
from firmware.services.keys import lock_keys
from firmware.services.verification import read_digests
from hotswap.common import audit
from hotswap.common.etags import check_match
from hotswap.common.models import User
from hotswap.common.signatures import (
    Meaning,
    Signature,
    check_signature,
    signed_details,
)


def _notify(firmware: Firmware, verb: str, actor: User | None) -> None:
    """Notify those who asked for it, in the transaction of the action."""
    import_string(settings.FIRMWARE_EVENT_HOOK)(
        firmware=firmware, verb=verb, actor=actor
    )


def _require(firmware: Firmware, status: FirmwareStatus, verb: str) -> None:
    if firmware.status != status:
        raise WrongStatusError(
            f"only {status.value} firmware can be {verb}: this is {firmware.status}"
        )


def _move(
    firmware: Firmware,
    actor: User | None,
    verb: str,
    fields: dict[str, Any],
    more: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write fields of a firmware, and the row of the audit trail.

    Args:
        more: what the row says beside the checksum and the comment.
    """
    for name, value in fields.items():
        setattr(firmware, name, value)
    firmware.updated_at = timezone.now()
    firmware.save(update_fields=[*fields, "updated_at"])
    audit.record(
        actor=actor,
        verb=f"firmware.{verb}",
        object_kind="firmware",
        object_id=firmware.pk,
        details={
            "sha256": firmware.sha256,
            "comment": firmware.status_comment,
            **more,
        },
        changed=firmware,
    )


def approve_firmware(
    *,
    actor: User,
    firmware_id: UUID,
    comment: str = "",
    signature: Signature | None = None,
    expected: frozenset[str] | None = None,
) -> Firmware:
    """Approve a Draft for deployment, binding the approval to its bytes.

    The stored image is read and compared with its checksum first: what is approved
    is what lies there now.

    Raises:
        WrongStatusError: not a Draft.
        OwnUploadError: four eyes are asked for and the approver is the uploader.
        ImageChangedError: the stored image is not the one that was uploaded.
        SignatureRequiredError: it has to be signed.
    """
    check_signature(actor, Meaning.APPROVAL, signature)
    firmware = Firmware.objects.filter(pk=firmware_id).first()
    if firmware is None:
        raise FirmwareNotFoundError("there is no such firmware")
    _check_approval(firmware, actor, expected)
    # Outside the lock: reading 100 MB takes a while, and the bytes cannot change
    # without their tags failing at every later read too.
    try:
        digests = read_digests(firmware)
    except ImageUnavailableError as error:
        raise ImageChangedError(error.detail) from error
    with transaction.atomic():
        firmware = locked_firmware(firmware_id)
        _check_approval(firmware, actor, expected)
        fill_digests(firmware, digests)
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
            signed_details(signature, _signed_record(firmware)),
        )
        _notify(firmware, "approved", actor)
    return firmware


def _signed_record(firmware: Firmware, **more: Any) -> dict[str, Any]:
    """Return what the signature of a decision about a firmware is bound to.

    Args:
        more: what was decided beside it.
    """
    notes = firmware.release_notes.encode()
    return {
        "firmware": str(firmware.pk),
        "model": firmware.model.name,
        "version": firmware.version,
        "size": firmware.size,
        "sha256": firmware.sha256,
        "securityVersion": firmware.security_version,
        "rebootRequired": firmware.reboot_required,
        "releaseNotesSha256": hashlib.sha256(notes).hexdigest(),
        **more,
    }


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
    signature: Signature | None = None,
    expected: frozenset[str] | None = None,
) -> Firmware:
    """Reject a Draft for good.

    Raises:
        WrongStatusError: not a Draft.
        SignatureRequiredError: it has to be signed.
    """
    check_signature(actor, Meaning.REJECTION, signature)
    with transaction.atomic():
        firmware = locked_firmware(firmware_id)
        check_match(firmware, expected)
        _require(firmware, FirmwareStatus.DRAFT, "rejected")
        _move(
            firmware,
            actor,
            "rejected",
            {"status": FirmwareStatus.REJECTED, "status_comment": comment},
            signed_details(signature, _signed_record(firmware, reason=comment)),
        )
        _notify(firmware, "rejected", actor)
    return firmware


def deprecate_firmware(
    *,
    actor: User,
    firmware_id: UUID,
    reason: str,
    cancel_deployments: bool = False,
    signature: Signature | None = None,
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
        SignatureRequiredError: it has to be signed.
    """
    check_signature(actor, Meaning.WITHDRAWAL, signature)
    with transaction.atomic():
        firmware = locked_firmware(firmware_id)
        check_match(firmware, expected)
        record = _signed_record(
            firmware, reason=reason, cancelDeployments=cancel_deployments
        )
        # In the row of the deed, which of a second one is the recall alone.
        signed = signed_details(signature, record)
        if not (cancel_deployments and firmware.status == FirmwareStatus.DEPRECATED):
            _require(firmware, FirmwareStatus.APPROVED, "deprecated")
            _move(
                firmware,
                actor,
                "deprecated",
                {"status": FirmwareStatus.DEPRECATED, "status_comment": reason},
                signed,
            )
            signed = {}
            _notify(firmware, "deprecated", actor)
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
                    **signed,
                },
            )
    return firmware, cancelled


def reinstate_firmware(
    *,
    actor: User,
    firmware_id: UUID,
    reason: str,
    signature: Signature | None = None,
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
        SignatureRequiredError: it has to be signed.
    """
    check_signature(actor, Meaning.REINSTATEMENT, signature)
    with transaction.atomic():
        firmware = locked_firmware(firmware_id)
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
            signed_details(signature, _signed_record(firmware, reason=reason)),
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
        lock_keys()
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
        firmware = locked_firmware(firmware_id)
        check_match(firmware, expected)
        _require(firmware, FirmwareStatus.DRAFT, "changed")
        _move(firmware, actor, "changed", {"release_notes": release_notes})
    return firmware
