"""Settings of the tests: real PostgreSQL and Redis, cheap password hashes.

`tests/services.py` starts the servers and names a folder of its own for keys and
images before these settings are read.
"""

from hotswap.settings.base import *  # noqa: F403
from hotswap.settings.base import DATABASES, STORAGES

# A test runs in one transaction, which may well be idle for longer than a request.
DATABASES["default"]["OPTIONS"]["options"] = ""

SECRET_KEY = "only-for-tests"  # noqa: S105
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "testserver"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
LOGIN_FAILURES_PER_MINUTE = 10
# All tests have one address.
LOGIN_FAILURES_PER_ADDRESS = 10_000
# Tests in this process tick by themselves.
EARLY_TICKS = False
# Tests in this process load the web application, too.
WEB_STATEMENT_SECONDS = 0
WHITENOISE_AUTOREFRESH = True
# Under plain names, whether a stack has collected them or not.
STORAGES["staticfiles"] = {
    "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
}
# A process starts for every message, here beside all other tests.
GATEWAY_SECONDS = 120.0
