"""The ring of signing keys. Everybody may look, Admins act."""

from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.decorators import display

from firmware.console.actions.signing_key import (
    CreateSigningKey,
    RetireSigningKey,
    RevokeSigningKey,
    RotateSigningKeys,
    SignHeldBack,
)
from firmware.console.badges import key_badge
from firmware.models import Firmware, ImageSignature, SigningKey
from firmware.services import key_rotation
from hotswap.common.console.narrow_row import NarrowRow
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.text import age


class SigningKeyAdmin(ConsoleAdmin):
    help_page = "firmware.md#keys"
    api_path = "signing-keys"
    audit_kind = "signing-key"
    is_signed = True
    audit_field = "key_id"
    empty_words = (
        "There is no signing key.",
        "The server makes one when it starts.",
    )
    console_actions = (
        *(CreateSigningKey, RotateSigningKeys, SignHeldBack),
        *(RetireSigningKey, RevokeSigningKey),
    )
    page_template = "console/signing_key.html"
    narrow_row = NarrowRow(first=("state",), titled=("signed", "trusted", "since"))
    list_display = ("key_id", "state", "signed", "trusted", "since")
    ordering = ("-created_at",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[SigningKey]:
        return SigningKey.objects.all()

    def complete(self, rows: list[Any]) -> None:
        for key in rows:
            key.images = _images_signed_by(key)

    @display(description="Status")
    def state(self, key: SigningKey) -> SafeString:
        return key_badge(key)

    @display(description="Images signed")
    def signed(self, key: Any) -> str:
        return f"{key.images:,}"

    @display(description="Trusted until")
    def trusted(self, key: SigningKey) -> SafeString:
        return age(key.not_after)

    @display(description="Created", ordering="created_at")
    def since(self, key: SigningKey) -> SafeString:
        return age(key.created_at)

    def page_context(self, request: HttpRequest, obj: SigningKey) -> dict[str, Any]:
        return {
            "status": key_badge(obj),
            "images": _images_signed_by(obj),
            "made": age(obj.created_at),
            "not_after": age(obj.not_after),
            "is_over": obj.not_after is not None and obj.not_after <= timezone.now(),
            "held_back": key_rotation.images_held_back().count(),
        }


def _images_signed_by(key: SigningKey) -> int:
    later = ImageSignature.objects.filter(firmware=OuterRef("pk"), key=key)
    return Firmware.objects.filter(Q(key=key) | Q(Exists(later))).count()
