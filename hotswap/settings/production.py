"""Settings of a real installation: no default for a secret, TLS in front."""

from hotswap.settings.base import *  # noqa: F403
from hotswap.settings.base import database_from_url, env

SECRET_KEY = env.str("HOTSWAP_SECRET_KEY")
ALLOWED_HOSTS = env.list("HOTSWAP_ALLOWED_HOSTS")
DATABASES = {"default": database_from_url(env.str("HOTSWAP_DATABASE_URL"))}
FOUR_EYES = True
REQUIRE_MFA = env.str("HOTSWAP_REQUIRE_MFA", default="admins")

# A mail that nobody gets is not delivered, and its delivery says why.
if not env.str("HOTSWAP_EMAIL_URL", default=""):
    EMAIL_BACKEND = "hotswap.common.no_mail.EmailBackend"

SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = True
# Load balancers and Prometheus ask servers by their addresses, inside the network.
SECURE_REDIRECT_EXEMPT = [r"^health$", r"^health/(ready|status)$", r"^metrics$"]
SECURE_HSTS_SECONDS = 31_536_000
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
