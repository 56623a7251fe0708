"""A device whose agent is killed while it downloads, as an operator sees it.

In a real browser, with a real agent; nobody reloads a page.
"""

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.console.keyboard import Keyboard
from tests.deployments.agents import (
    AgentDevice,
    direct,
    new_model,
    program,
    running_agents,
)
from tests.deployments.live import LiveAdmin
from tests.live import LiveStack, superuser_url

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

IMAGE_BYTES = 4_000_000
# A hundred seconds for the image, so that it is not over before it is looked at.
PACED = "\nmax_bytes_per_second = 40_000\n"
AN_HOUR_PASSES = """
    UPDATE health_devicestate SET last_seen_at = last_seen_at - interval '1 hour',
        online_until = last_seen_at - interval '50 minutes'
    WHERE device_id = (SELECT id FROM devices_device WHERE device_id = %s)
"""


def let_an_hour_pass(stack: LiveStack, name: str) -> None:
    with psycopg.connect(superuser_url(stack.data_dir)) as database:
        database.execute(AN_HOUR_PASSES, [name])


def test_a_download_that_is_cut_off_is_told_as_it_is(
    live_stack: LiveStack, browser_page: "Page", tmp_path: Path
) -> None:
    page, admin = browser_page, LiveAdmin(live_stack)
    model = new_model(admin)
    former = program("1.0.0", 20_000)
    admin.upload(model, "1.0.0", former)
    new = admin.upload(model, "1.1.0", program("1.1.0", IMAGE_BYTES))
    with running_agents() as start:
        device = AgentDevice(tmp_path / "device", admin, model, former)
        device.config.write_text(device.config.read_text() + PACED)
        start(device)
        deployment = direct(admin, new, device.name)
        target = f"/deployments/{deployment}/devices/{device.name}"
        page.goto(
            f"{live_stack.url}/admin/login/"
            f"?next=/admin/deployments/deployment/{deployment}/change/"
        )
        Keyboard(page).log_in(live_stack)
        row = page.locator("#hs-device-rows tr", has_text=device.name)
        row.get_by_text(re.compile(r"Downloading\s+[1-9]\d? %")).wait_for()
        row.get_by_text(
            re.compile(r"the device, which is downloading; last heard at [\d:]{8} UTC")
        ).wait_for()
        # Its own page, beside that of the deployment.
        own = page.context.new_page()
        own.goto(f"{live_stack.url}{row.get_by_role('link').get_attribute('href')}")
        state, updates = own.locator("#hs-state"), own.locator("#hs-device-updates")
        state.get_by_text("Online").wait_for()
        updates.get_by_text("downloading").first.wait_for()

        os.kill(start.pid_of(device), signal.SIGKILL)
        start.running[device.name].wait()
        cut_off_at = admin.get(target)["progressPercentage"]
        let_an_hour_pass(live_stack, device.name)

        row.get_by_text(
            re.compile(
                "the device, which is offline: it was downloading when it was last "
                r"heard, at [\d:]{8} UTC"
            )
        ).wait_for()
        row.get_by_text(f"{cut_off_at:.0f} %").wait_for()
        live = page.locator("#hs-live")
        live.locator(".hs-badge", has_text="Running").first.wait_for()
        state.get_by_text("Offline").wait_for()
        own.locator("#hs-device-now").get_by_text("1 h ago").first.wait_for()
        assert admin.get(target)["status"] == "downloading"

        device.config.write_text(device.config.read_text().removesuffix(PACED))
        start(device)

        state.get_by_text("Online").wait_for()
        live.locator(".hs-badge", has_text="Completed").first.wait_for()
        row.get_by_text("Success").wait_for()
        updates.get_by_text("success").first.wait_for()
        own.locator("#hs-device-now").get_by_text("1.1.0", exact=True).wait_for()
        # It went on where it was.
        log = (device.folder / "agent.log").read_text()
        assert re.search(r'"fromByte": [1-9]', log)
