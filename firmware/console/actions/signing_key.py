"""What Admins do to the ring of signing keys."""

from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.http import HttpRequest

from firmware.choices import KeyStatus
from firmware.models import SigningKey
from firmware.services import key_rotation
from hotswap.common.console.actions.base import Action
from hotswap.common.console.forms import ConsoleForm, EmptyForm, ReasonForm
from hotswap.common.models import User
from hotswap.common.pluralize import counted
from hotswap.common.roles import Role
from hotswap.common.signatures import FIELD as SIGNATURE
from hotswap.common.signatures import Meaning

# Reading images takes a request's time; what is left waits for the next press.
SIGNING_TIME = timedelta(seconds=15)


def _signed_again(done: key_rotation.SignedAgain) -> str:
    left = key_rotation.images_held_back().count()
    message = (
        counted(done.signed, "image was", "images were") + " compared and signed again."
    )
    if done.refused:
        message += f" {len(done.refused)} are damaged in the store and stay held back."
    if left > len(done.refused):
        message += f" {left - len(done.refused)} still wait: press again."
    return message


class CreateSigningKey(Action):
    name = "create"
    needs_proof = True
    label = "Publish next key"
    icon = "key"
    role = Role.ADMIN
    is_of_list = True
    form_class = EmptyForm

    def blocked_reason(self, user: User, obj: Any) -> str:
        known = SigningKey.objects.filter(status=KeyStatus.NEXT).first()
        return f"{known} is published as the next key already" if known else ""

    def notes(self, obj: Any) -> tuple[str, ...]:
        return (
            (
                "A key is made and published, so that devices can pin it. It signs "
                "nothing before the ring is rotated."
            ),
        )

    def execute(self, user: User, obj: Any, given: dict[str, Any]) -> str:
        key = key_rotation.create_signing_key(actor=user)
        return f"{key} is published: pin it on the devices, then rotate."


class OverlapForm(ConsoleForm):
    overlap = forms.IntegerField(
        label="Overlap in days",
        min_value=0,
        max_value=3650,
        help_text="How long the former key stays trusted. 0 retires it at once.",
    )


class RotateSigningKeys(Action):
    name = "rotate"
    needs_proof = True
    label = "Rotate"
    icon = "autorenew"
    tone = "primary"
    role = Role.ADMIN
    is_of_list = True
    form_class = OverlapForm

    def make_form(self, request: HttpRequest, obj: Any) -> ConsoleForm:
        return OverlapForm(
            request.POST if request.method == "POST" else None,
            initial={"overlap": settings.SIGNING_KEY_OVERLAP.days},
        )

    def heading(self, obj: Any) -> str:
        return "Rotate the signing key"

    def notes(self, obj: Any) -> tuple[str, ...]:
        following = SigningKey.objects.filter(status=KeyStatus.NEXT).first()
        comes = (
            f"The published key {following} signs from now on."
            if following
            else "A new key is made and signs from now on. No device has pinned it: "
            "where devices pin keys ahead, publish the next key first."
        )
        return (
            comes,
            (
                "Until the overlap is over, devices that say that they have pinned the "
                "former key alone get orders that it has signed. Images are signed "
                "again within a minute."
            ),
        )

    def execute(self, user: User, obj: Any, given: dict[str, Any]) -> str:
        key = key_rotation.rotate_signing_key(
            actor=user, overlap=timedelta(days=given["overlap"])
        )
        return f"{key} signs now."


class SignHeldBack(Action):
    name = "sign-again"
    label = "Sign held images again"
    icon = "draw"
    role = Role.ADMIN
    is_of_list = True
    form_class = EmptyForm

    def blocked_reason(self, user: User, obj: Any) -> str:
        return (
            "" if key_rotation.images_held_back().exists() else "no image is held back"
        )

    def notes(self, obj: Any) -> tuple[str, ...]:
        return (
            (
                counted(
                    key_rotation.images_held_back().count(), "image has", "images have"
                )
                + " no signature that can be trusted: no device is offered any of that."
            ),
            (
                "Each stored image is read and compared with the checksum of its "
                "upload, to which its approval is bound, and then signed under the "
                "active key."
            ),
        )

    def execute(self, user: User, obj: Any, given: dict[str, Any]) -> str:
        return _signed_again(
            key_rotation.sign_held_back(actor=user, within=SIGNING_TIME)
        )


class RetireSigningKey(Action):
    name = "retire"
    needs_proof = True
    label = "Retire"
    icon = "inventory_2"
    tone = "danger"
    role = Role.ADMIN
    form_class = EmptyForm

    def applies(self, obj: SigningKey) -> bool:
        return obj.status not in (KeyStatus.RETIRED, KeyStatus.REVOKED)

    def blocked_reason(self, user: User, obj: SigningKey) -> str:
        is_active = obj.status == KeyStatus.ACTIVE
        return "it signs: rotate the ring first" if is_active else ""

    def notes(self, obj: SigningKey) -> tuple[str, ...]:
        return (
            (
                "It leaves the published keys now and its private half is erased. What "
                "it has signed stays true."
            ),
            "Devices that have pinned it alone accept no update any more.",
        )

    def execute(self, user: User, obj: SigningKey, given: dict[str, Any]) -> str:
        key_rotation.retire_signing_key(actor=user, key_id=obj.key_id)
        return f"{obj} is retired."


class RevokeForm(ReasonForm):
    sign_again = forms.BooleanField(
        label="Compare and sign again what only this key has signed",
        required=False,
    )
    key_id = forms.CharField(label="Type the id of the key to confirm")

    field_order = ("key_id", "reason", "sign_again")


class RevokeSigningKey(Action):
    name = "revoke"
    needs_proof = True
    label = "Revoke"
    icon = "block"
    tone = "danger"
    role = Role.ADMIN
    form_class = RevokeForm
    meaning = Meaning.REVOCATION

    def applies(self, obj: SigningKey) -> bool:
        return obj.status != KeyStatus.REVOKED

    def blocked_reason(self, user: User, obj: SigningKey) -> str:
        if obj.status != KeyStatus.ACTIVE:
            return ""
        has_next = SigningKey.objects.filter(status=KeyStatus.NEXT).exists()
        return "" if has_next else "it signs and has no successor: publish the next key"

    def notes(self, obj: SigningKey) -> tuple[str, ...]:
        count = key_rotation.held_back_if_revoked(key_id=obj.key_id)
        fate = (
            counted(count, "image", "images")
            + " that no other key has signed will be offered to no device until "
            "signed again."
            if count
            else "No image is held back: others have signed what this key has signed."
        )
        return (
            (
                "This cannot be undone. The key leaves the published keys at once; "
                "open orders that it has signed come again under the active key."
            ),
            fate,
        )

    def execute(self, user: User, obj: SigningKey, given: dict[str, Any]) -> str:
        done = key_rotation.revoke_signing_key(
            actor=user,
            key_id=obj.key_id,
            reason=given["reason"],
            signature=given.get(SIGNATURE),
        )
        message = f"{obj} is revoked; {done.active} signs."
        if given["sign_again"]:
            again = key_rotation.sign_held_back(actor=user, within=SIGNING_TIME)
            return f"{message} {_signed_again(again)}"
        return message

    def make_form(self, request: HttpRequest, obj: Any) -> ConsoleForm:
        form = super().make_form(request, obj)
        form.fields["key_id"].validators.append(_must_be(obj.key_id))
        return form


def _must_be(key_id: str) -> Any:
    def check(given: str) -> None:
        if given.strip() != key_id:
            raise forms.ValidationError(f"Type {key_id}.")

    return check
