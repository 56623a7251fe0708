"""Fixtures for all tests.

- `live_stack`: a real `hotswap serve`, one for the whole run.
- `browser_page`: a page of a real browser.
- `rclone_s3`: a real S3 server on a folder.
"""

import contextlib
import gc
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import HealthCheck, settings

import hotswap.celery

# Loads the pages of the console, by which several tests are drawn up.
import hotswap.urls  # noqa: F401
from tests.browser import find_browser
from tests.campaign import OUTCOME
from tests.foundation import (  # noqa: F401
    django_db_modify_db_settings,
    django_db_setup,
)
from tests.fuzz.findings import FINDINGS
from tests.live import LiveStack, running_stack
from tests.s3 import S3Server, serving_s3

# Until all tests are loaded; see `pytest_collection_finish`.
gc.disable()

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


# A busy machine is no fault of what is tested: nothing is measured here.
settings.register_profile(
    "patient",
    parent=settings.get_profile(settings.get_current_profile_name()),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("patient")


# The files that start stacks, and the stack that this process shares among them.
LONG_FILES: set[Path] = set()
SHARED: list[LiveStack] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that start stacks, which take longest.

    Where processes share the tests by files, none is then left with a long one alone.
    """
    LONG_FILES.update(item.path for item in items if _needs_stack(item))
    items.sort(key=lambda item: item.path not in LONG_FILES)


def pytest_collection_finish() -> None:
    """Keep what a whole run needs out of the garbage collector's rounds.

    Some 300,000 objects of Django and of the tests themselves: looking through them
    again and again took a tenth of the CPU time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def _needs_stack(item: pytest.Item) -> bool:
    is_marked = any(item.get_closest_marker(name) for name in ("stack", "browser"))
    return is_marked or "live_stack" in getattr(item, "fixturenames", ())


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """End the shared stack with the last file that may need it; it is never idle."""
    if SHARED and (nextitem is None or nextitem.path not in LONG_FILES):
        SHARED.pop().stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end what came of the campaigns and the fuzzing, if any ran."""
    for title, outcome in (("campaigns", OUTCOME), ("fuzzing", FINDINGS)):
        if lines := outcome.lines():
            terminalreporter.section(title)
            for line in lines:
                terminalreporter.write_line(line)


def _log_handlers() -> list[logging.Handler]:
    handlers = logging.getLogger().handlers
    return [each for each in handlers if type(each).__module__ != "_pytest.logging"]


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Send the logs where they went before a test that has sent them elsewhere.

    Its stream may end with it, and each later line would be a traceback.
    """
    before = _log_handlers()
    yield
    root = logging.getLogger()
    for handler in _log_handlers():
        if handler not in before:
            root.removeHandler(handler)
    for handler in before:
        root.addHandler(handler)


@pytest.fixture
def one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock of the rate limits stand still: no window ends in between."""
    from hotswap.common.api import throttling

    now = time.time()

    def window(seconds: int) -> tuple[int, float]:
        number = int(now // seconds)
        return number, (number + 1) * seconds - now

    monkeypatch.setattr(throttling, "_window", window)


CLOSE_SECONDS = 30
BROWSER_ARGUMENTS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--no-first-run",
)


@pytest.fixture(scope="session")
def live_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStack]:
    """A running HotSwap with short intervals and a known first Admin."""
    with running_stack(tmp_path_factory.mktemp("live") / "data") as stack:
        SHARED.append(stack)
        yield stack


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """The browser of this machine, without a window."""
    from playwright.sync_api import Error, sync_playwright

    program = find_browser()
    assert program, "no browser: run `make browser`"
    before = set(psutil.Process().children())
    # What goes wrong while it closes is no matter to any test.
    with contextlib.suppress(Error), sync_playwright() as playwright:
        driver = set(psutil.Process().children()) - before
        # Playwright runs an event loop in this thread, in which Django refuses its
        # database; other tests of this run use both.
        allowed = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
        running = playwright.chromium.launch(
            executable_path=program, args=list(BROWSER_ARGUMENTS)
        )
        try:
            yield running
        finally:
            if allowed is None:
                del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]
            # Closing waits for the browser without end, even for one that has gone;
            # without its driver it gives up.
            ending = threading.Timer(CLOSE_SECONDS, _kill_with_children, [driver])
            ending.start()
            with contextlib.suppress(Error):
                running.close()
            ending.cancel()


def _kill_with_children(processes: set[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in process.children(recursive=True):
                child.kill()
            process.kill()


@pytest.fixture
def browser_page(browser: "Browser") -> Iterator["Page"]:
    """A fresh page that nobody has logged in to; fails on errors of scripts."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(120_000)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


@pytest.fixture(scope="session")
def rclone_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A signed, ranged, multipart S3 server on a folder; leave it running."""
    with serving_s3(tmp_path_factory.mktemp("s3") / "objects") as server:
        yield server
