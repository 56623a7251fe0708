"""What Admins do to a delivery: send it again."""

from typing import Any

from deployments.console.actions.receiver import ReceiverAction
from deployments.models import Delivery
from deployments.services import receivers
from hotswap.common.models import User


class Resend(ReceiverAction):
    name = "resend"
    label = "Resend"
    icon = "replay"

    def heading(self, obj: Delivery) -> str:
        return f"Resend {obj.notification.type}"

    def blocked_reason(self, user: User, obj: Delivery) -> str:
        return "" if obj.receiver.enabled else "whom it is for is disabled"

    def notes(self, obj: Delivery) -> tuple[str, ...]:
        return (f"{obj.notification.type} is sent to {obj.receiver} again.",)

    def execute(self, user: User, obj: Delivery, given: dict[str, Any]) -> str:
        receivers.resend(
            actor=user,
            kind=type(obj.receiver),
            receiver_id=obj.receiver.pk,
            delivery_id=obj.pk,
        )
        return f"{obj.notification.type} is sent again."
