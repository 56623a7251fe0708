"""Roles in words, and what they keep people from."""

from django.core.exceptions import PermissionDenied

from hotswap.common import people
from hotswap.common.models import User
from hotswap.common.roles import Role


class RoleNeeded(PermissionDenied):
    """A page or an action is for people of a higher role.

    Attributes:
        role: the one that is needed.
    """

    def __init__(self, role: Role) -> None:
        super().__init__(f"needs {role.value}")
        self.role = role


def require_role(user: User, role: Role) -> None:
    """Refuse people without a role.

    Raises:
        RoleNeeded: the person has a lower one, or none.
    """
    if not user.may(role):
        raise RoleNeeded(role)


def role_name(person: User) -> str:
    role = people.held_role(person)
    return role.value if role else "nobody"
