"""Take a picture of every page of the console, on a running demo.

    python -m tests.screenshots [--data-dir DIR] [--out DIR] [PATH ...]

It logs in as the demo's admin and follows all links: each list, and of each kind of
object the first page. Each is taken on a desk and on a phone, light and dark, whole.
Without a running demo it starts one of its own, and ends it.
"""

import argparse
import contextlib
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from hotswap.stack.folder import free_port
from tests.browser import NOTE_VIOLATIONS, find_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROJECT_DIR = Path(__file__).resolve().parent.parent
VIEWS = {
    f"{device}-{scheme}": (width, height, scheme)
    for device, width, height in (("desk", 1440, 900), ("phone", 390, 844))
    for scheme in ("light", "dark")
}
LINK = re.compile(r'<a\b[^>]*?\bhref="([^"]*)"[^>]*>')
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# Objects, and the documents of the manual.
ANY_OBJECT = re.compile(rf"{UUID}|(?<=/)\d+(?=/)|(?<=/help/).+")
# Exports would be written down in the audit trail.
NO_PAGE = re.compile(r"/(logout|data|evidence|export[\w-]*)/|\.csv$")
HTML = "text/html"
# Deployments look as their strategy and status are; other kinds are shown by one.
SEVERAL = {"deployments/deployment/*/change/": 6, "devices/devicegroup/*/change/": 3}
# To what is done with selected devices no link leads.
MORE = ("devices/device/tag/", "devices/device/add-to-group/")
START_SECONDS = 300.0
# In which charts and pieces have come.
SETTLE_MS = 1200


def main() -> int:
    options = _parse()
    with _demo(options.data_dir) as folder:
        url = json.loads((folder / "stack.json").read_text())["url"]
        logins = json.loads((folder / "demo/logins.json").read_text())
        password = next(
            each["password"] for each in logins if each["username"] == "admin"
        )
        take_all(f"{url}/admin/", password, options.out, options.paths)
    return 0


def take_all(site: str, password: str, out: Path, only: list[str]) -> None:
    """Take all pictures, and name the pages with a fault.

    They are wider than the screen, or try what the policy of content forbids.
    """
    from playwright.sync_api import sync_playwright

    out.mkdir(parents=True, exist_ok=True)
    paths = only
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_browser(), args=["--no-sandbox"]
        )
        for name, view in VIEWS.items():
            page = _page(browser, *view)
            page.goto(site)
            page.wait_for_load_state("load")
            page.screenshot(path=out / f"login-{name}.png", full_page=True)
            _log_in(page, password)
            paths = paths or find_paths(partial(_read, page, site), urlsplit(site).path)
            for path in paths:
                page.goto(site + path)
                page.wait_for_load_state("load")
                page.wait_for_timeout(SETTLE_MS)
                file = f"{_file_name(path, paths)}-{name}.png"
                page.screenshot(path=out / file, full_page=True)
                wide = page.evaluate(
                    "document.documentElement.scrollWidth - innerWidth"
                )
                if wide > 0:
                    sys.stdout.write(f"{path} ({name}): {wide} px too wide\n")
                for violation in page.evaluate("window.violations"):
                    sys.stdout.write(f"{path} ({name}): forbidden: {violation}\n")
            page.context.close()
        browser.close()
    sys.stdout.write(f"{len(paths)} pages, {len(VIEWS)} pictures each: {out}\n")


def find_paths(read: Callable[[str], str | None], start: str) -> list[str]:
    """Return the paths of all pages to which links lead, below that of the console.

    Of pages that show one object of a kind each, the first found stands for all.

    Args:
        read: gives the text of a page, by its path; None of what is no page.
        start: the path of the console.
    """
    found: set[str] = set()
    kinds: Counter[str] = Counter()
    waiting = [start, *(start + path for path in MORE)]
    while waiting:
        path = waiting.pop(0)
        kind = ANY_OBJECT.sub("*", path).removeprefix(start)
        if path in found or kinds[kind] == SEVERAL.get(kind, 1) or NO_PAGE.search(path):
            continue
        kinds[kind] += 1
        text = read(path)
        if text is None:
            continue
        found.add(path)
        for link in LINK.finditer(text):
            # What opens in a dialog is no page of its own.
            if "hx-get" not in link[0]:
                target = urlsplit(urljoin(path, unescape(link[1])))
                if target.path.startswith(start) and not target.netloc:
                    waiting.append(target.path)
    return sorted(path.removeprefix(start) for path in found)


def _read(page: "Page", site: str, path: str) -> str | None:
    answer = page.context.request.get(urljoin(site, path))
    return answer.text() if answer.headers["content-type"].startswith(HTML) else None


def _page(browser: "Browser", width: int, height: int, scheme: str) -> "Page":
    page = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
    ).new_page()
    page.add_init_script(NOTE_VIOLATIONS)
    return page


def _log_in(page: "Page", password: str) -> None:
    page.fill("[name=username]", "admin")
    page.fill("[name=password]", password)
    page.click("[type=submit]")
    page.locator("#hs-main").wait_for()


def _file_name(path: str, paths: list[str]) -> str:
    """Name a page by its path without the object, and number those that are alike."""
    alike = [each for each in paths if _plain(each) == _plain(path)]
    number = f"-{alike.index(path) + 1}" if len(alike) > 1 else ""
    return (_plain(path) or "index") + number


def _plain(path: str) -> str:
    return re.sub(r"[^a-z]+", "-", ANY_OBJECT.sub("", path)).strip("-")


@contextlib.contextmanager
def _demo(data_dir: Path | None) -> Iterator[Path]:
    """Give the folder of a demo that runs: the one that is named, or a new one."""
    if data_dir is not None:
        yield data_dir
        return
    folder = PROJECT_DIR / "build/screenshots-demo"
    log = folder.with_suffix(".log")
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "hotswap.cli.main", "demo", "--reset"),
                *("--port", str(free_port()), "--data-dir", str(folder)),
            ],
            cwd=PROJECT_DIR,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while "The story is told" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the demo does not tell its story: {log}")
            time.sleep(1)
        yield folder
    finally:
        process.terminate()
        process.wait()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.screenshots", description="Picture every console page."
    )
    parser.add_argument("--data-dir", type=Path, help="of a demo that runs already")
    parser.add_argument("--out", type=Path, default=PROJECT_DIR / "build/screenshots")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="these pages alone")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
