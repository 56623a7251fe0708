"""Settings shared by every environment.

Rules:
- Each environment variable is read once, here or in the environment's own module.
- Numbers of the specification have a name; nothing else in the code repeats them.
- The database is the only truth: Redis may vanish at any time
  (docs/decisions/0003-the-database-is-the-queue.md).
"""

import json
import logging
import socket
import sys
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured
from psycopg.conninfo import conninfo_to_dict

from hotswap.common.postgresql.network import NOTICED
from hotswap.common.secret_files import EnvironmentWithFiles
from hotswap.paths import DEFAULT_DATA_DIR, PROJECT_DIR
from hotswap.settings.accounts import *  # noqa: F403
from hotswap.settings.accounts import sign_on_providers
from hotswap.settings.console import CONTENT_SECURITY_POLICY, UNFOLD  # noqa: F401


class Env(environ.Env):
    """Reads each variable `NAME`, or the file that `NAME_FILE` names."""

    ENVIRON = EnvironmentWithFiles()


env = Env()

BASE_DIR = PROJECT_DIR
DATA_DIR = Path(env.str("HOTSWAP_DATA_DIR", default=str(DEFAULT_DATA_DIR))).resolve()
KEYS_DIR = Path(env.str("HOTSWAP_KEYS_DIR", default=str(DATA_DIR / "keys"))).resolve()

# Names this host among those of the installation (hotswap.monitoring.hosts).
HOST_NAME = env.str("HOTSWAP_HOST_NAME", default="") or socket.gethostname()

DEBUG = False
# What former keys have signed (sessions, links to new passwords) still counts.
SECRET_KEY_FALLBACKS: list[str] = env.list("HOTSWAP_SECRET_KEY_FALLBACKS", default=[])
ALLOWED_HOSTS: list[str] = env.list("HOTSWAP_ALLOWED_HOSTS", default=[])
CSRF_TRUSTED_ORIGINS: list[str] = env.list("HOTSWAP_TRUSTED_ORIGINS", default=[])
ROOT_URLCONF = "hotswap.urls"
WSGI_APPLICATION = "hotswap.wsgi.application"
AUTH_USER_MODEL = "common.User"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    # Its pages are loaded with the addresses (`hotswap.urls`): worker, beat and
    # commands start without them, in two thirds of the time.
    "django.contrib.admin.apps.SimpleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "pgtrigger",
    "rest_framework",
    "django_filters",
    "drf_standardized_errors",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_celery_beat",
    "django_prometheus",
    "django_structlog",
    "storages",
    "hotswap.common",
    "firmware",
    "devices",
    "health",
    "deployments",
]

MIDDLEWARE = [
    "hotswap.monitoring.requests.RequestMetricsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "hotswap.console.security.ContentSecurityMiddleware",
    "deployments.protocols.native.fast_path.FastPathMiddleware",
    "hotswap.common.streams.StreamMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "hotswap.console.compression.PageCompressionMiddleware",
    "hotswap.common.api.middleware.ProblemMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "hotswap.operations.ProbeMiddleware",
    "hotswap.common.api.log_middleware.RequestLogMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "hotswap.common.sessions.SessionActivityMiddleware",
    "hotswap.common.form_bodies.FormBodyMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "hotswap.common.account_gate.AccountGateMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

APPEND_SLASH = False
CSRF_FAILURE_VIEW = "hotswap.common.form_bodies.answer_csrf_failure"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "hotswap.common.console.entrance.entrance",
            ],
        },
    },
]

AUTHENTICATION_BACKENDS = ["hotswap.common.auth_backends.RoleBackend"]
# What an Operator may do in the console beyond looking; an Admin may do everything.
OPERATOR_PERMISSIONS = frozenset(
    {
        "devices.add_device",
        "devices.change_device",
        "devices.add_devicegroup",
        "devices.change_devicegroup",
        "devices.delete_devicegroup",
        "deployments.add_deployment",
        "deployments.change_deployment",
    }
)
PASSWORD_MIN_LENGTH = 12
# How old a password may become, and how many former ones are not taken again.
PASSWORD_HISTORY = env.int("HOTSWAP_PASSWORD_HISTORY", default=0)
if not 0 <= PASSWORD_HISTORY <= 24:
    raise ImproperlyConfigured("HOTSWAP_PASSWORD_HISTORY must be 0 to 24")
_PASSWORD_DAYS = env.int("HOTSWAP_PASSWORD_DAYS", default=0)
if not 0 <= _PASSWORD_DAYS <= 3650:
    raise ImproperlyConfigured("HOTSWAP_PASSWORD_DAYS must be 0 (never) to 3650")
PASSWORD_MAX_AGE = timedelta(days=_PASSWORD_DAYS) if _PASSWORD_DAYS else None
_DJANGOS = "django.contrib.auth.password_validation"
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": f"{module}.{name}",
        "OPTIONS": options,
    }
    for module, name, options in (
        (_DJANGOS, "UserAttributeSimilarityValidator", {}),
        (_DJANGOS, "MinimumLengthValidator", {"min_length": PASSWORD_MIN_LENGTH}),
        (_DJANGOS, "CommonPasswordValidator", {}),
        (_DJANGOS, "NumericPasswordValidator", {}),
        ("hotswap.common.password_strength", "DisguisedPasswordValidator", {}),
    )
]
PASSWORD_HASHERS = [
    "hotswap.common.hashers.PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "admin:index"
# By role, where a login leads that was not on its way to a page; others end at home.
FIRST_PAGES = {"Operator": "admin:deployments_deployment_changelist"}

STATIC_URL = "/static/"
# Beside the source and not with the data: what is collected belongs to the source.
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "hotswap.common.static_files.HashedStaticFiles"},
}
WHITENOISE_KEEP_ONLY_HASHED_FILES = True
WHITENOISE_USE_FINDERS = True


# A pooler in transaction mode stands between HotSwap and the database.
DATABASE_IS_POOLED = env.bool("HOTSWAP_DATABASE_POOLED", default=False)


def database_from_url(url: str) -> dict[str, Any]:
    """Translate a libpq address into Django's database settings.

    Args:
        url: `postgresql://user:password@host:port/name?option=value`, or any other
            form that libpq reads; `host` may be the folder of a Unix socket.
    """
    parts = conninfo_to_dict(url)
    options: dict[str, Any] = NOTICED | {
        key: value
        for key, value in parts.items()
        if key not in {"dbname", "user", "password", "host", "port"}
    }
    # A process that dies or stalls inside a transaction must not keep its rows
    # locked for longer than it may take another to go on (10 s, docs/faults.md).
    # Poolers refuse options at the start of a connection: theirs sets it.
    if not DATABASE_IS_POOLED:
        options["options"] = (
            f"{options.get('options', '')} -c idle_in_transaction_session_timeout=5s"
        ).strip()
    # Of the statements of `prepared_cursor`; Django's own are never prepared. Poolers
    # that hand a connection to another client between two statements lose what was
    # prepared on it (PgBouncer before 1.22): they need this off.
    if env.bool("HOTSWAP_DATABASE_PREPARE", default=not DATABASE_IS_POOLED):
        options["prepare_threshold"] = 0
    return {
        "ENGINE": "hotswap.common.postgresql",
        "NAME": parts.get("dbname", "hotswap"),
        "USER": parts.get("user", ""),
        "PASSWORD": parts.get("password", ""),
        "HOST": parts.get("host", ""),
        "PORT": parts.get("port", ""),
        "OPTIONS": options,
        "CONN_HEALTH_CHECKS": True,
        "CONN_MAX_AGE": 600,
        "DISABLE_SERVER_SIDE_CURSORS": DATABASE_IS_POOLED,
    }


def json_object(name: str) -> dict[str, Any]:
    """Read a variable that holds a JSON object; an empty one if it is not set.

    Raises:
        ImproperlyConfigured: names the variable.
    """
    text = env.str(name, default="") or "{}"
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ImproperlyConfigured(f"{name} must be a JSON object")
    return value


# --- The proxy in front (hotswap.common.api.proxy) ------------------------------
PROXY_SECRET = env.str("HOTSWAP_PROXY_SECRET", default="")
if PROXY_SECRET and len(PROXY_SECRET) < 16:
    raise ImproperlyConfigured("HOTSWAP_PROXY_SECRET must have 16 characters at least")
if not PROXY_SECRET.isascii() or set(PROXY_SECRET) & set(';,"\\'):
    raise ImproperlyConfigured(
        "HOTSWAP_PROXY_SECRET must be ASCII without semicolon, comma, quote, backslash"
    )
try:
    PROXY_ADDRESSES = [
        ip_network(text) for text in env.list("HOTSWAP_PROXY_ADDRESSES", default=[])
    ]
except ValueError as error:
    raise ImproperlyConfigured(f"HOTSWAP_PROXY_ADDRESSES: {error}") from None
if PROXY_SECRET or PROXY_ADDRESSES:
    # Else orders would send devices to plain http for what they came for over TLS.
    # Whoever goes past the proxy and lies here gets links that do not work.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# Client certificates of devices, which the proxy verifies (devices.api.certificates).
DEVICE_CERTIFICATES = env.str("HOTSWAP_DEVICE_CERTIFICATES", default="off")
CERTIFICATE_FORMAT = env.str("HOTSWAP_CERTIFICATE_FORMAT", default="pem")
for _name, _value, _known in (
    ("DEVICE_CERTIFICATES", DEVICE_CERTIFICATES, ("off", "optional", "required")),
    ("CERTIFICATE_FORMAT", CERTIFICATE_FORMAT, ("pem", "sha256")),
):
    if _value not in _known:
        raise ImproperlyConfigured(
            f"HOTSWAP_{_name} must be one of {', '.join(_known)}, not {_value!r}"
        )
if DEVICE_CERTIFICATES != "off" and not PROXY_SECRET:
    raise ImproperlyConfigured(
        "HOTSWAP_DEVICE_CERTIFICATES needs HOTSWAP_PROXY_SECRET: without it anyone "
        "could write the header"
    )

DATABASES = {
    "default": database_from_url(
        env.str("HOTSWAP_DATABASE_URL", default="postgresql:///hotswap")
    )
}
# Of the role that owns the tables; for `prepare` and `migrate` alone.
_OWNER_URL = env.str("HOTSWAP_DATABASE_OWNER_URL", default="")
DATABASE_OWNER = database_from_url(_OWNER_URL) if _OWNER_URL else None
# Connections that the threads of a web process share; 0 gives each thread its own.
WEB_CONNECTIONS = env.int("HOTSWAP_WEB_CONNECTIONS", default=3)
if WEB_CONNECTIONS < 0:
    raise ImproperlyConfigured("HOTSWAP_WEB_CONNECTIONS must be 0 or more")
# Requests at once in each web process, and how long one may take to send its body.
WEB_THREADS = env.int("HOTSWAP_WEB_THREADS", default=16)
BODY_SECONDS = env.float("HOTSWAP_BODY_SECONDS", default=10.0)
# Where bodies are long (spans of their own: HOTSWAP_UPLOAD_...), and the beginnings of
# where they are read before it is known from whom.
UPLOAD_ADDRESSES = frozenset(
    {
        "/api/v1/firmware",
        "/api/v1/devices/import",
        "/admin/firmware/firmware/upload/",
        "/admin/devices/deviceimport/upload/",
    }
)
STRANGERS_ADDRESSES = ("/api/v1/auth/", "/api/v1/enrolments", "/admin/")
# How long one statement of a web process may take; 0 is without end.
WEB_STATEMENT_SECONDS = env.int("HOTSWAP_STATEMENT_SECONDS", default=10)
REDIS_URL = env.str("HOTSWAP_REDIS_URL", default="redis://127.0.0.1:6379/0")

# Throttle counters are the only thing kept in the cache (hotswap.common.api.throttling
# says what happens while Redis is away).
CACHES = {
    "default": {
        "BACKEND": "hotswap.common.cache.ForgivingRedisCache",
        "LOCATION": REDIS_URL,
        "OPTIONS": {"socket_connect_timeout": 1, "socket_timeout": 1},
    }
}

# --- API ------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "hotswap.common.api.authentication.PersonAuthentication",
        "devices.api.authentication.DeviceAuthentication",
        "devices.api.authentication.CertificateAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["hotswap.common.api.permissions.DenyAll"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["hotswap.common.api.parsers.StrictJSONParser"],
    "DEFAULT_FILTER_BACKENDS": ["hotswap.common.api.filters.StrictFilterBackend"],
    "DEFAULT_PAGINATION_CLASS": "hotswap.common.api.pagination.KeysetPagination",
    "DEFAULT_SCHEMA_CLASS": "hotswap.common.api.schema.HotSwapSchema",
    "EXCEPTION_HANDLER": "hotswap.common.api.errors.problem_handler",
    "DEFAULT_THROTTLE_CLASSES": [],
    "UNAUTHENTICATED_USER": None,
    "COERCE_DECIMAL_TO_STRING": False,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "HotSwap",
    "DESCRIPTION": (
        "Update server for fleets of IoT devices. A first call, with a token of "
        "`POST /api/v1/auth/token` or of the page of one's account:\n\n"
        '    curl -H "Authorization: Bearer $TOKEN" https://HOST/api/v1/devices\n\n'
        "*Try it out* shows the curl of any other."
    ),
    "VERSION": "1.0.0",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "CAMELIZE_NAMES": True,
    "POSTPROCESSING_HOOKS": [],
}

# Sessions of the console end so long after the login, and after the last request.
CONSOLE_SESSION_LIFETIME = timedelta(
    minutes=env.int("HOTSWAP_SESSION_MINUTES", default=12 * 60)
)
CONSOLE_SESSION_IDLE = timedelta(
    minutes=env.int("HOTSWAP_SESSION_IDLE_MINUTES", default=30)
)
if min(CONSOLE_SESSION_LIFETIME, CONSOLE_SESSION_IDLE) < timedelta(minutes=2):
    raise ImproperlyConfigured(
        "HOTSWAP_SESSION_MINUTES and HOTSWAP_SESSION_IDLE_MINUTES must be 2 at least"
    )
# Who must have a second factor: `none`, `admins` or `all`.
REQUIRE_MFA = env.str("HOTSWAP_REQUIRE_MFA", default="none")
# Whether what weighs most is signed: by the password or a code, asked for again.
REQUIRE_SIGNATURES = env.bool("HOTSWAP_REQUIRE_SIGNATURES", default=False)
# Single sign-on: the provider, and the role of each value of one of its claims.
OIDC_ROLE_CLAIM = env.str("HOTSWAP_OIDC_ROLE_CLAIM", default="groups")
OIDC_ROLES = json_object("HOTSWAP_OIDC_ROLES")
OIDC_SECOND_FACTOR = env.bool("HOTSWAP_OIDC_SECOND_FACTOR", default=False)
SOCIALACCOUNT_PROVIDERS = sign_on_providers(
    issuer=env.str("HOTSWAP_OIDC_ISSUER", default=""),
    client_id=env.str("HOTSWAP_OIDC_CLIENT_ID", default=""),
    client_secret=env.str("HOTSWAP_OIDC_CLIENT_SECRET", default=""),
    name=env.str("HOTSWAP_OIDC_NAME", default="single sign-on"),
)
if REQUIRE_MFA not in ("none", "admins", "all"):
    raise ImproperlyConfigured("HOTSWAP_REQUIRE_MFA must be none, admins or all")
if not set(OIDC_ROLES.values()) <= {"Admin", "Operator", "Viewer"}:
    raise ImproperlyConfigured(
        "HOTSWAP_OIDC_ROLES must give Admin, Operator or Viewer to each value"
    )
PERSON_TOKEN_LIFETIME = timedelta(minutes=15)
REFRESH_TOKEN_LIFETIME = timedelta(days=7)
DEVICE_TOKEN_LIFETIME = timedelta(minutes=60)
DEVICE_KEY_LIFETIME = timedelta(days=env.int("HOTSWAP_DEVICE_KEY_DAYS", default=90))
# How long before its end a key or a client certificate counts as expiring.
DEVICE_KEY_WARNING = timedelta(
    days=env.int("HOTSWAP_DEVICE_KEY_WARNING_DAYS", default=14)
)
ENROLMENT_TOKEN_LIFETIME = timedelta(days=30)
# How long a device waits before it asks again whether it was approved.
ENROLMENT_RETRY = timedelta(seconds=env.int("HOTSWAP_ENROLMENT_SECONDS", default=30))
IDEMPOTENCY_KEY_LIFETIME = timedelta(hours=24)
# Failed logins in a minute: of one account from one address; of people also from one
# address, and of one account from everywhere.
LOGIN_FAILURES_PER_MINUTE = env.int("HOTSWAP_LOGIN_FAILURES_PER_MINUTE", default=10)
LOGIN_FAILURES_PER_ADDRESS = env.int("HOTSWAP_LOGIN_FAILURES_PER_ADDRESS", default=30)
LOGIN_FAILURES_PER_ACCOUNT = env.int("HOTSWAP_LOGIN_FAILURES_PER_ACCOUNT", default=30)
DEVICE_REQUESTS_PER_SECOND = env.int("HOTSWAP_DEVICE_REQUESTS_PER_SECOND", default=10)
DEVICE_REQUESTS_BURST = env.int("HOTSWAP_DEVICE_REQUESTS_BURST", default=100)
# Requests of one person in a minute, and of these what costs much.
PERSON_REQUESTS_PER_MINUTE = env.int("HOTSWAP_PERSON_REQUESTS_PER_MINUTE", default=6000)
UPLOADS_PER_MINUTE = env.int("HOTSWAP_UPLOADS_PER_MINUTE", default=60)
IMPORTS_PER_MINUTE = env.int("HOTSWAP_IMPORTS_PER_MINUTE", default=30)
EXPORTS_PER_MINUTE = env.int("HOTSWAP_EXPORTS_PER_MINUTE", default=60)
PREVIEWS_PER_MINUTE = env.int("HOTSWAP_PREVIEWS_PER_MINUTE", default=120)

# --- Firmware (specification, Scalability and Firmware Security) -------------------
FIRMWARE_MAX_BYTES = 100 * 1024 * 1024
FIRMWARE_MAX_VERSIONS_PER_MODEL = env.int(
    "HOTSWAP_MAX_VERSIONS_PER_MODEL", default=1000
)
# How long devices that have not learned the new signing key are served with the old.
SIGNING_KEY_OVERLAP = timedelta(
    days=env.int("HOTSWAP_SIGNING_KEY_OVERLAP_DAYS", default=90)
)
# 64 KiB of an upload must arrive within the first span, all of it within the second.
UPLOAD_STALL_SECONDS = env.float("HOTSWAP_UPLOAD_STALL_SECONDS", default=30.0)
UPLOAD_MAX_SECONDS = env.float("HOTSWAP_UPLOAD_MAX_SECONDS", default=3600.0)
# 64 KiB of a download must be taken within this span.
DOWNLOAD_STALL_SECONDS = env.float("HOTSWAP_DOWNLOAD_STALL_SECONDS", default=30.0)
FOUR_EYES = env.bool("HOTSWAP_FOUR_EYES", default=False)
S3_BUCKET = env.str("HOTSWAP_S3_BUCKET", default="")
S3_ENDPOINT = env.str("HOTSWAP_S3_ENDPOINT", default="")
S3_REGION = env.str("HOTSWAP_S3_REGION", default="")
S3_ACCESS_KEY = env.str("HOTSWAP_S3_ACCESS_KEY", default="")
S3_SECRET_KEY = env.str("HOTSWAP_S3_SECRET_KEY", default="")
# Newer SDKs send checksum trailers that several S3 servers write into the object.
S3_CHECKSUMS = env.str(
    "HOTSWAP_S3_CHECKSUMS",
    default="when_required" if S3_ENDPOINT else "when_supported",
)
# `frames`: encrypted here, given out through the server. `AES256`, `aws:kms`: left to
# the bucket, given out by links that live for a minute at most.
S3_ENCRYPTION = env.str("HOTSWAP_S3_ENCRYPTION", default="frames")
S3_KMS_KEY = env.str("HOTSWAP_S3_KMS_KEY", default="")
# The address that devices use, if it is not the server's: a link is signed for a host.
S3_PUBLIC_ENDPOINT = env.str("HOTSWAP_S3_PUBLIC_ENDPOINT", default="")
S3_LINK_SECONDS = env.int("HOTSWAP_S3_LINK_SECONDS", default=60)
# Further buckets by name, and addresses in front of them by region; JSON objects.
S3_BUCKETS = json_object("HOTSWAP_S3_BUCKETS")
DOWNLOAD_BASES = json_object("HOTSWAP_DOWNLOAD_BASES")
DOWNLOAD_SECRET = env.str("HOTSWAP_DOWNLOAD_SECRET", default="")
FIRMWARE_DIR = DATA_DIR / "firmware"

# --- Devices ------------------------------------------------------------------------
DEFAULT_REGION = env.str("HOTSWAP_DEFAULT_REGION", default="US-EAST")
REGIONS = env.list(
    "HOTSWAP_REGIONS", default=["US-EAST", "US-WEST", "EU-CENTRAL", "EU", "APAC"]
)
# Latitude and longitude in degrees, for the map of the overview.
REGION_PLACES: dict[str, list[float]] = json_object("HOTSWAP_REGION_PLACES") or {
    "US-EAST": [38, -78],
    "US-WEST": [44, -121],
    "EU-CENTRAL": [50, 9],
    "EU": [53, -8],
    "APAC": [1, 104],
}
for _name, _place in REGION_PLACES.items():
    if not (
        isinstance(_place, list)
        and [type(each) in (int, float) for each in _place] == [True, True]
        and -90 <= _place[0] <= 90
        and -180 <= _place[1] <= 180
    ):
        raise ImproperlyConfigured(
            f"HOTSWAP_REGION_PLACES, {_name!r}: must be [latitude, longitude]"
        )
IMPORT_MAX_BYTES = env.int("HOTSWAP_IMPORT_MAX_BYTES", default=64 * 1024 * 1024)
IMPORT_MAX_LINES = env.int("HOTSWAP_IMPORT_MAX_LINES", default=500_000)
# How long the keys of an import wait to be fetched, and how long they can be fetched
# again after that: a download may break off.
IMPORT_KEYS_KEPT = timedelta(hours=24)
IMPORT_KEYS_AGAIN = timedelta(minutes=15)
POLL_INTERVAL = timedelta(seconds=env.int("HOTSWAP_POLL_SECONDS", default=60))
POLL_INTERVAL_DEPLOYING = timedelta(
    seconds=env.int("HOTSWAP_POLL_SECONDS_DEPLOYING", default=30)
)

# --- Health (FR-FW-005) ---------------------------------------------------------------
HEARTBEAT_INTERVAL = timedelta(
    seconds=env.int("HOTSWAP_HEARTBEAT_SECONDS", default=300)
)
HEARTBEAT_INTERVAL_DEPLOYING = timedelta(
    seconds=env.int("HOTSWAP_HEARTBEAT_SECONDS_DEPLOYING", default=30)
)
HEARTBEAT_INTERVAL_AFTER = timedelta(
    seconds=env.int("HOTSWAP_HEARTBEAT_SECONDS_AFTER", default=60)
)
ONLINE_FLOOR = timedelta(seconds=env.int("HOTSWAP_ONLINE_FLOOR_SECONDS", default=120))

# --- Deployments --------------------------------------------------------------------
MAX_DEVICES_PER_DEPLOYMENT = 100_000
MAX_RUNNING_DEPLOYMENTS = 100
# What one update takes where none was measured (specification, Latency, p50).
USUAL_UPDATE_TIME = timedelta(minutes=5)
# So many failures of one image on one device, and it is not offered there again.
QUARANTINE_AFTER = env.int("HOTSWAP_QUARANTINE_AFTER", default=2)
# Webhooks and mail. All or these networks may be told although they are private.
WEBHOOK_ALLOWED_NETWORKS = [
    ip_network(text)
    for text in env.list("HOTSWAP_WEBHOOK_ALLOWED_NETWORKS", default=[])
]
if env.bool("HOTSWAP_WEBHOOK_ALLOW_PRIVATE", default=False):
    WEBHOOK_ALLOWED_NETWORKS = [ip_network("0.0.0.0/0"), ip_network("::/0")]
# Waits before the second and each further attempt; after the last it has failed.
NOTIFICATION_RETRIES = [
    timedelta(seconds=seconds)
    for seconds in env.list(
        "HOTSWAP_NOTIFICATION_RETRY_SECONDS",
        cast=float,
        default=[5.0, 30.0, 120.0, 600.0, 3600.0, 21600.0],
    )
]
# How long requests are signed with the former secret of a webhook too.
WEBHOOK_SECRET_OVERLAP = timedelta(hours=24)
# Who hands messages to apprise, and when it is killed. Isolated (-I): neither variables
# nor files of the working directory reach it; -B: it writes nothing.
GATEWAY_COMMAND = [
    *(sys.executable, "-I", "-B", "-m", "deployments.notifications.gateway_process")
]
GATEWAY_SECONDS = 15.0
MAIL_FROM = env.str("HOTSWAP_MAIL_FROM", default="hotswap@localhost")
PUBLIC_URL = env.str("HOTSWAP_PUBLIC_URL", default="")


# --- Retention (hotswap.retention, docs/operate/retention.md) ------------------------
def kept_days(name: str, default: int, *, least: int = 0) -> timedelta | None:
    """Read how many days something is kept; None, which 0 days stand for, is for good.

    Raises:
        ImproperlyConfigured: names the variable.
    """
    days = env.int(name, default=default)
    if not least <= days <= 36_500:
        raise ImproperlyConfigured(f"{name} must be {least} to 36500")
    return timedelta(days=days) if days else None


HEALTH_HISTORY = kept_days("HOTSWAP_HEALTH_HISTORY_DAYS", 30, least=1)
REPORTS_KEPT = kept_days("HOTSWAP_REPORT_DAYS", 365)
DEPLOYMENT_LOGS_KEPT = kept_days("HOTSWAP_DEPLOYMENT_LOG_DAYS", 0)
DEPLOYMENTS_KEPT = kept_days("HOTSWAP_DEPLOYMENT_DAYS", 0)
UNUSED_IMAGES_KEPT = kept_days("HOTSWAP_UNUSED_IMAGE_DAYS", 0)
NOTIFICATIONS_KEPT = kept_days("HOTSWAP_NOTIFICATION_DAYS", 30)
IMPORT_RESULTS_KEPT = kept_days("HOTSWAP_IMPORT_DAYS", 30)
# A key that was superseded is remembered, so that its reuse is noticed.
RETIRED_KEY_MEMORY = kept_days("HOTSWAP_RETIRED_KEY_DAYS", 365)
ENDED_TOKENS_KEPT = kept_days("HOTSWAP_ENDED_TOKEN_DAYS", 30)
ENDED_SESSIONS_KEPT = timedelta(0)
LOGIN_COUNTS_KEPT = timedelta(hours=1)
REMOVAL_COUNTS_KEPT = timedelta(days=400)

# --- Audit trail (docs/operate/audit.md) ----------------------------------------------
# Signed ends of its chain, for whom the database is not to be believed.
AUDIT_DIR = DATA_DIR / "audit"
AUDIT_ANCHOR_INTERVAL = timedelta(hours=24)

# What a lower app asks of a higher one, called in the same transaction.
UPDATE_AVAILABLE_HOOK = "deployments.services.hooks.is_update_available"
FIRMWARE_USE_HOOK = "deployments.services.hooks.firmware_use"
FIRMWARE_FIGURES_HOOK = "deployments.services.hooks.firmware_figures"
COMMON_IMAGES_HOOK = "deployments.services.hooks.common_images"
FIRMWARE_INCIDENTS_HOOK = "deployments.incidents.firmware_incidents"
FIRMWARE_EVENT_HOOK = "deployments.services.hooks.enqueue_firmware"
SIGNING_KEY_EVENT_HOOK = "deployments.services.hooks.enqueue_signing_key"
FIRMWARE_IN_USE_HOOK = "deployments.services.hooks.firmware_in_use"
UNUSED_IMAGES_HOOK = "deployments.services.retention.unused_images"
FIRMWARE_RECALLED_HOOK = "deployments.services.hooks.cancel_deployments_of"
# In the order of the locks: orders and targets, then health.
DEVICE_ERASURE_HOOKS = [
    "deployments.services.erasure.erase_deployment_data",
    "health.services.erasure.erase_health_data",
    "deployments.services.erasure.erase_from_notifications",
]
DEVICE_EXPORT_HOOKS = [
    "health.services.erasure.export_health_data",
    "deployments.services.erasure.export_deployment_data",
]
PERSON_ERASURE_HOOKS = ["devices.services.saved_filters.erase_filters"]
PERSON_EXPORT_HOOKS = ["devices.services.saved_filters.export_filters"]
VERSION_ORDER_CHANGED_HOOK = "devices.services.version_keys.refresh_version_keys"
UNPROVED_IMAGE_HOOK = "deployments.services.hooks.is_unproved"
RUNNING_FIRMWARE_CHANGED_HOOK = "deployments.services.hooks.note_running_firmware"
HEARTBEAT_REFUSED_HOOK = "deployments.services.hooks.note_refused_heartbeats"
DEVICE_EVENT_HOOK = "deployments.services.hooks.enqueue_device_event"
KEY_ROTATED_HOOK = "deployments.services.hooks.note_new_key"
DUPLICATE_IDENTITY_HOOK = "deployments.services.hooks.note_duplicate_identity"
STORED_ANCHORS_HOOK = "firmware.services.audit_anchors.stored_anchors"
AUDIT_ANCHORED_HOOK = "deployments.services.hooks.enqueue_audit_anchor"
DEVICES_CHANGED_HOOK = "deployments.services.fleet_news.note_devices_changed"
GROUP_AUDIENCES_HOOK = "deployments.services.audiences.changed_by_group"
DEVICE_AUDIENCES_HOOK = "deployments.services.audiences.changed_by_devices"

# --- Background work: ticks that find what is due; running one twice changes nothing --
# Beside those of beat, where a device or a person has just changed something.
EARLY_TICKS = True
EARLY_TICK_TASK = "deployments.tasks.tick_early"
CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_keepalive": True,
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
}
# They are closed when they are old or broken (`hotswap/celery.py`), not by their uses.
CELERY_DB_REUSE_MAX = 1_000_000_000
CELERY_BEAT_SCHEDULER = "hotswap.schedule:Scheduler"
CELERY_BEAT_MAX_LOOP_INTERVAL = 1
# `expires` keeps a stopped worker from finding a heap of stale ticks on its return.
CELERY_BEAT_SCHEDULE = {
    "deployments-tick": {
        "task": "deployments.tasks.tick",
        "schedule": 1.0,
        "options": {"expires": 5},
    },
    "health-sweep": {
        "task": "health.tasks.sweep",
        "schedule": 5.0,
        "options": {"expires": 5},
    },
    "health-history": {
        "task": "health.tasks.keep_history",
        "schedule": 3600.0,
        "options": {"expires": 600},
    },
    "firmware-tidy": {
        "task": "firmware.tasks.tidy_store",
        "schedule": 3600.0,
        "options": {"expires": 600},
    },
    "firmware-audit-anchors": {
        "task": "firmware.tasks.publish_audit_anchors",
        "schedule": 600.0,
        "options": {"expires": 300},
    },
    "devices-keys": {
        "task": "devices.tasks.sweep_keys",
        "schedule": 60.0,
        "options": {"expires": 30},
    },
    "devices-enrolments": {
        "task": "devices.tasks.announce_enrolments",
        "schedule": 10.0,
        "options": {"expires": 10},
    },
    "devices-imports": {
        "task": "devices.tasks.run_imports",
        "schedule": 5.0,
        "options": {"expires": 5},
    },
    "devices-tidy-erased": {
        "task": "devices.tasks.tidy_erased",
        "schedule": 3600.0,
        "options": {"expires": 600},
    },
    "firmware-tend-keys": {
        "task": "firmware.tasks.tend_keys",
        "schedule": 30.0,
        "options": {"expires": 30},
    },
    "firmware-copies": {
        "task": "firmware.tasks.complete_copies",
        "schedule": 10.0,
        "options": {"expires": 10},
    },
    "deployments-traces": {
        "task": "deployments.tasks.export_traces",
        "schedule": 5.0,
        "options": {"expires": 5},
    },
    "deployments-notifications": {
        "task": "deployments.tasks.send_notifications",
        "schedule": 5.0,
        "options": {"expires": 5},
    },
    "common-fold-metrics": {
        "task": "hotswap.common.tasks.fold_metrics",
        "schedule": 60.0,
        "options": {"expires": 30},
    },
    "common-seal-audit-trail": {
        "task": "hotswap.common.tasks.seal_audit_trail",
        "schedule": 5.0,
        "options": {"expires": 5},
    },
    "retention": {
        "task": "hotswap.retention.enforce",
        "schedule": 900.0,
        "options": {"expires": 600},
    },
}

# --- Console -------------------------------------------------------------------------
# "60x" on a demo stack: waits are shorter than on a real one, and every page says so.
DEMO_CLOCK = env.str("HOTSWAP_DEMO_CLOCK", default="")

X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SESSION_ENGINE = "hotswap.common.sessions"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = int(CONSOLE_SESSION_LIFETIME.total_seconds())
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
FILE_UPLOAD_HANDLERS = ["hotswap.common.form_bodies.NoFiles"]
# Files to look at until a server is named; a dead one is given up after 10 s.
globals().update(
    env.email_url("HOTSWAP_EMAIL_URL", default=f"filemail:///{DATA_DIR}/mail")
)
EMAIL_TIMEOUT = 10

# --- Metrics (docs/operate/observability.md) -----------------------------------------
METRICS_TOKEN = env.str("HOTSWAP_METRICS_TOKEN", default="")
if METRICS_TOKEN and not (len(METRICS_TOKEN) >= 16 and METRICS_TOKEN.isascii()):
    raise ImproperlyConfigured(
        "HOTSWAP_METRICS_TOKEN must be 16 ASCII characters at least"
    )
# Where worker and beat show theirs, as `0.0.0.0:9464`; nowhere if it is empty.
METRICS_LISTEN = env.str("HOTSWAP_METRICS_LISTEN", default="")
if METRICS_LISTEN and not METRICS_LISTEN.rpartition(":")[2].isdigit():
    raise ImproperlyConfigured("HOTSWAP_METRICS_LISTEN must be host:port")

# --- Logs and traces (docs/operate/observability.md) ---------------------------------
LOGGING_CONFIG = "hotswap.common.logs.configure"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "lines": {"()": "hotswap.common.logs.formatter"},
    },
    "filters": {
        "client_faults": {"()": "hotswap.common.logs.ClientFaultFilter"},
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "lines",
            "filters": ["client_faults"],
        }
    },
    "root": {
        "handlers": ["stderr"],
        "level": env.str("HOTSWAP_LOG_LEVEL", default="INFO"),
    },
    "loggers": {
        "django.server": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
        # What fails is logged once, with the context of its task, by django-structlog.
        "celery.app.trace": {"level": "CRITICAL"},
        # One line a tick says nothing; the ticks log what they change.
        "celery.beat": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
    },
}
# Requests and tasks that went well are lines of DEBUG: audit trail and metrics tell of
# them. Of people there is the pseudonym, of nobody the address.
DJANGO_STRUCTLOG_CELERY_ENABLED = True
DJANGO_STRUCTLOG_STATUS_DEFAULT_LOG_LEVEL = logging.DEBUG
DJANGO_STRUCTLOG_CELERY_DEFAULT_LOG_LEVEL = logging.DEBUG
DJANGO_STRUCTLOG_CELERY_TASK_RETRY_LOG_LEVEL = logging.DEBUG
DJANGO_STRUCTLOG_IP_LOGGING_ENABLED = False

# The rest of `OTEL_*` is read by OpenTelemetry itself.
_COLLECTOR = env.str(
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    default=env.str("OTEL_EXPORTER_OTLP_ENDPOINT", default=""),
)
_EXPORTER = env.str("OTEL_TRACES_EXPORTER", default="otlp" if _COLLECTOR else "none")
if _EXPORTER not in ("otlp", "none"):
    raise ImproperlyConfigured(
        f"OTEL_TRACES_EXPORTER must be otlp or none, not {_EXPORTER!r}"
    )
TRACES_EXPORTED = _EXPORTER == "otlp" and not env.bool(
    "OTEL_SDK_DISABLED", default=False
)
# Sent with them, as `name=value` with commas between; often the key of the collector.
TRACE_HEADERS = env.str(
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    default=env.str("OTEL_EXPORTER_OTLP_HEADERS", default=""),
)
# Devices of a deployment whose updates are traced beside all that fail.
TRACE_DEVICES = env.int("HOTSWAP_TRACE_DEVICES", default=100)
# Percent of what devices ask all day, and of periodic tasks.
TRACE_ROUTINE_PERCENT = env.float("HOTSWAP_TRACE_ROUTINE_PERCENT", default=1.0)
# Where traces are looked at, with {trace_id} in its place; empty: nowhere.
TRACE_URL = env.str("HOTSWAP_TRACE_URL", default="")
