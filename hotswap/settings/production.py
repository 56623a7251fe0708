"""Settings of a real installation: no default for a secret, TLS in front.

What anybody could guess, or that lets anybody in, ends the start of every process.
"""

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from redis.connection import parse_url

from hotswap.common.secret_strength import (
    SHORTEST_PASSWORD,
    weakness_of,
    weakness_of_login,
)
from hotswap.settings.base import *  # noqa: F403
from hotswap.settings.base import (
    DATABASE_OWNER,
    DOWNLOAD_SECRET,
    METRICS_TOKEN,
    PROXY_SECRET,
    REDIS_URL,
    S3_BUCKETS,
    S3_SECRET_KEY,
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
    ("S3_SECRET_KEY", S3_SECRET_KEY, SHORTEST_PASSWORD),
    *(
        (f"S3_BUCKETS, secretKey of {name!r},", each["secretKey"], SHORTEST_PASSWORD)
        for name, each in S3_BUCKETS.items()
        # What else may be wrong with them is said by `firmware.storage_locations`.
        if isinstance(each, dict) and isinstance(each.get("secretKey"), str)
    ),
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


def _refuse_weak_login(name: str, weakness: str) -> None:
    if weakness:
        raise ImproperlyConfigured(f"HOTSWAP_{name} {weakness}: set a long random one")


def _weakness_of_database(database: dict[str, Any]) -> str:
    options = database["OPTIONS"]
    hosts = str(database["HOST"] or options.get("hostaddr", ""))
    return weakness_of_login(
        str(database["PASSWORD"] or ""),
        hosts.split(","),
        has_certificate=bool({"sslcert", "passfile", "service"} & options.keys()),
    )


def _weakness_of_redis(url: str) -> str:
    parts = parse_url(url)
    return weakness_of_login(
        parts.get("password") or "",
        [parts.get("host", "")],
        has_certificate="ssl_certfile" in parts,
    )


DATABASES = {"default": database_from_url(env.str("HOTSWAP_DATABASE_URL"))}
_refuse_weak_login("DATABASE_URL", _weakness_of_database(DATABASES["default"]))
if DATABASE_OWNER:
    _refuse_weak_login("DATABASE_OWNER_URL", _weakness_of_database(DATABASE_OWNER))
try:
    _refuse_weak_login("REDIS_URL", _weakness_of_redis(REDIS_URL))
except ValueError as error:
    raise ImproperlyConfigured(f"HOTSWAP_REDIS_URL: {error}") from None

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
