"""Roles in words."""

from hotswap.common import people
from hotswap.common.models import User


def role_name(person: User) -> str:
    role = people.held_role(person)
    return role.value if role else "nobody"
