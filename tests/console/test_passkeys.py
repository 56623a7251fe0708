"""Passkeys, with an authenticator that the browser plays."""

import re
import subprocess
import sys
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.browser import BROKEN_OFF
from tests.live import PROJECT_DIR, LiveStack, clean_environment

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
PASSWORD = "a-l0ng-enough-phrase"
MAKE = """
from hotswap.common.people import create_person
from hotswap.common.roles import Role
create_person(username={name!r}, password={password!r}, role=Role.ADMIN, actor=None)
"""
AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


def test_a_passkey_is_set_up_and_opens_the_console_alone(
    live_stack: LiveStack, browser_page: "Page"
) -> None:
    name = f"ada-{uuid4().hex[:8]}"
    code = MAKE.format(name=name, password=PASSWORD)
    subprocess.run(
        [sys.executable, "-m", "hotswap.cli.main", "manage", "shell", "-c", code],
        cwd=PROJECT_DIR,
        env=clean_environment() | {"HOTSWAP_DATA_DIR": str(live_stack.data_dir)},
        check=True,
        timeout=120,
    )
    # Browsers take a name for a passkey, and no address.
    site = live_stack.url.replace("127.0.0.1", "localhost")
    page = browser_page
    protocol = page.context.new_cdp_session(page)
    protocol.send("WebAuthn.enable")
    protocol.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})
    complaints: list[str] = []
    page.on(
        "console",
        lambda message: (
            complaints.append(message.text)
            if message.type == "error" and not message.text.startswith(BROKEN_OFF)
            else None
        ),
    )

    page.goto(f"{site}/admin/account/factors/webauthn/add/")
    page.fill("[name=username]", name)
    page.fill("[name=password]", PASSWORD)
    page.get_by_role("button", name="Log in", exact=True).click()
    page.get_by_label("Passwordless").check()
    page.click("#mfa_webauthn_add")
    page.wait_for_url("**/recovery-codes/")
    page.context.clear_cookies()

    page.goto(f"{site}/admin/login/")
    page.click("#passkey_login")

    page.wait_for_url(re.compile(r".*/admin/$"))
    assert complaints == []
