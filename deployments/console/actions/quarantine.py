"""What people do to a quarantine: end it."""

from typing import Any

from deployments.models import Quarantine
from deployments.services.quarantine import release_quarantine
from hotswap.common.console.actions.base import Action
from hotswap.common.console.forms import ReasonForm
from hotswap.common.models import User


class Release(Action):
    name = "release"
    label = "Release"
    icon = "lock_open"
    form_class = ReasonForm

    def applies(self, obj: Quarantine) -> bool:
        return obj.quarantined_at is not None

    def notes(self, obj: Quarantine) -> tuple[str, ...]:
        return (
            (
                f"{obj.firmware} has failed on {obj.device} {obj.failures} times, the "
                f"last time by {obj.last_code}. Deployments may offer it again, and "
                "its failures are counted anew."
            ),
        )

    def execute(self, user: User, obj: Quarantine, given: dict[str, Any]) -> str:
        release_quarantine(
            actor=user,
            device_id=obj.device.device_id,
            firmware_id=obj.firmware_id,
            reason=given["reason"],
        )
        return f"{obj.device} may have {obj.firmware} again."
