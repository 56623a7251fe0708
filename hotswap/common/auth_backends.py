"""Permissions of the console follow from the role; none is stored per person."""

from typing import Any

from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import AnonymousUser
from django.db.models import Model

from hotswap.common.models import User
from hotswap.common.roles import Role, includes

# Looked at by Admins only.
ADMIN_ONLY_APPS = frozenset(
    {"auth", "django_celery_beat", "common", "account", "mfa", "socialaccount"}
)


class RoleBackend(ModelBackend):
    """Answer Django's permission questions from the role of the person."""

    def has_perm(
        self,
        user_obj: Any,
        perm: str,
        obj: Model | None = None,
    ) -> bool:
        if isinstance(user_obj, AnonymousUser) or not user_obj.is_active:
            return False
        if not isinstance(user_obj, User):
            return False
        role = user_obj.role
        if includes(role, Role.ADMIN):
            return True
        app, _, action = perm.partition(".")
        if app in ADMIN_ONLY_APPS:
            return False
        if action.startswith("view_"):
            return includes(role, Role.VIEWER)
        return includes(role, Role.OPERATOR) and perm in settings.OPERATOR_PERMISSIONS

    def has_module_perms(self, user_obj: Any, app_label: str) -> bool:
        if not isinstance(user_obj, User) or not user_obj.is_active:
            return False
        needed = Role.ADMIN if app_label in ADMIN_ONLY_APPS else Role.VIEWER
        return includes(user_obj.role, needed)
