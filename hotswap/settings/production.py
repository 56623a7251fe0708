"""Settings of a real installation: no default for a secret, TLS in front.

What anybody could guess, or that lets anybody in, ends the start of every process.
"""

from django.core.exceptions import ImproperlyConfigured

from hotswap.common.secret_strength import weakness_of
from hotswap.settings.base import *  # noqa: F403
from hotswap.settings.base import (
    DOWNLOAD_SECRET,
    METRICS_TOKEN,
    PROXY_SECRET,
    SECRET_KEY_FALLBACKS,
    database_from_url,
    env,
)

SECRET_KEY = env.str("HOTSWAP_SECRET_KEY")
ALLOWED_HOSTS = env.list("HOTSWAP_ALLOWED_HOSTS")
for _name, _secret, _shortest in (
    ("SECRET_KEY", SECRET_KEY, 50),
    *(("SECRET_KEY_FALLBACKS", each, 50) for each in SECRET_KEY_FALLBACKS),
    ("PROXY_SECRET", PROXY_SECRET, 16),
    ("METRICS_TOKEN", METRICS_TOKEN, 16),
    ("DOWNLOAD_SECRET", DOWNLOAD_SECRET, 32),
):
    if (_secret or _name == "SECRET_KEY") and (
        _weakness := weakness_of(_secret, shortest=_shortest)
    ):
        raise ImproperlyConfigured(
            f"HOTSWAP_{_name} {_weakness}: deploy/make-secrets.sh makes better ones"
        )
if not ALLOWED_HOSTS or any(host.strip() in ("*", ".") for host in ALLOWED_HOSTS):
    raise ImproperlyConfigured(
        "HOTSWAP_ALLOWED_HOSTS must name the names of this server, and not *"
    )

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
