"""The first minutes of an operator, in a real browser against a running server.

They are told with the keyboard alone, as those in `test_keyboard_stories.py`.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.console.keyboard import Keyboard
from tests.deployments.agents import new_model
from tests.deployments.live import LiveAdmin, living
from tests.live import LiveStack

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request

pytestmark = pytest.mark.browser


def test_an_operator_launches_and_sees_it_move(
    live_stack: LiveStack, browser_page: "Page"
) -> None:
    page, site = browser_page, live_stack.url
    admin, keys = LiveAdmin(live_stack), Keyboard(browser_page)
    model = new_model(admin)
    old = admin.upload(model, "1.0.0", b"old image" * 100)
    new = admin.upload(model, "1.1.0", b"new image" * 100)
    devices = admin.register(model, 2, old)
    for device in devices:
        device.beat()
    page.goto(f"{site}/admin/login/?next=/admin/firmware/firmware/{new['id']}/change/")
    keys.log_in(live_stack)

    # From the firmware to a launch that is filled in; the preview follows the form.
    keys.skip_to_content()
    keys.go("#action-launch")
    page.get_by_role("button", name="Launch canary on 2 devices").wait_for()
    keys.skip_to_content()
    # An arrow chooses the next strategy, and the other the former one.
    keys.reach("[name=strategy]:checked")
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Launch regional on 2 devices").wait_for()
    page.keyboard.press("ArrowLeft")
    keys.write("[name=initialPercentage]", "50")
    keys.write("[name=increments]", "")
    keys.write("[name=waitDuration]", "1 s")
    page.locator("#hs-result").get_by_text("1. 50 %: 1 device").wait_for()
    keys.go("summary", "Proof of a device")
    keys.write("[name=healthCriteria_confirmationDuration]", "1 s")
    keys.write("[name=healthCriteria_watchDuration]", "a while")
    wrong = page.locator("#hs-result").get_by_text("is no duration")
    wrong.wait_for()
    keys.rewrite("1 s")
    wrong.wait_for(state="detached")
    page.get_by_role("button", name="Launch canary on 2 devices").wait_for()

    # Kept as a template, beside the preview, which stays.
    keys.go("summary", "Save as template")
    keys.write("[name=templateName]", model)
    keys.go("#hs-template button", "Save as template")
    page.get_by_text(f"The template {model} is saved.").wait_for()

    # What is confirmed stays so while the same is previewed.
    keys.write("#hs-result [name=typed]", "2")
    keys.go("#hs-launch")

    # Its page moves by itself: nobody reloads it.
    live = page.locator("#hs-live")
    live.wait_for()
    # Paused with a reason, it says what still happens; and it goes on.
    for action, badge in (("pause", "Paused"), ("resume", "Running")):
        keys.skip_to_content()
        keys.go(f"#action-{action}")
        keys.write("#hs-dialog [name=reason]", f"lunch: {action}")
        keys.go("#hs-dialog button[type=submit]")
        live.locator(".hs-badge", has_text=badge).first.wait_for()

    by_itself: list[dict[str, str]] = []

    def note(request: "Request") -> None:
        # Not the files of the page, which may still be on their way.
        if request.resource_type in ("xhr", "fetch"):
            by_itself.append(request.headers)

    page.on("request", note)
    page.get_by_text("No device has been given the order yet.").wait_for()

    with living(devices):
        live.locator(".hs-badge", has_text="Completed").first.wait_for()
    live.get_by_text("2 of 2").first.wait_for()
    # What it asks by itself keeps no login alive.
    assert by_itself
    assert [each for each in by_itself if "x-hotswap-background" not in each] == []

    # Its devices by status and name, its log by text.
    table = page.locator("#hs-device-table")
    keys.reach("#hs-device-table [type=radio]:checked")
    updated = table.locator("label", has_text=re.compile("^Updated")).locator("input")
    for _ in range(table.locator("[type=radio]").count()):
        if updated.is_checked():
            break
        page.keyboard.press("ArrowRight")
    assert updated.is_checked()
    table.get_by_role("link", name=devices[0].name, exact=True).wait_for()
    keys.write("#hs-device-table [type=search]", devices[1].name)
    table.get_by_role("link", name=devices[0].name, exact=True).wait_for(
        state="detached"
    )
    table.get_by_role("link", name=devices[1].name, exact=True).wait_for()
    log = page.locator("#hs-log-card")
    keys.write("#hs-log-card [type=search]", "deployment completed")
    log.get_by_text("Device updated").first.wait_for(state="detached")
    log.get_by_text("Deployment completed").wait_for()

    # The overview knows of it, and draws its charts.
    page.goto(f"{site}/admin/")
    page.locator("#hs-overview").get_by_role("link", name=model, exact=True).wait_for()
    page.locator("#hs-overview-charts canvas").first.wait_for()


def test_an_operator_retries_what_failed_and_takes_the_report_along(
    live_stack: LiveStack, browser_page: "Page"
) -> None:
    page, admin, keys = browser_page, LiveAdmin(live_stack), Keyboard(browser_page)
    model = new_model(admin)
    old = admin.upload(model, "1.0.0", b"old image" * 100)
    new = admin.upload(model, "1.1.0", b"new image" * 100)
    good, full = devices = admin.register(model, 2, old)
    for device in devices:
        device.beat()
    deployment = admin.post(
        "/deployments",
        {
            "firmwareId": new["id"],
            "strategy": "Direct",
            "targetAll": True,
            "healthThreshold": 50,
            "maxAttempts": 1,
            "healthCriteria": {
                "confirmationDuration": "PT1S",
                "heartbeatsRequired": 1,
                "watchDuration": "PT1S",
            },
        },
    )
    page.goto(
        f"{live_stack.url}/admin/deployments/deployment/{deployment['id']}/change/"
    )
    keys.log_in(live_stack)
    live = page.locator("#hs-live")
    # The gate counts those that have been given the order.
    good.wait_for_order()
    full.fail("disk_full")
    with living([good]):
        live.locator(".hs-badge", has_text="Completed, 1 failed").first.wait_for()

    # Why it failed, what to do next, and the same order once more.
    live.locator("code", has_text="disk_full").first.wait_for()
    keys.skip_to_content()
    keys.go("#action-retry-failed")
    page.locator("#hs-dialog").get_by_text("1 device that failed").wait_for()
    keys.write("#hs-dialog [name=reason]", "room was made")
    keys.go("#hs-dialog button[type=submit]")
    with living(devices):
        live.get_by_text("2 of 2").first.wait_for()

    # The report as a file.
    keys.skip_to_content()
    keys.go("a", "Health report")
    page.locator("#hs-report").wait_for()
    keys.skip_to_content()
    with page.expect_download() as download:
        keys.go("a", "CSV")
    rows = Path(download.value.path()).read_text("utf-8-sig").splitlines()
    assert sorted(row.split(",")[0] for row in rows[1:]) == [x.name for x in devices]


def test_a_page_says_when_the_server_has_ceased_to_answer(
    live_stack: LiveStack, browser_page: "Page"
) -> None:
    page, site = browser_page, live_stack.url
    page.goto(f"{site}/admin/")
    page.fill("[name=username]", live_stack.admin_username)
    page.fill("[name=password]", live_stack.admin_password)
    page.click("[type=submit]")
    page.locator("#hs-overview").wait_for()
    place = "**/admin/overview/live/"

    page.route(place, lambda route: route.abort())
    page.get_by_text("these numbers are old").wait_for()
    page.unroute(place)
    page.get_by_text("these numbers are old").wait_for(state="hidden")
