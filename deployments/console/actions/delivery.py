"""What Admins do to a delivery: send it again."""

from typing import Any

from deployments.console.actions.listener import ListenerAction
from deployments.models import Delivery
from deployments.services import listeners
from hotswap.common.models import User


class Resend(ListenerAction):
    name = "resend"
    label = "Resend"
    icon = "replay"

    def heading(self, obj: Delivery) -> str:
        return f"Resend {obj.notification.type}"

    def blocked_reason(self, user: User, obj: Delivery) -> str:
        return "" if obj.listener.enabled else "whom it is for is disabled"

    def notes(self, obj: Delivery) -> tuple[str, ...]:
        return (f"{obj.notification.type} is sent to {obj.listener} again.",)

    def execute(self, user: User, obj: Delivery, given: dict[str, Any]) -> str:
        listeners.resend(
            actor=user,
            kind=type(obj.listener),
            listener_id=obj.listener.pk,
            delivery_id=obj.pk,
        )
        return f"{obj.notification.type} is sent again."
