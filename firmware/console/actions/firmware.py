"""What people do to a firmware: decide on it, retire it, check it."""

from typing import Any

from django import forms
from django.conf import settings

from firmware.choices import DELETABLE, FirmwareStatus
from firmware.console.sentences import (
    compared_with_fleet,
    fleet_of_model,
    use_in_words,
)
from firmware.models import Firmware
from firmware.selectors import common_images, firmware_use, signature_holds
from firmware.services.approval import (
    approve_firmware,
    delete_firmware,
    deprecate_firmware,
    reinstate_firmware,
    reject_firmware,
)
from firmware.services.verification import verify_firmware
from hotswap.common.console.actions.base import Action
from hotswap.common.console.forms import CommentForm, EmptyForm, ReasonForm
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.models import User
from hotswap.common.pluralize import counted
from hotswap.common.roles import Role
from hotswap.common.signatures import FIELD as SIGNATURE
from hotswap.common.signatures import Meaning


class ApproveFirmware(Action):
    name = "approve"
    label = "Approve"
    icon = "check"
    tone = "primary"
    role = Role.ADMIN
    form_class = CommentForm
    meaning = Meaning.APPROVAL

    def applies(self, obj: Firmware) -> bool:
        return obj.status == FirmwareStatus.DRAFT

    def blocked_reason(self, user: User, obj: Firmware) -> str:
        if obj.removed_at is not None:
            return "the stored image was removed: upload it again"
        if obj.damaged_at is not None:
            return "the stored image is damaged"
        if settings.FOUR_EYES and obj.uploaded_by_id == user.pk:
            return "you uploaded it: somebody else approves"
        return ""

    def notes(self, obj: Firmware) -> tuple[str, ...]:
        common = common_images([obj.model_id]).get(obj.model_id)
        newest = (
            Firmware.objects.filter(model=obj.model_id, status=FirmwareStatus.APPROVED)
            .order_by("-precedence")
            .first()
        )
        uploader = obj.uploaded_by.username if obj.uploaded_by else "nobody known"
        signed = (
            f"Its signature by the key {obj.best_signature()[0].key_id} is valid."
            if signature_holds(obj)
            else "Its signature is NOT valid: reject it, and look for the cause."
        )
        notes = [
            f"Uploaded by {uploader}.",
            *(
                [f"Note for the approver: {obj.request_comment}"]
                if obj.request_comment
                else []
            ),
            f"Compared: {'; '.join(compared_with_fleet(obj, common, newest))}.",
            f"Release notes: {obj.release_notes or 'none'}",
            signed,
            fleet_of_model(obj, firmware_use(obj)),
            (
                "Approving lets deployments install it; nothing is installed by this. "
                "The stored image is read and compared first, and the approval is "
                f"bound to SHA-256 {obj.sha256}."
            ),
        ]
        return tuple(notes)

    def execute(self, user: User, obj: Firmware, given: dict[str, Any]) -> str:
        approve_firmware(
            actor=user,
            firmware_id=obj.pk,
            comment=given["comment"],
            signature=given.get(SIGNATURE),
        )
        return f"{obj} is approved: it can be deployed."


class RejectFirmware(Action):
    name = "reject"
    label = "Reject"
    icon = "close"
    tone = "danger"
    role = Role.ADMIN
    meaning = Meaning.REJECTION

    def applies(self, obj: Firmware) -> bool:
        return obj.status == FirmwareStatus.DRAFT

    def notes(self, obj: Firmware) -> tuple[str, ...]:
        return (
            fleet_of_model(obj, firmware_use(obj)),
            "Rejecting is final: a corrected image needs a new version.",
        )

    def execute(self, user: User, obj: Firmware, given: dict[str, Any]) -> str:
        reject_firmware(
            actor=user,
            firmware_id=obj.pk,
            comment=given["reason"],
            signature=given.get(SIGNATURE),
        )
        return f"{obj} is rejected."


class DeprecateForm(ReasonForm):
    cancelDeployments = forms.BooleanField(
        label="Recall it: cancel the deployments of it that wait or run",
        required=False,
        help_text="What has not begun to install stops, what has finishes.",
    )


class DeprecateFirmware(Action):
    name = "deprecate"
    label = "Deprecate"
    icon = "inventory_2"
    tone = "danger"
    role = Role.ADMIN
    form_class = DeprecateForm
    meaning = Meaning.WITHDRAWAL

    def applies(self, obj: Firmware) -> bool:
        if obj.status == FirmwareStatus.DEPRECATED:
            return bool(firmware_use(obj).cancellable)
        return obj.status == FirmwareStatus.APPROVED

    def notes(self, obj: Firmware) -> tuple[str, ...]:
        return (
            *use_in_words(firmware_use(obj)),
            (
                "No new deployment can use it, and scheduled ones fail at their time. "
                "Devices that run it keep it."
            ),
        )

    def execute(self, user: User, obj: Firmware, given: dict[str, Any]) -> str:
        _, cancelled = deprecate_firmware(
            actor=user,
            firmware_id=obj.pk,
            reason=given["reason"],
            cancel_deployments=given["cancelDeployments"],
            signature=given.get(SIGNATURE),
        )
        if cancelled:
            return (
                f"{obj} is recalled: "
                f"{counted(len(cancelled), 'deployment is', 'deployments are')}"
                " cancelled."
            )
        return f"{obj} is deprecated."


class ReinstateFirmware(Action):
    name = "reinstate"
    label = "Reinstate"
    icon = "settings_backup_restore"
    role = Role.ADMIN
    meaning = Meaning.REINSTATEMENT

    def applies(self, obj: Firmware) -> bool:
        return obj.status == FirmwareStatus.DEPRECATED

    def blocked_reason(self, user: User, obj: Firmware) -> str:
        if obj.removed_at is not None:
            return "the stored image was removed: upload it again"
        if obj.damaged_at is not None:
            return "the stored image is damaged"
        if obj.signature_revoked_at is not None:
            return "its signing key was revoked: sign the image again"
        if settings.FOUR_EYES and obj.uploaded_by_id == user.pk:
            return "you uploaded it: somebody else reinstates it"
        return ""

    def notes(self, obj: Firmware) -> tuple[str, ...]:
        return (
            *use_in_words(firmware_use(obj)),
            (
                "New deployments can use it again, under the approval of before. "
                "Deployments that were cancelled stay cancelled."
            ),
        )

    def execute(self, user: User, obj: Firmware, given: dict[str, Any]) -> str:
        reinstate_firmware(
            actor=user,
            firmware_id=obj.pk,
            reason=given["reason"],
            signature=given.get(SIGNATURE),
        )
        return f"{obj} is approved again: it can be deployed."


class DeleteFirmware(Action):
    name = "delete"
    label = "Delete"
    icon = "delete"
    tone = "danger"
    role = Role.ADMIN
    form_class = EmptyForm

    def applies(self, obj: Firmware) -> bool:
        return obj.status in DELETABLE

    def notes(self, obj: Firmware) -> tuple[str, ...]:
        return (
            fleet_of_model(obj, firmware_use(obj)),
            (
                "The image is removed with all that is known of it but the audit "
                "trail, and the version is free again."
            ),
        )

    def execute(self, user: User, obj: Firmware, given: dict[str, Any]) -> str:
        delete_firmware(actor=user, firmware_id=obj.pk)
        return f"{obj} is deleted."

    def next_url(self, admin: ConsoleAdmin, obj: Any) -> str:
        return admin.list_url()


class CheckFirmware(Action):
    name = "verify"
    label = "Verify image"
    icon = "fact_check"
    role = Role.ADMIN
    form_class = EmptyForm

    def notes(self, obj: Firmware) -> tuple[str, ...]:
        return (
            (
                "The stored image is read as a whole and compared with its SHA-256. "
                "Damage is noted; damage that was repaired since is cleared."
            ),
        )

    def execute(self, user: User, obj: Firmware, given: dict[str, Any]) -> str:
        checked = verify_firmware(actor=user, firmware_id=obj.pk)
        if checked.damaged_at is None:
            return f"The stored image of {obj} is whole."
        return f"The stored image of {obj} is damaged: {checked.damage}"
