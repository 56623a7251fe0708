"""The ring of storage keys. Everybody may look, Admins act."""

from typing import Any

from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.decorators import display

from firmware.console.actions.storage_key import DeleteStorageKey, RotateStorageKeys
from firmware.console.badges import key_badge
from firmware.models import StorageKey
from hotswap.common.console.narrow_row import NarrowRow
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.text import age


class StorageKeyAdmin(ConsoleAdmin):
    help_page = "firmware.md#keys"
    audit_kind = "storage-key"
    audit_field = "key_id"
    empty_words = (
        "There is no storage key.",
        "The server makes one when it starts.",
    )
    console_actions = (RotateStorageKeys, DeleteStorageKey)
    page_template = "console/storage_key.html"
    narrow_row = NarrowRow(first=("state",), titled=("wrapped", "since"))
    list_display = ("key_id", "state", "wrapped", "since")
    ordering = ("-created_at",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[StorageKey]:
        return StorageKey.objects.annotate(images=Count("wrappedkey"))

    @display(description="Status")
    def state(self, key: StorageKey) -> SafeString:
        return key_badge(key)

    @display(description="Images wrapped")
    def wrapped(self, key: Any) -> str:
        return f"{key.images:,}"

    @display(description="Created", ordering="created_at")
    def since(self, key: StorageKey) -> SafeString:
        return age(key.created_at)

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {
            "status": key_badge(obj),
            "images": obj.images,
            "made": age(obj.created_at),
        }
