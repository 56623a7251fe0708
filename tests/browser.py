"""Find the browser of this machine; as root, install one where there is none.

python -m tests.browser
"""

import os
import shutil
import sys

from tests.debian import provide

# What htmx says of a request that the next page breaks off.
BROKEN_OFF = ("htmx:sendAbort", "htmx:afterRequest")
# What the policy of content forbids, and a page has tried: `window.violations`.
NOTE_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  const { effectiveDirective, blockedURI, sourceFile } = event;
  window.violations.push(`${effectiveDirective} ${blockedURI} ${sourceFile}`);
});
"""
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser() -> str | None:
    """Return the program of a Chromium, or None."""
    given = os.environ.get("HOTSWAP_TEST_BROWSER")
    if given:
        return given
    return next(filter(None, map(shutil.which, NAMES)), None)


if __name__ == "__main__":
    sys.exit(
        provide(
            "chromium",
            find_browser,
            "The tests need a Chromium: install the package `chromium` of your system, "
            "or name one with HOTSWAP_TEST_BROWSER=/path/to/it",
        )
    )
