"""Every variable that the server reads is documented and can be given to it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from hotswap.common.secret_files import EnvironmentWithFiles
from hotswap.production_checks import refuse_weak_settings
from tests.live import PROJECT_DIR, clean_environment

SOURCES = ("hotswap", "firmware", "devices", "deployments", "health")
VARIABLE = r"(?:HOTSWAP|OTEL)_[A-Z0-9_]+"
# Between processes of HotSwap itself, or of its demo and tests; nobody sets them.
INTERNAL = {"HOTSWAP_SUPERVISED", "HOTSWAP_DEMO_CLOCK", "HOTSWAP_AGENT_CRASH_AT"}
# The image of the container has its folder, production its four eyes, and the command
# of `web` its threads.
FIXED_IN_CONTAINERS = {
    "HOTSWAP_DATA_DIR",
    "HOTSWAP_KEYS_DIR",
    "HOTSWAP_FOUR_EYES",
    "HOTSWAP_WEB_THREADS",
    "HOTSWAP_DEMO_CLOCK",
}
SHOW_SECRETS = """
from hotswap.settings import production as read
print(read.SECRET_KEY, read.DATABASES["default"]["HOST"], read.METRICS_TOKEN)
print(read.TRACE_HEADERS)
"""
LONG_SECRET = "0123456789-abcdefghijklmnopqrstuvwxyz-0123456789-abcdef"
SHORT_SECRET = "0123456789-abcdefghi"
COMPOSE = PROJECT_DIR / "docker-compose.yml"


def read_in(*folders: Path) -> set[str]:
    """Return the variables that the sources in some folders name."""
    found: set[str] = set()
    for folder in folders:
        for path in folder.rglob("*.py"):
            found.update(re.findall(rf"[\"']({VARIABLE})[\"']", path.read_text()))
    return found


def documented() -> set[str]:
    """Return the variables that have a row in a table of the documents."""
    found: set[str] = set()
    for path in (PROJECT_DIR / "docs").glob("*.md"):
        for line in path.read_text().splitlines():
            if line.startswith("|"):
                # What comes first says what the row is about.
                found.update(re.findall(rf"`({VARIABLE})`", line.split(" | ")[0]))
    return found


def in_example() -> list[str]:
    text = (PROJECT_DIR / ".env.example").read_text()
    return re.findall(r"^#?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE)


def test_every_variable_has_a_row_in_the_documents() -> None:
    read = read_in(*(PROJECT_DIR / each for each in SOURCES))

    assert read - INTERNAL - documented() == set()


def test_compose_passes_every_setting_on() -> None:
    settings = read_in(PROJECT_DIR / "hotswap" / "settings")
    text = COMPOSE.read_text()
    given = re.findall(rf"^ {{4,6}}({VARIABLE}):", text, re.MULTILINE)
    passed = {name.removesuffix("_FILE") for name in given}

    assert settings - FIXED_IN_CONTAINERS - passed == set()


def test_example_names_what_compose_takes_and_nothing_else() -> None:
    text = COMPOSE.read_text()
    filled_in = set(re.findall(r"\$\{([A-Z0-9_]+)", text))
    passed_on = set(re.findall(rf"^    ({VARIABLE}):$", text, re.MULTILINE))

    names = in_example()

    assert sorted(names) == sorted(filled_in | passed_on)


def test_a_value_may_come_from_a_file(tmp_path: Path) -> None:
    held = tmp_path / "secret"
    held.write_text(" from the file\n")

    found = EnvironmentWithFiles(
        {"HOTSWAP_A_FILE": str(held), "HOTSWAP_A": "plain", "HOTSWAP_B": "b"}
    )

    assert found["HOTSWAP_A"] == "from the file"
    assert found["HOTSWAP_B"] == "b"
    assert found.get("HOTSWAP_C") is None
    assert EnvironmentWithFiles({"HOTSWAP_A_FILE": "", "HOTSWAP_A": "plain"})[
        "HOTSWAP_A"
    ] == ("plain")


DATABASE_URL = f"postgresql://a:{LONG_SECRET[:16]}@db.example.com/c"
REDIS_URL = f"redis://:{LONG_SECRET[-16:]}@cache.example.com:6379/0"


def test_a_file_that_cannot_be_read_is_named_by_its_variable(tmp_path: Path) -> None:
    found = EnvironmentWithFiles({"HOTSWAP_A_FILE": str(tmp_path / "nothing")})

    with pytest.raises(ImproperlyConfigured, match="HOTSWAP_A_FILE cannot be read"):
        found["HOTSWAP_A"]


def test_settings_take_their_secrets_from_files(tmp_path: Path) -> None:
    secrets = {
        "HOTSWAP_SECRET_KEY": LONG_SECRET,
        "HOTSWAP_DATABASE_URL": DATABASE_URL,
        "HOTSWAP_METRICS_TOKEN": SHORT_SECRET,
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20key",
    }
    files = {}
    for name, value in secrets.items():
        path = tmp_path / name
        path.write_text(f"{value}\n")
        files[f"{name}_FILE"] = str(path)
    done = subprocess.run(
        [*(sys.executable, "-W", "ignore", "-c"), SHOW_SECRETS],
        cwd=PROJECT_DIR,
        env={
            **clean_environment(),
            **files,
            "HOTSWAP_ALLOWED_HOSTS": "updates.example.com",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.split() == [
        LONG_SECRET,
        "db.example.com",
        SHORT_SECRET,
        "authorization=Bearer%20key",
    ], done.stderr


@pytest.mark.parametrize(
    ("given", "required"), [({}, "admins"), ({"HOTSWAP_REQUIRE_MFA": "all"}, "all")]
)
def test_admins_need_a_second_factor_in_production(
    given: dict[str, str], required: str
) -> None:
    show = "from hotswap.settings import production as read; print(read.REQUIRE_MFA)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", show],
        cwd=PROJECT_DIR,
        env={
            **clean_environment(),
            "HOTSWAP_SECRET_KEY": LONG_SECRET,
            "HOTSWAP_DATABASE_URL": DATABASE_URL,
            "HOTSWAP_ALLOWED_HOSTS": "updates.example.com",
            **given,
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.strip() == required, done.stderr


PRODUCTION = {
    "HOTSWAP_REDIS_URL": REDIS_URL,
    "HOTSWAP_SECRET_KEY": LONG_SECRET,
    "HOTSWAP_DATABASE_URL": DATABASE_URL,
    "HOTSWAP_ALLOWED_HOSTS": "updates.example.com",
}


# Reads the settings of production once for each set of variables.
READ_PRODUCTION = """
import json, os, runpy, sys
def said(changes):
    for name in [name for name in sys.modules if name.startswith("hotswap.settings")]:
        del sys.modules[name]
    former = dict(os.environ)
    os.environ.update(changes)
    try:
        found = runpy.run_module("hotswap.settings.production")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        os.environ.clear()
        os.environ.update(former)
    return str(found["SECRET_KEY_FALLBACKS"])
print(json.dumps([said(each) for each in json.load(sys.stdin)]))
"""


def starts_of_production(*changes: dict[str, str]) -> list[str]:
    """Return what reading the production settings says, for each set of variables.

    It is the error, or, where they start, the list of the former secrets.
    """
    done = subprocess.run(
        [*(sys.executable, "-W", "ignore", "-c"), READ_PRODUCTION],
        cwd=PROJECT_DIR,
        env={**clean_environment(), **PRODUCTION},
        input=json.dumps(changes),
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[str] = json.loads(done.stdout)
    return found


GUESSED: list[tuple[dict[str, str], str]] = [
    ({"HOTSWAP_SECRET_KEY": "short"}, "HOTSWAP_SECRET_KEY is shorter"),
    ({"HOTSWAP_SECRET_KEY": "abcd" * 20}, "HOTSWAP_SECRET_KEY repeats"),
    ({"HOTSWAP_SECRET_KEY": "changeme-" * 8}, "HOTSWAP_SECRET_KEY is well known"),
    (
        {"HOTSWAP_SECRET_KEY": f"django-insecure-{LONG_SECRET}"},
        "HOTSWAP_SECRET_KEY is well known",
    ),
    ({"HOTSWAP_SECRET_KEY_FALLBACKS": "short"}, "HOTSWAP_SECRET_KEY_FALLBACKS is"),
    ({"HOTSWAP_PROXY_SECRET": "changeme-changeme"}, "HOTSWAP_PROXY_SECRET is well"),
    ({"HOTSWAP_METRICS_TOKEN": "m" * 20}, "HOTSWAP_METRICS_TOKEN repeats"),
    (
        {"HOTSWAP_DATABASE_URL": "postgresql://a@db.example.com/c"},
        "HOTSWAP_DATABASE_URL has no password, for a server on another machine",
    ),
    (
        {"HOTSWAP_DATABASE_URL": "postgresql://a@/c?host=/run/pg,db.example.com"},
        "HOTSWAP_DATABASE_URL has no password",
    ),
    (
        {"HOTSWAP_DATABASE_URL": "postgresql://a:short@db.example.com/c"},
        "HOTSWAP_DATABASE_URL has a password that is shorter than 16",
    ),
    (
        {"HOTSWAP_DATABASE_URL": "postgresql://a:postgres-postgres@127.0.0.1/c"},
        "HOTSWAP_DATABASE_URL has a password that is well known",
    ),
    (
        {"HOTSWAP_DATABASE_OWNER_URL": "postgresql://a:short@db.example.com/c"},
        "HOTSWAP_DATABASE_OWNER_URL has a password that is shorter",
    ),
    (
        {"HOTSWAP_REDIS_URL": "redis://cache.example.com:6379/0"},
        "HOTSWAP_REDIS_URL has no password, for a server on another machine",
    ),
    (
        {"HOTSWAP_REDIS_URL": "rediss://:foobared@cache.example.com:6379/0"},
        "HOTSWAP_REDIS_URL has a password that is shorter than 16",
    ),
    ({"HOTSWAP_REDIS_URL": "http://cache"}, "HOTSWAP_REDIS_URL: Redis URL must"),
    ({"HOTSWAP_S3_SECRET_KEY": "minioadmin"}, "HOTSWAP_S3_SECRET_KEY is shorter"),
    (
        {"HOTSWAP_S3_BUCKETS": '{"b": {"secretKey": "minioadminminioadmin"}}'},
        "HOTSWAP_S3_BUCKETS, secretKey of 'b', is well known",
    ),
    ({"HOTSWAP_ALLOWED_HOSTS": "*"}, "HOTSWAP_ALLOWED_HOSTS must name"),
    ({"HOTSWAP_ALLOWED_HOSTS": "a.example.com,*"}, "HOTSWAP_ALLOWED_HOSTS must"),
    ({"HOTSWAP_ALLOWED_HOSTS": ""}, "HOTSWAP_ALLOWED_HOSTS must name"),
]
PROVED: list[dict[str, str]] = [
    # Whoever calls is told by the socket, or by rules on the machine of the server.
    {"HOTSWAP_DATABASE_URL": "postgresql:///hotswap"},
    {"HOTSWAP_DATABASE_URL": "postgresql://a@/c?host=/run/postgresql"},
    {"HOTSWAP_DATABASE_URL": "postgresql://a@127.0.0.1/c"},
    {"HOTSWAP_DATABASE_URL": "postgresql://a@db.example.com/c?sslcert=/etc/a.crt"},
    {"HOTSWAP_DATABASE_URL": "postgresql://a@db.example.com/c?passfile=/etc/pw"},
    {"HOTSWAP_REDIS_URL": "unix:///run/redis.sock"},
    {"HOTSWAP_REDIS_URL": "redis://localhost:6379/0"},
    {"HOTSWAP_REDIS_URL": "rediss://cache.example.com/0?ssl_certfile=/etc/a.crt"},
    # The rights of the machine itself.
    {"HOTSWAP_S3_BUCKET": "b", "HOTSWAP_S3_SECRET_KEY": ""},
]


def test_production_does_not_start_with_what_anybody_could_guess() -> None:
    found = starts_of_production(*(changes for changes, _ in GUESSED))

    for said, (changes, reason) in zip(found, GUESSED, strict=True):
        assert said.startswith(f"ImproperlyConfigured: {reason}"), changes


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("hotswap.stack.prepare",), "HotSwap does not start: "),
        (("hotswap.cli.main", "doctor"), "hotswap: "),
    ],
)
def test_weak_settings_end_the_start_with_one_line(
    command: tuple[str, ...], said: str
) -> None:
    done = subprocess.run(
        [*(sys.executable, "-W", "ignore", "-m"), *command],
        cwd=PROJECT_DIR,
        env={
            **clean_environment(),
            **PRODUCTION,
            "DJANGO_SETTINGS_MODULE": "hotswap.settings.production",
            "HOTSWAP_DATABASE_URL": "postgresql://a:short@db.example.com/c",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{said}HOTSWAP_DATABASE_URL has a password that is")
    assert done.returncode != 0


def test_production_starts_without_a_password_where_something_else_says_who_calls() -> (
    None
):
    found = starts_of_production(*PROVED)

    assert found == ["[]"] * len(PROVED)


def test_production_takes_former_secrets_as_fallbacks() -> None:
    former = LONG_SECRET[::-1]

    found = starts_of_production({"HOTSWAP_SECRET_KEY_FALLBACKS": former})

    assert found == [str([former])]


def test_production_refuses_what_django_objects_to(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "hotswap.settings.production")
    settings.SECRET_KEY = LONG_SECRET
    settings.SECURE_SSL_REDIRECT = settings.SESSION_COOKIE_SECURE = True
    settings.CSRF_COOKIE_SECURE = settings.SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    settings.SECURE_HSTS_SECONDS = 31_536_000
    refuse_weak_settings()

    settings.SESSION_COOKIE_SECURE = False

    with pytest.raises(ImproperlyConfigured, match=r"security\.W01[012]"):
        refuse_weak_settings()
