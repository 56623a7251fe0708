"""A person who has a keyboard and no mouse."""

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from tests.live import LiveStack

if TYPE_CHECKING:
    from playwright.sync_api import Page

# More than any page has places for the focus.
MOST_TABS = 250
HAS_FOCUS = """
([selector, text, label]) => {
  const element = document.activeElement;
  return element.matches(selector)
    && element.textContent.includes(text)
    && (!label || element.getAttribute("aria-label") === label);
}
"""


class Keyboard:
    """Moves through a page with Tab, and does things with Enter."""

    def __init__(self, page: "Page") -> None:
        self.page = page

    def reach(self, selector: str, text: str = "", *, label: str = "") -> None:
        """Tab until an element has the focus; fail where none ever gets it."""
        for _ in range(MOST_TABS):
            self.page.keyboard.press("Tab")
            if self.page.evaluate(HAS_FOCUS, [selector, text, label]):
                return
        pytest.fail(f"the focus never came to {selector} {text!r} {label!r}")

    def go(self, selector: str, text: str = "", *, label: str = "") -> None:
        """Reach a link or a button, and press it."""
        self.reach(selector, text, label=label)
        self.page.keyboard.press("Enter")

    def write(self, selector: str, text: str) -> None:
        """Reach a field, and replace what stands in it."""
        self.reach(selector)
        self.rewrite(text)

    def rewrite(self, text: str) -> None:
        """Replace what stands in the field that has the focus."""
        self.page.keyboard.press("Control+A")
        self.page.keyboard.press("Delete")
        self.page.keyboard.type(text)

    def skip_to_content(self) -> None:
        """Follow the first link of a page, which passes over its sidebar."""
        self.go(".hs-skip")
        self.page.wait_for_function("document.activeElement.id === 'hs-main'")

    def log_in(self, stack: LiveStack) -> None:
        self.write("[name=username]", stack.admin_username)
        self.write("[name=password]", stack.admin_password)
        self.page.keyboard.press("Enter")
        self.page.locator("#hs-main").wait_for()

    def find(self, words: str, name: str) -> None:
        """Go to what the search of the console finds under a name."""
        self.page.keyboard.press("Control+k")
        self.page.wait_for_function("document.activeElement.type === 'search'")
        asked = urlencode({"s": words})
        with self.page.expect_response(lambda answer: asked in answer.url):
            self.page.keyboard.type(words)
        # What was found for the first letters alone may have been shown before.
        self.page.wait_for_function("!document.querySelector('.htmx-request')")
        found = self.page.locator("#command-results").get_by_role("link", name=name)
        found.first.wait_for()
        self.page.keyboard.press("ArrowDown")
        self.page.keyboard.press("Enter")
