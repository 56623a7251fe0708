"""Fixtures for all tests.

- `live_stack`: a real `hotswap serve`, one for the whole run.
- `browser_page`: a page of a real browser.
- `rclone_s3`: a real S3 server on a folder.
"""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import hotswap.celery  # noqa: F401
from hotswap.stack.folder import free_port
from hotswap.stack.processes import kill_group
from tests.browser import find_browser
from tests.foundation import django_db_setup  # noqa: F401
from tests.live import LiveStack, running_stack
from tests.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RCLONE = Path(sys.executable).with_name("rclone")
BROWSER_ARGUMENTS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--no-first-run",
)


@pytest.fixture(scope="session")
def live_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStack]:
    """A running HotSwap with short intervals and a known first Admin."""
    with running_stack(tmp_path_factory.mktemp("live") / "data") as stack:
        yield stack


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """The browser of this machine, without a window."""
    from playwright.sync_api import sync_playwright

    program = find_browser()
    assert program, "no browser: run `make browser`"
    with sync_playwright() as playwright:
        # Playwright runs an event loop in this thread, in which Django refuses its
        # database; other tests of this run use both.
        before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
        running = playwright.chromium.launch(
            executable_path=program, args=list(BROWSER_ARGUMENTS)
        )
        yield running
        running.close()
        if before is None:
            del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def browser_page(browser: "Browser") -> Iterator["Page"]:
    """A fresh page that nobody has logged in to; fails on errors of scripts."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


@dataclass(frozen=True, slots=True)
class S3Server:
    """Where an S3 server answers, and the keys that it takes."""

    endpoint: str
    access_key: str
    secret_key: str
    folder: Path

    def make_bucket(self, name: str) -> str:
        """Make a bucket and return its name."""
        (self.folder / name).mkdir()
        return name


@pytest.fixture(scope="session")
def rclone_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A signed, ranged, multipart S3 server on a folder."""
    folder = tmp_path_factory.mktemp("s3")
    port = free_port()
    server = S3Server(
        endpoint=f"http://127.0.0.1:{port}",
        # Shorter keys are refused by the server.
        access_key=secrets.token_hex(10),
        secret_key=secrets.token_hex(20),
        folder=folder,
    )
    with (tmp_path_factory.mktemp("s3-log") / "rclone.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(str(RCLONE), "serve", "s3", str(folder)),
                *("--addr", f"127.0.0.1:{port}", "--config", os.devnull),
                # Tests change the folder behind its back; at 0 it spins for ever.
                *("--dir-cache-time", "5ms"),
                *("--auth-key", f"{server.access_key},{server.secret_key}"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(lambda: _listens(port), what="the S3 server listens")
        yield server
    finally:
        kill_group(process.pid)
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
