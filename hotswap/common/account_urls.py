"""The addresses of the login and of one's own second factors, below `/admin/`.

Of django-allauth's pages those that HotSwap has: nobody signs up, and addresses are
changed by Admins.
"""

from allauth.account import views as account
from allauth.socialaccount import views as social
from django.urls import URLPattern, URLResolver, include, path, re_path

urlpatterns: list[URLPattern | URLResolver] = [
    path("login/", account.login, name="account_login"),
    path("account/logout/", account.logout, name="account_logout"),
    path("account/inactive/", account.account_inactive, name="account_inactive"),
    path("account/confirm/", account.reauthenticate, name="account_reauthenticate"),
    path(
        "account/password/done/",
        account.password_reset_from_key_done,
        name="account_reset_password_from_key_done",
    ),
    re_path(
        r"^account/password/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$",
        account.password_reset_from_key,
        name="account_reset_password_from_key",
    ),
    path("account/factors/", include("allauth.mfa.urls")),
    path(
        "account/sso/cancelled/",
        social.login_cancelled,
        name="socialaccount_login_cancelled",
    ),
    path("account/sso/error/", social.login_error, name="socialaccount_login_error"),
    path(
        "account/sso/",
        include("allauth.socialaccount.providers.openid_connect.urls"),
    ),
]
