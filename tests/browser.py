"""Find the browser of this machine; as root, install one where there is none.

python tests/browser.py
"""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL = ("apt-get", "install", "-y", "--no-install-recommends", "chromium")


def find_browser() -> str | None:
    """Return the program of a Chromium, or None."""
    given = os.environ.get("HOTSWAP_TEST_BROWSER")
    if given:
        return given
    return next(filter(None, map(shutil.which, NAMES)), None)


def main() -> int:
    if find_browser():
        return 0
    if os.geteuid() == 0 and shutil.which("apt-get"):
        sys.stdout.write("No browser found; installing chromium ...\n")
        sys.stdout.flush()
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (("apt-get", "update"), INSTALL):
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                sys.stderr.write(done.stdout + done.stderr)
                break
        if find_browser():
            return 0
    sys.stderr.write(
        "The tests need a Chromium: install the package `chromium` of your system, or "
        "name one with HOTSWAP_TEST_BROWSER=/path/to/it\n"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
