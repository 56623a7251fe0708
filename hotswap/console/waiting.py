"""What the sidebar and the index both ask."""

from django.http import HttpRequest

from devices.choices import EnrolmentStatus
from devices.models import EnrolmentRequest
from hotswap.common.models import User
from hotswap.common.roles import Role


def has_role(request: HttpRequest, role: Role) -> bool:
    return isinstance(request.user, User) and request.user.may(role)


def waiting_enrolments() -> int:
    return EnrolmentRequest.objects.filter(status=EnrolmentStatus.PENDING).count()
