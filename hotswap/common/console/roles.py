"""Roles in words."""

from hotswap.common import services
from hotswap.common.models import User


def role_name(person: User) -> str:
    role = services.held_role(person)
    return role.value if role else "nobody"
