"""What the pages of the login and of second factors need beside allauth's own."""

from typing import Any

from allauth.socialaccount.adapter import get_adapter as get_social_adapter
from django.contrib import admin
from django.http import HttpRequest

from hotswap.common.models import User
from hotswap.common.second_factors import has_second_factor, is_second_factor_required

# `hotswap.common.account_urls`; providers of logins name their pages as they like.
PAGES = ("/admin/login/", "/admin/account/")


def entrance(request: HttpRequest) -> dict[str, Any]:
    """Return the frame of the console for allauth's pages, nothing for others."""
    if not request.path_info.startswith(PAGES):
        return {}
    context = {**admin.site.each_context(request), "title": "My account"}
    user = request.user
    if isinstance(user, User):
        is_missing = is_second_factor_required(user) and not has_second_factor(user)
        return {**context, "is_factor_missing": is_missing}
    providers = get_social_adapter(request).list_providers(request)
    signs_on = [
        {"name": each.name, "url": each.get_login_url(request)} for each in providers
    ]
    return {**context, "signs_on": signs_on}
