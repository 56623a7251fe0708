"""What Admins do to the ring of storage keys."""

from typing import Any

from firmware.choices import KeyStatus
from firmware.models import StorageKey
from firmware.services import key_rotation
from hotswap.common.console.actions.base import Action
from hotswap.common.console.forms import EmptyForm
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.models import User
from hotswap.common.roles import Role


class RotateStorageKeys(Action):
    name = "rotate"
    needs_proof = True
    label = "Rotate"
    icon = "autorenew"
    tone = "primary"
    role = Role.ADMIN
    is_of_list = True
    form_class = EmptyForm

    def heading(self, obj: Any) -> str:
        return "Rotate the storage key"

    def notes(self, obj: Any) -> tuple[str, ...]:
        return (
            (
                "A new key is made. Within a minute the keys of all stored images are "
                "wrapped under it; no stored file changes, and images stay readable."
            ),
            (
                "The former key is retired when nothing is wrapped by it, and may then "
                "be deleted."
            ),
        )

    def execute(self, user: User, obj: Any, given: dict[str, Any]) -> str:
        return (
            f"{key_rotation.rotate_storage_key(actor=user)} wraps what is stored now."
        )


class DeleteStorageKey(Action):
    name = "remove"
    needs_proof = True
    label = "Delete"
    icon = "delete"
    tone = "danger"
    role = Role.ADMIN
    form_class = EmptyForm

    def blocked_reason(self, user: User, obj: StorageKey) -> str:
        return "" if obj.status == KeyStatus.RETIRED else f"it is {obj.status}"

    def notes(self, obj: StorageKey) -> tuple[str, ...]:
        return ("No image is wrapped by it any more. This cannot be undone.",)

    def execute(self, user: User, obj: StorageKey, given: dict[str, Any]) -> str:
        key_rotation.delete_storage_key(actor=user, key_id=obj.key_id)
        return f"{obj} is deleted."

    def next_url(self, admin: ConsoleAdmin, obj: Any) -> str:
        return admin.list_url()
