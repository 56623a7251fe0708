"""What a request may see of the process it is served by, and how that one begins."""

import json
import subprocess
import sys

import pytest

from hotswap.environ import WithoutProcessEnvironment
from tests.live import PROJECT_DIR, clean_environment


@pytest.fixture
def seen(monkeypatch):
    """Build a wrapped application that returns what it was given."""
    monkeypatch.setenv("HOTSWAP_DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("HTTP_X_EVIL", "from the process")
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    given = {}

    def application(environ, start_response):
        given.update(environ)
        return []

    wrapped = WithoutProcessEnvironment(application)

    def call(**environ):
        given.clear()
        wrapped(environ, lambda *_: None)
        return given

    return call


def test_variables_of_the_process_do_not_reach_a_request(seen):
    given = seen(
        HOTSWAP_DATABASE_URL="postgresql://secret",
        HTTP_X_EVIL="from the process",
        PATH_INFO="/health",
    )

    assert given == {"PATH_INFO": "/health"}


def test_a_header_that_was_sent_is_kept(seen):
    assert seen(HTTP_X_EVIL="sent") == {"HTTP_X_EVIL": "sent"}


def test_what_the_server_writes_is_kept_whatever_the_process_holds(seen):
    assert seen(REQUEST_METHOD="GET") == {"REQUEST_METHOD": "GET"}


def test_an_application_that_cannot_be_loaded_says_why_in_the_log():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "import hotswap.wsgi"],
        cwd=PROJECT_DIR,
        env={
            **clean_environment(),
            "DJANGO_SETTINGS_MODULE": "hotswap.settings.production",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    said = json.loads(line)
    assert said["level"] == "CRITICAL"
    assert "HOTSWAP_SECRET_KEY" in json.dumps(said)
