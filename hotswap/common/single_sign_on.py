"""From the claims of an OpenID Connect provider to a role; pure."""

from collections.abc import Mapping
from typing import Any

from hotswap.common.roles import PEOPLE, Role


def role_of(
    data: Mapping[str, Any], *, claim: str, roles: Mapping[str, str]
) -> Role | None:
    """Return the highest role that the claims of a person give, or None.

    Args:
        data: what the provider said: `id_token` and, where it was asked, `userinfo`.
        claim: the name of the claim; `a.b` is `b` within the object `a`. Its value is
            a text or a list of texts.
        roles: the role of each value, by its name.
    """
    values: set[str] = set()
    for source in ("id_token", "userinfo"):
        values |= _values(data.get(source), claim.split("."))
    held = {roles[value] for value in values if value in roles}
    return next((role for role in PEOPLE if role.value in held), None)


def _values(content: Any, path: list[str]) -> set[str]:
    for name in path:
        if not isinstance(content, Mapping):
            return set()
        content = content.get(name)
    listed = content if isinstance(content, list) else [content]
    return {each for each in listed if isinstance(each, str)}
