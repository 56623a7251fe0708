"""What people decide about devices that ask to come in."""

from typing import Any

from devices.choices import OPEN_ENROLMENTS, EnrolmentStatus
from devices.models import Device, EnrolmentRequest
from devices.services import enrolment
from hotswap.common.console.actions.base import Action
from hotswap.common.console.forms import CommentForm
from hotswap.common.models import User


class ApproveEnrolment(Action):
    name = "approve"
    label = "Approve"
    icon = "check"
    tone = "primary"
    form_class = CommentForm

    def applies(self, obj: EnrolmentRequest) -> bool:
        return obj.status == EnrolmentStatus.PENDING

    def blocked_reason(self, user: User, obj: EnrolmentRequest) -> str:
        if Device.objects.filter(device_id=obj.device_id).exists():
            return "a device of this name was registered in the meantime"
        if obj.token.revoked_at is not None:
            return "its token was revoked"
        return ""

    def notes(self, obj: EnrolmentRequest) -> tuple[str, ...]:
        return (
            (
                f"{obj} ({obj.model}, {obj.region}) is registered and gets its key "
                "when it asks the next time."
            ),
        )

    def execute(self, user: User, obj: EnrolmentRequest, given: dict[str, Any]) -> str:
        enrolment.approve_enrolment(
            actor=user, enrolment_id=obj.pk, comment=given["comment"]
        )
        return f"{obj} is approved: it is in as soon as it asks again."


class RejectEnrolment(Action):
    name = "reject"
    label = "Reject"
    icon = "close"
    tone = "danger"

    def applies(self, obj: EnrolmentRequest) -> bool:
        return obj.status in OPEN_ENROLMENTS

    def notes(self, obj: EnrolmentRequest) -> tuple[str, ...]:
        return ("It is told so when it asks again, and gets no key with this token.",)

    def execute(self, user: User, obj: EnrolmentRequest, given: dict[str, Any]) -> str:
        enrolment.reject_enrolment(
            actor=user, enrolment_id=obj.pk, comment=given["reason"]
        )
        return f"{obj} is rejected."
