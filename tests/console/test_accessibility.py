"""What axe-core finds in the main pages: nothing serious, in no light, at no width.

Nor does any of them try what the policy of content forbids.
"""

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import NOTE_VIOLATIONS
from tests.deployments.agents import new_model
from tests.deployments.live import LiveAdmin
from tests.live import PROJECT_DIR, LiveStack

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

GRAVE = ("serious", "critical")
PAGES = (
    "",
    "system/",
    "system/retention/",
    "help/",
    "devices/device/",
    "devices/device/register/",
    "devices/devicegroup/",
    "devices/devicegroup/create-dynamic/",
    "devices/enrolmentrequest/",
    "devices/enrolmenttoken/create/",
    "devices/deviceimport/upload/",
    "firmware/firmware/",
    "firmware/firmware/upload/",
    "firmware/approvalrequest/",
    "firmware/devicemodel/",
    "firmware/signingkey/",
    "deployments/deployment/",
    "deployments/deployment/launch/",
    "deployments/quarantine/",
    "deployments/webhook/",
    "common/auditevent/",
    "common/user/",
    "common/user/1/change/",
    "no/such/page/",
)
WIDTHS = {"desktop": (1440, 900), "phone": (390, 844)}


# The theme changes colours and nothing else, so one rule tells of the other one.
OF_COLOURS = {"runOnly": ["color-contrast"]}
CHANGE_THEME = """
async () => {
  const classes = document.documentElement.classList;
  const isDark = classes.toggle("dark");
  classes.toggle("light", !isDark);
  // Colours that are half way are those of neither.
  await new Promise(requestAnimationFrame);
  const isFading = (each) => each instanceof CSSTransition;
  const fading = document.getAnimations().filter(isFading);
  await Promise.allSettled(fading.map((each) => each.finished));
  return isDark;
}
"""


def grave_findings(page: "Page", options: dict[str, Any] | None = None) -> list[str]:
    """Return what axe-core finds grave in a page: rule and place."""
    from axe_playwright_python.sync_playwright import Axe

    response: dict[str, Any] = Axe().run(page, options=options).response
    return [
        f"{found['id']}: {node['target']}"
        for found in response["violations"]
        if found["impact"] in GRAVE
        for node in found["nodes"]
    ]


def log_in(page: "Page", stack: LiveStack) -> None:
    page.goto(f"{stack.url}/admin/")
    page.fill("[name=username]", stack.admin_username)
    page.fill("[name=password]", stack.admin_password)
    page.click("[type=submit]")
    page.locator("#hs-main").wait_for()


def pages_of_objects(page: "Page", stack: LiveStack) -> list[str]:
    """Return the pages of a device, of its image and of a deployment to it."""
    admin = LiveAdmin(stack)
    model = new_model(admin)
    former = admin.upload(model, "1.0.0", b"an image that it runs" * 100)
    image = admin.upload(model, "1.1.0", b"an image to look at" * 100)
    (device,) = admin.register(model, 1, former)
    device.beat()
    deployment = admin.post(
        "/deployments",
        {"firmwareId": image["id"], "strategy": "Direct", "targetAll": True},
    )
    site = f"{stack.url}/admin/"
    page.goto(f"{site}devices/device/?q={device.name}")
    page.get_by_role("link", name=device.name, exact=True).click()
    page.locator("#hs-device-live").wait_for()
    return [
        page.url.removeprefix(site),
        f"firmware/firmware/{image['id']}/change/",
        f"deployments/deployment/{deployment['id']}/change/",
    ]


def test_whatever_scrolls_can_be_scrolled_by_keys() -> None:
    logs = [
        (path.name, tag)
        for path in (PROJECT_DIR / "templates").rglob("*.html")
        for tag in re.findall(
            r'<pre\b[^>]*>|<\w+ [^>]*class="(?:hs-log|hs-scroll)[ "][^>]*>',
            path.read_text(),
        )
        if not re.search("hs-whole|hs-payload|hs-mail-text|hs-pre", tag)
    ]

    assert len(logs) > 20
    assert [each for each in logs if 'tabindex="0"' not in each[1]] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_no_main_page_has_a_serious_fault_in_light_or_dark(
    live_stack: LiveStack, browser: "Browser", width: str
) -> None:
    columns, rows = WIDTHS[width]
    context = browser.new_context(viewport={"width": columns, "height": rows})
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.add_init_script(NOTE_VIOLATIONS)
    found: dict[str, list[str]] = {}

    log_in(page, live_stack)
    for path in (*PAGES, *pages_of_objects(page, live_stack)):
        page.goto(f"{live_stack.url}/admin/{path}", wait_until="load")
        grave = page.evaluate("window.violations") + grave_findings(page)
        assert page.evaluate(CHANGE_THEME)
        grave += [f"dark: {each}" for each in grave_findings(page, OF_COLOURS)]
        if grave:
            found[path] = grave
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if overflow > 0:
            found.setdefault(path, []).append(f"scrolls sideways by {overflow}")
    context.close()

    assert found == {}


@pytest.mark.parametrize(
    ("piece", "directive"),
    [
        ("<b style='color: red'>x</b>", "style-src-attr inline"),
        ("<img src='https://example.com/x.png'>", "img-src https://example.com/"),
        ("<b onclick='1'>x</b>", "script-src-attr inline"),
    ],
)
def test_what_the_policy_forbids_is_refused_and_noted(
    live_stack: LiveStack, browser_page: "Page", piece: str, directive: str
) -> None:
    page = browser_page
    page.add_init_script(NOTE_VIOLATIONS)
    log_in(page, live_stack)

    page.evaluate(
        "(html) => document.body.insertAdjacentHTML('beforeend', html)", piece
    )
    page.wait_for_function("window.violations.length")

    assert page.evaluate("window.violations")[0].startswith(directive)


def test_the_description_of_the_api_keeps_to_the_policy(
    live_stack: LiveStack, browser_page: "Page"
) -> None:
    page = browser_page
    page.add_init_script(NOTE_VIOLATIONS)
    log_in(page, live_stack)
    page.goto(f"{live_stack.url}/api/v1/docs")

    page.locator(".opblock-summary").first.click()
    page.locator(".opblock-body").first.wait_for()

    assert page.evaluate("window.violations") == []


def test_the_keyboard_alone_reaches_the_content_and_presses_buttons(
    live_stack: LiveStack, browser_page: "Page"
) -> None:
    page = browser_page
    log_in(page, live_stack)
    page.goto(f"{live_stack.url}/admin/devices/devicegroup/")

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.id === 'hs-main'")
    page.keyboard.press("?")
    page.get_by_text("Keyboard shortcuts").wait_for()
    page.keyboard.press("Escape")
    page.locator("#action-create").focus()
    page.keyboard.press("Space")

    page.locator("#hs-dialog [name=name]").wait_for()
