"""Take a picture of every page of the console, on a running demo.

    python -m tests.screenshots [--data-dir DIR] [--out DIR] [PATH ...]

It logs in as the demo's admin and walks the sidebar: each list, and of each list the
first page. Each is taken on a desk and on a phone, light and dark, whole. Without a
running demo it starts one of its own, and ends it.
"""

import argparse
import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

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
# Pages to which no entry of the sidebar leads.
MORE = ("firmware/firmware/upload/", "devices/device/register/", "account/")
START_SECONDS = 300.0
# In which charts and pieces have come.
SETTLE_MS = 1200
FIRST_ROW = "#result_list tbody th a, #result_list tbody td a.hs-link"


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
            page = _logged_in(browser, site, password, *view)
            paths = paths or find_paths(page, site)
            for path in paths:
                page.goto(site + path)
                page.wait_for_load_state("load")
                page.wait_for_timeout(SETTLE_MS)
                page.screenshot(
                    path=out / f"{_file_name(path)}-{name}.png", full_page=True
                )
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


def find_paths(page: "Page", site: str) -> list[str]:
    """Return the paths of all pages, below that of the console."""
    page.goto(site)
    base = urlsplit(site).path
    links = page.locator("#nav-sidebar a[href]").evaluate_all(
        "(links) => links.map((link) => new URL(link.href).pathname)"
    )
    found = {link.removeprefix(base) for link in links if link.startswith(base)}
    for path in sorted(found):
        page.goto(site + path)
        row = page.locator(FIRST_ROW).first
        if row.count():
            target = str(row.evaluate("(link) => new URL(link.href).pathname"))
            if target.startswith(base):
                found.add(target.removeprefix(base))
    return sorted({*found, *MORE})


def _logged_in(
    browser: "Browser", site: str, password: str, width: int, height: int, scheme: str
) -> "Page":
    page = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
    ).new_page()
    page.add_init_script(NOTE_VIOLATIONS)
    page.goto(site)
    page.fill("[name=username]", "admin")
    page.fill("[name=password]", password)
    page.click("[type=submit]")
    page.locator("#hs-main").wait_for()
    return page


def _file_name(path: str) -> str:
    return (
        re.sub(r"[^a-z]+", "-", re.sub(r"[0-9a-f-]{36}", "", path)).strip("-")
        or "index"
    )


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
