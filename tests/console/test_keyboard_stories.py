"""The first minutes of an admin and of an engineer, told with the keyboard alone.

That of an operator is in `test_operator_story.py`, by the keyboard as well.
"""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.console.keyboard import HAS_FOCUS, Keyboard
from tests.deployments.agents import (
    QUICK_CRITERIA,
    AgentDevice,
    new_model,
    running_agents,
)
from tests.deployments.live import LiveAdmin, living
from tests.devices.agent.device_process import GOOD_PROGRAM
from tests.live import LiveStack

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytestmark = pytest.mark.browser


def test_an_admin_approves_what_waits_and_finds_it_in_the_audit(
    live_stack: LiveStack, browser_page: "Page"
) -> None:
    page, admin, keys = browser_page, LiveAdmin(live_stack), Keyboard(browser_page)
    model = new_model(admin)
    draft = admin.client.post(
        "/firmware",
        files={"file": ("image", b"an image that waits")},
        data={"model": model, "version": "3.1.4"},
    ).json()
    page.goto(f"{live_stack.url}/admin/")
    keys.log_in(live_stack)

    # What waits is on the overview, and leads to the queue and to the image.
    keys.go("#hs-overview a", "of firmware to be approved")
    page.wait_for_url("**/firmware/approvalrequest/**")
    keys.skip_to_content()
    keys.go(f'#result_list a[href*="{draft["id"]}"]')
    page.get_by_text(draft["checksum"]).first.wait_for()
    keys.skip_to_content()

    # The dialog takes the focus, and gives it back when it is left.
    keys.go("#action-approve")
    dialog = page.locator("#hs-dialog")
    dialog.get_by_text(model).first.wait_for()
    page.keyboard.press("Escape")
    page.wait_for_function("document.activeElement.id === 'action-approve'")
    page.keyboard.press("Enter")
    dialog.locator("[name=comment]").wait_for()
    keys.write("#hs-dialog [name=comment]", "ran for a week on the bench")
    keys.go("#hs-dialog button[type=submit]")
    page.locator(".hs-badge", has_text="Approved").first.wait_for()

    # From everywhere to the audit trail, which says so.
    keys.find("audit", "Audit")
    page.wait_for_url("**/common/auditevent/")
    page.locator("#searchbar").wait_for()
    page.keyboard.press("/")
    page.wait_for_function("document.activeElement.id === 'searchbar'")
    page.keyboard.type(f"3.1.4 {live_stack.admin_username}")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=3.1.4**")
    page.get_by_text("ran for a week on the bench").first.wait_for()


def test_an_admin_sees_a_bad_image_go_back_and_reads_why(
    live_stack: LiveStack, browser_page: "Page"
) -> None:
    page, admin, keys = browser_page, LiveAdmin(live_stack), Keyboard(browser_page)
    model = new_model(admin)
    old = admin.upload(model, "2.5.0", b"good image" * 100)
    bad = admin.upload(model, "2.6.0", b"bad image" * 100)
    recipient = admin.post(
        "/mail-recipients",
        {"address": f"{model}@example.com", "events": ["deployment.rolled_back"]},
    )
    updated, broken = devices = admin.register(model, 2, old)
    for device in devices:
        device.beat()
    deployment = admin.post(
        "/deployments",
        {
            "firmwareId": bad["id"],
            "strategy": "Direct",
            "targetAll": True,
            "maxAttempts": 1,
            **QUICK_CRITERIA,
        },
    )
    page.goto(
        f"{live_stack.url}/admin/deployments/deployment/{deployment['id']}/change/"
    )
    keys.log_in(live_stack)
    live = page.locator("#hs-live")
    live.locator(".hs-badge", has_text="Running").first.wait_for()

    # One device cannot run it; the page says so by itself, and that the other is back.
    with living([updated]):
        live.get_by_text("1 of 2").first.wait_for()
        broken.fail("self_test_failed")
        live.locator(".hs-badge", has_text="Rolled back").first.wait_for()
    assert updated.version == "2.5.0"
    live.locator("code", has_text="self_test_failed").first.wait_for()

    # The report: what tripped, and the numbers of that moment.
    keys.skip_to_content()
    keys.go("a", "Health report")
    page.locator("#hs-report").get_by_text("At that moment").first.wait_for()
    page.locator("#hs-report").get_by_text("1 of 2 devices").first.wait_for()

    # Who was told of it.
    keys.find("deliveries", "Deliveries")
    page.wait_for_url("**/deployments/delivery/")
    page.locator("#result_list tr", has_text=recipient["address"]).filter(
        has_text="Deployment rolled back"
    ).first.wait_for()
    assert admin.client.delete(f"/mail-recipients/{recipient['id']}").is_success


def test_a_part_that_is_replaced_leaves_the_focus_where_it_is(
    live_stack: LiveStack, browser_page: "Page"
) -> None:
    page, keys = browser_page, Keyboard(browser_page)

    def ask_anew(route: "Route") -> None:
        headers = route.request.headers
        headers.pop("if-none-match", None)
        route.continue_(headers=headers)

    page.route("**/admin/overview/live/", ask_anew)
    page.goto(f"{live_stack.url}/admin/")
    keys.log_in(live_stack)
    keys.reach("#hs-overview .hs-number", "online")

    for _ in range(2):
        page.evaluate("document.getElementById('hs-overview').dataset.old = '1'")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.locator("#hs-overview:not([data-old])").wait_for()
        page.wait_for_function(HAS_FOCUS, arg=["#hs-overview .hs-number", "online", ""])


def test_an_engineer_registers_a_device_and_copies_what_it_needs(
    live_stack: LiveStack, browser_page: "Page"
) -> None:
    page, keys = browser_page, Keyboard(browser_page)
    model = new_model(LiveAdmin(live_stack))
    name = f"key-{secrets.token_hex(4)}"
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{live_stack.url}/admin/devices/device/")
    keys.log_in(live_stack)

    def copied() -> str:
        return str(page.evaluate("navigator.clipboard.readText()"))

    # The list gives the same as a call of the API.
    page.locator("#changelist").wait_for()
    keys.go('[data-hs-copy^="curl "]')
    page.wait_for_function(
        "navigator.clipboard.readText().then((text) => text.startsWith('curl '))"
    )
    assert f"{live_stack.url}/api/v1/devices" in copied()

    # A new device, and the one command that connects it.
    keys.go("#action-register")
    page.locator("[name=deviceId]").wait_for()
    keys.skip_to_content()
    keys.write("[name=deviceId]", name)
    keys.reach("[name=model]")
    page.keyboard.type(model)
    keys.go("form button[type=submit]", "Register device")
    page.get_by_text("the only time the key is shown").wait_for()
    keys.skip_to_content()
    keys.go("button[data-hs-copy]", label="Copy the command")
    page.wait_for_function(
        "(name) => navigator.clipboard.readText().then((text) => text.includes(name))",
        arg=name,
    )
    assert "hotswap-agent" in copied()
    keys.go("a", "To the device")
    page.wait_for_url("**/devices/device/*/change/")

    # The protocol is a page of the console.
    keys.find("manual", "Manual")
    page.wait_for_url("**/help/")
    keys.skip_to_content()
    keys.go("a", "agent")
    page.wait_for_url("**/help/*.md")
    page.locator(".hs-manual h2").first.wait_for()


def test_an_engineer_spoils_a_download_and_sees_which_check_refused_it(
    live_stack: LiveStack, browser_page: "Page", tmp_path: Path
) -> None:
    page, admin, keys = browser_page, LiveAdmin(live_stack), Keyboard(browser_page)
    model, image = new_model(admin), GOOD_PROGRAM.encode()
    admin.upload(model, "1.0.0", image)
    new = admin.upload(model, "1.1.0", image + b"# 1.1.0\n")
    device = AgentDevice(tmp_path / "device", admin, model, image)

    with running_agents() as start:
        start(device, "--corrupt")
        page.goto(f"{live_stack.url}/admin/devices/device/?q={device.name}")
        keys.log_in(live_stack)
        deployment = admin.post(
            "/deployments",
            {
                "firmwareId": new["id"],
                "strategy": "Direct",
                "targetAll": True,
                "maxAttempts": 1,
                **QUICK_CRITERIA,
            },
        )
        page.goto(
            f"{live_stack.url}/admin/deployments/deployment/{deployment['id']}/change/"
        )
        live = page.locator("#hs-live")
        live.locator("code", has_text="checksum_mismatch").first.wait_for()
        live.locator(".hs-badge", has_text="Failed").first.wait_for()
        assert device.running_image() == image


def test_the_search_has_the_focus_however_late_it_is_shown(
    live_stack: LiveStack, browser_page: "Page"
) -> None:
    page, keys = browser_page, Keyboard(browser_page)
    # Alpine shows it with the next frame, which a busy machine draws late.
    page.add_init_script(
        "window.requestAnimationFrame = (draw) => setTimeout(draw, 500)"
    )
    page.goto(f"{live_stack.url}/admin/")
    keys.log_in(live_stack)

    keys.find("manual", "Manual")

    page.wait_for_url("**/help/")
