"""Deny by default: a view names the role that each of its methods needs."""

from typing import Any

from rest_framework.exceptions import MethodNotAllowed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from hotswap.common.account_gate import check_account, used_second_factor
from hotswap.common.models import PersonalToken, User
from hotswap.common.roles import Role, includes


class DenyAll(BasePermission):
    """What a view without a role gets."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return False


class RolePermission(BasePermission):
    """Compare the caller's role with `view.roles[method]`.

    A person whose account is held up (`hotswap.common.account_gate`) is refused by
    every view but those that say `is_open_to_held_accounts`.
    """

    message = "your role may not do this"

    def has_permission(self, request: Request, view: Any) -> bool:
        is_open = getattr(view, "is_open_to_held_accounts", False)
        if isinstance(request.user, User) and not is_open:
            check_account(
                request.user,
                lambda: used_second_factor(request),
                is_program=isinstance(request.auth, PersonalToken),
            )
        caller: Role | None = getattr(request.user, "role", None)
        method = "GET" if request.method == "HEAD" else request.method
        needed = view.roles.get(method)
        if needed is None:
            if caller is None and request.authenticators:
                return False
            raise MethodNotAllowed(str(request.method))
        wanted = needed if isinstance(needed, tuple) else (needed,)
        return any(includes(caller, role) for role in wanted)
