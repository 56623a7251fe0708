"""Static files: names by content, compressed, and only those of the present sources."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from django.contrib.staticfiles.finders import get_finder
from whitenoise.middleware import WhiteNoiseMiddleware

from hotswap.common.static_files import (
    HashedStaticFiles,
    collect_static_files,
    is_collected,
)
from tests.live import PROJECT_DIR


def forget_finders() -> None:
    cast(Any, get_finder).cache_clear()


@pytest.fixture
def source(tmp_path: Path, settings: Any) -> Iterator[Path]:
    """Make a source of one style sheet, which names what is not there."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "look.css").write_text(
        "a { color: red; }\n" * 100 + "b { background: url(nowhere.png); }"
    )
    settings.STATICFILES_DIRS = [folder]
    settings.STATICFILES_FINDERS = [
        "django.contrib.staticfiles.finders.FileSystemFinder"
    ]
    settings.STATIC_ROOT = tmp_path / "collected"
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "hotswap.common.static_files.HashedStaticFiles"},
    }
    forget_finders()
    yield folder
    forget_finders()


def test_before_they_are_collected_they_have_their_plain_names(source: Path) -> None:
    assert HashedStaticFiles().url("look.css") == "/static/look.css"


def test_collected_they_are_named_by_their_content_and_kept_for_ever(
    source: Path, settings: Any
) -> None:
    assert collect_static_files()

    url = HashedStaticFiles().url("look.css")
    settings.WHITENOISE_AUTOREFRESH = False
    files = WhiteNoiseMiddleware(lambda _: None).files
    packed = files[url].get_response("GET", {"HTTP_ACCEPT_ENCODING": "br"})

    assert url != "/static/look.css"
    headers = dict(packed.headers)
    assert "immutable" in headers["Cache-Control"]
    assert headers["Content-Encoding"] == "br"
    assert packed.file is not None
    packed.file.close()


def test_what_was_collected_from_other_sources_is_not_used(source: Path) -> None:
    collect_static_files()
    before = HashedStaticFiles().url("look.css")
    (source / "look.css").write_text("a { color: blue; }")

    stale = HashedStaticFiles().url("look.css")
    is_stale = not is_collected()
    collect_static_files()
    after = HashedStaticFiles().url("look.css")

    assert (stale, is_stale) == ("/static/look.css", True)
    assert len({before, stale, after}) == 3


def test_a_folder_that_cannot_be_written_stops_nothing(
    source: Path, settings: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    settings.STATIC_ROOT = tmp_path / "file" / "below"

    assert not collect_static_files()
    assert HashedStaticFiles().url("look.css") == "/static/look.css"


def test_they_are_collected_by_a_command_that_needs_no_settings() -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "DJANGO_SETTINGS_MODULE"
    }

    done = subprocess.run(
        [sys.executable, "-m", "hotswap.stack.static"],
        cwd=PROJECT_DIR,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert (PROJECT_DIR / "staticfiles" / "staticfiles.json").exists()
