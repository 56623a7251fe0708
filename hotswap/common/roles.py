"""Who may do what. A person's role includes those beneath it."""

from django.db import models


class Role(models.TextChoices):
    ADMIN = "Admin"
    OPERATOR = "Operator"
    VIEWER = "Viewer"
    DEVICE = "Device"
    ANYONE = "Anyone"


PEOPLE = (Role.ADMIN, Role.OPERATOR, Role.VIEWER)

# Each role of a person and all that it includes.
INCLUDES: dict[Role, frozenset[Role]] = {
    Role.ADMIN: frozenset({Role.ADMIN, Role.OPERATOR, Role.VIEWER}),
    Role.OPERATOR: frozenset({Role.OPERATOR, Role.VIEWER}),
    Role.VIEWER: frozenset({Role.VIEWER}),
    Role.DEVICE: frozenset({Role.DEVICE}),
}


def includes(role: Role | None, needed: Role) -> bool:
    """Tell whether a caller of this role may do what needs the other."""
    if needed is Role.ANYONE:
        return True
    return role is not None and needed in INCLUDES[role]
