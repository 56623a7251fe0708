"""The console in a real browser: nothing from elsewhere, nothing that is blocked."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import BROKEN_OFF
from tests.deployments.agents import new_model
from tests.deployments.live import LiveAdmin
from tests.live import LiveStack

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def test_the_main_pages_load_nothing_foreign_and_block_nothing(
    live_stack: LiveStack, browser_page: "Page", tmp_path: Path
) -> None:
    page, site = browser_page, live_stack.url
    foreign: list[str] = []
    complaints: list[str] = []
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((site, "data:"))
            else foreign.append(request.url)
        ),
    )
    page.on(
        "console",
        lambda message: (
            complaints.append(message.text)
            if message.type == "error" and not message.text.startswith(BROKEN_OFF)
            else None
        ),
    )
    image = tmp_path / "image.bin"
    image.write_bytes(b"firmware of the console test" * 1000)

    page.goto(f"{site}/admin/")
    page.fill("[name=username]", live_stack.admin_username)
    page.fill("[name=password]", live_stack.admin_password)
    page.click("[type=submit]")

    # A dialog: opened by GET, done by POST, closed by its answer.
    page.goto(f"{site}/admin/firmware/devicemodel/")
    page.click("#action-create")
    page.fill("#hs-dialog [name=name]", "console-v1")
    page.click("#hs-dialog [type=submit]")
    page.get_by_text("console-v1 is in the catalogue").wait_for()

    # An upload that is refused keeps the form; one that is not goes to its page.
    page.goto(f"{site}/admin/firmware/firmware/upload/")
    page.select_option("[name=model]", "console-v1")
    page.fill("[name=version]", "one")
    page.set_input_files("[name=file]", image)
    page.click("form[data-hs-upload] [type=submit]")
    page.locator("#hs-upload-errors [role=alert]").wait_for()
    page.fill("[name=version]", "1.0.0")
    page.click("form[data-hs-upload] [type=submit]")
    page.wait_for_url("**/change/")

    page.click("#action-approve")
    page.fill("#hs-dialog [name=comment]", "looks right")
    page.click("#hs-dialog [type=submit]")
    page.get_by_text("is approved: it can be deployed").wait_for()

    page.goto(f"{site}/admin/devices/device/register/")
    page.fill("[name=deviceId]", "console-device")
    page.select_option("[name=model]", "console-v1")
    page.click(".hs-card [type=submit]")
    page.get_by_text("This is the only time").wait_for()

    page.goto(f"{site}/admin/deployments/deployment/launch/")
    page.select_option("[name=firmwareId]", label="console-v1 1.0.0")
    page.get_by_label("List of devices").check()
    page.fill("[name=targetDevices]", "console-device")
    page.get_by_label("Direct").check()
    page.get_by_text("Waiting and attempts").click()
    page.select_option("[name=offlineDevices]", "wait")
    page.click("#hs-preview")
    page.get_by_role("button", name="Launch direct on 1 device").click()
    page.get_by_text("confirm what is marked").wait_for()
    page.get_by_label("I have read this").check()
    page.get_by_role("button", name="Launch direct on 1 device").click()

    # The page moves by itself, and stops when it is over.
    page.locator("#hs-live").wait_for()
    with page.expect_response(lambda answer: "/live/" in answer.url) as polled:
        pass
    assert polled.value.status in (200, 304)
    page.click("#action-cancel")
    page.fill("#hs-dialog [name=reason]", "end of the test")
    with page.expect_navigation():
        page.click("#hs-dialog [type=submit]")
    page.locator(".hs-badge", has_text="Cancelled").first.wait_for()

    for place in (
        "",
        "firmware/firmware/",
        "devices/device/",
        "devices/devicegroup/",
        "deployments/deployment/",
        "common/auditevent/",
        "common/user/",
    ):
        page.goto(f"{site}/admin/{place}")
        page.locator("#main").wait_for()

    assert foreign == []
    assert complaints == []


def test_ages_grow_while_a_page_is_open(
    live_stack: LiveStack, browser_page: "Page"
) -> None:
    page = browser_page
    model = new_model(LiveAdmin(live_stack))
    page.goto(f"{live_stack.url}/admin/login/?next=/admin/firmware/devicemodel/")
    page.fill("[name=username]", live_stack.admin_username)
    page.fill("[name=password]", live_stack.admin_password)
    # Of this page alone; time is the test's from here on.
    page.clock.install()
    page.click("[type=submit]")
    row = page.locator("tr", has_text=model)
    row.locator("time").wait_for()
    assert re.fullmatch(r"\d+ (s|min) ago", row.locator("time").inner_text())

    page.clock.fast_forward("03:00:00")

    row.get_by_text("3 h ago", exact=True).wait_for()
