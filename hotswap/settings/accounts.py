"""How people log in: django-allauth with second factors and single sign-on.

Limits of failures, the password's rules and the looks are HotSwap's own
(`hotswap.common.account_adapters`).
"""

from typing import Any

ACCOUNT_ADAPTER = "hotswap.common.account_adapters.AccountAdapter"
ACCOUNT_FORMS = {
    "login": "hotswap.common.login.LoginForm",
    "reset_password_from_key": "hotswap.common.login.NewPasswordForm",
}
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
# The standard one of Django keeps no address in a table of its own.
ACCOUNT_PASSWORD_RESET_TOKEN_GENERATOR = (
    "django.contrib.auth.tokens.PasswordResetTokenGenerator"  # noqa: S105
)
ACCOUNT_RATE_LIMITS = False
# How long a password or second factor that was given stands for the next deed that asks
# for one (hotswap.common.recent_proof).
ACCOUNT_REAUTHENTICATION_TIMEOUT = 600
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_LOGOUT_REDIRECT_URL = "account_login"

MFA_ADAPTER = "hotswap.common.account_adapters.MFAAdapter"
MFA_FORMS = {
    "authenticate": "hotswap.common.login.AuthenticateForm",
    "reauthenticate": "hotswap.common.login.ReauthenticateForm",
}
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_ALLOW_UNVERIFIED_EMAIL = True
MFA_TOTP_ISSUER = "HotSwap"
MFA_TOTP_TOLERANCE = 1

SOCIALACCOUNT_ADAPTER = "hotswap.common.account_adapters.SocialAccountAdapter"
SOCIALACCOUNT_OPENID_CONNECT_URL_PREFIX = ""
# A link and no form: the policy for forms would stop the way to the provider.
SOCIALACCOUNT_LOGIN_ON_GET = True
SOCIALACCOUNT_EMAIL_VERIFICATION = "none"


def sign_on_providers(
    *, issuer: str, client_id: str, client_secret: str, name: str
) -> dict[str, Any]:
    """Return allauth's setting for one provider of OpenID Connect; none without issuer.

    Args:
        issuer: its address, below which `/.well-known/openid-configuration` lies.
        name: what the login calls it.
    """
    if not issuer:
        return {}
    return {
        "openid_connect": {
            "OAUTH_PKCE_ENABLED": True,
            "APPS": [
                {
                    "provider_id": "oidc",
                    "name": name,
                    "client_id": client_id,
                    "secret": client_secret,
                    "settings": {"server_url": issuer},
                }
            ],
        }
    }
