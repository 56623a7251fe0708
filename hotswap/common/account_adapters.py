"""How django-allauth fits in: nobody signs up, limits and secrets are our own."""

import base64
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter, get_adapter
from allauth.account.utils import get_login_redirect_url
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from django.conf import settings
from django.contrib.auth import authenticate
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render, resolve_url
from rest_framework.exceptions import Throttled

from hotswap.common.api.proxy import client_address
from hotswap.common.api.throttling import guard_password
from hotswap.common.console.forms import throttled_words
from hotswap.common.keyring import seal, unseal
from hotswap.common.known_devices import remember_device
from hotswap.common.models import User
from hotswap.common.people import (
    LastAdminError,
    admit_from_provider,
    give_role_of_provider,
)
from hotswap.common.recent_proof import has_proved_lately
from hotswap.common.single_sign_on import role_of

PURPOSE = "second-factor"


class AccountAdapter(DefaultAccountAdapter):
    """Logins by name and password, under the limits of the API."""

    error_messages = {
        **DefaultAccountAdapter.error_messages,
        "username_password_mismatch": "The name or the password is wrong.",
        "incorrect_password": "The password is wrong.",
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def authenticate(self, request: HttpRequest, **credentials: Any) -> User | None:
        name = credentials.get("username") or ""

        def attempt() -> User | None:
            user = authenticate(
                request, username=name, password=credentials.get("password")
            )
            return user if isinstance(user, User) and user.role else None

        try:
            return guard_password(request, name, attempt)
        except Throttled as error:
            raise ValidationError(throttled_words(error), code="throttled") from None

    def post_login(
        self,
        request: HttpRequest,
        user: AbstractBaseUser,
        *,
        redirect_url: str | None,
        **given: Any,
    ) -> HttpResponse:
        """Lead people to the page that their role begins with.

        Whoever was on the way to another page than home gets there.
        """
        wanted = get_login_redirect_url(request, redirect_url, signup=given["signup"])
        role = user.role if isinstance(user, User) else None
        begins = settings.FIRST_PAGES.get(role.value) if role else None
        if begins and wanted == resolve_url(settings.LOGIN_REDIRECT_URL):
            wanted = resolve_url(begins)
        response: HttpResponse = super().post_login(
            request, user, redirect_url=wanted, **given
        )
        remember_device(response, user.get_username())
        return response

    def get_client_ip(self, request: HttpRequest) -> str:
        return client_address(request) or ""

    def is_reauthentication_required(self, *, app: str, **kwargs: Any) -> bool:
        """Ask again for what the person has; one of a single sign-on has neither.

        Allauth itself would ask at once whoever has just logged in.
        """
        user = self.request.user
        if not self.get_reauthentication_methods(user) or (
            isinstance(user, User) and has_proved_lately(self.request, user)
        ):
            return False
        required: bool = super().is_reauthentication_required(app=app, **kwargs)
        return required


class MFAAdapter(DefaultMFAAdapter):
    """Secrets of second factors are sealed with the master key."""

    def encrypt(self, text: str) -> str:
        return base64.b64encode(seal(text.encode(), purpose=PURPOSE)).decode()

    def decrypt(self, encrypted_text: str) -> str:
        return unseal(base64.b64decode(encrypted_text), purpose=PURPOSE).decode()


class SocialAccountAdapter(DefaultSocialAccountAdapter):
    """Single sign-on: the provider's claims decide who comes in, and in which role.

    A person of the provider is one of its own here, never one who is there already by
    name or address: whoever may choose these at the provider would take an account.
    """

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        return True

    def pre_social_login(self, request: HttpRequest, sociallogin: Any) -> None:
        """Refuse whoever has no role, and give others the one they have now."""
        role = role_of(
            sociallogin.account.extra_data,
            claim=settings.OIDC_ROLE_CLAIM,
            roles=settings.OIDC_ROLES,
        )
        if role is None:
            raise ImmediateHttpResponse(
                render(request, "socialaccount/no_role.html", status=403)
            )
        # Else an address that somebody has would send newcomers to a form.
        sociallogin.email_addresses = []
        sociallogin.role = role
        if sociallogin.is_existing:
            try:
                give_role_of_provider(user=sociallogin.user, role=role)
            except LastAdminError:
                raise ImmediateHttpResponse(
                    render(request, "socialaccount/last_admin.html", status=403)
                ) from None

    def save_user(
        self, request: HttpRequest, sociallogin: Any, form: Any = None
    ) -> Any:
        user = sociallogin.user
        if not user.username:
            # Allauth has emptied what somebody has already, or what is no name here.
            said = sociallogin.account.get_provider().extract_common_fields(
                sociallogin.account.extra_data
            )
            user.username = get_adapter().generate_unique_username(
                [said.get("username"), said.get("email"), "user"]
            )
        with transaction.atomic():
            user = super().save_user(request, sociallogin, form)
            admit_from_provider(user=user, role=sociallogin.role)
        return user
