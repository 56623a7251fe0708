"""`make screenshots` takes a picture of every page of the console."""

import re
from collections.abc import Iterator

from django.contrib import admin
from django.urls import URLPattern, URLResolver, get_resolver, resolve

from hotswap.common.console.pages.base import ConsoleAdmin
from tests.console.conftest import ConsoleClient, Scene
from tests.screenshots import HTML, find_paths

# Parts of pages, and what only sends somebody on.
PIECES = re.compile(
    r"(live|charts|log|health|device-table|timeline|chain|adoption|bell|search"
    r"|autocomplete|jsi18n|view_on_site|app_list|password_change(_done)?|logout)$"
)
FILES = re.compile(
    r"(evidence|export(_list)?|export-signed-\w+|_devices|_keys|_sbom|[_-]data)$"
)
# Forms of a single button.
BUTTONS = re.compile(r"(end-login|revoke-token)$")
# Of somebody who is not logged in yet, or has or gets a second factor; of the demo.
ELSEWHERE = re.compile(r"(account|mfa|socialaccount|openid_connect)_\w+|login|mailbox")
# Of a deployment that is scheduled, and of a dynamic group: forms as those of new ones.
LIKE_ANOTHER = {"deployments_deployment_edit", "devices_devicegroup_edit-rule"}


def names_below(resolver: URLResolver, start: str, prefix: str = "") -> Iterator[str]:
    """Yield the names of the addresses below one."""
    for each in resolver.url_patterns:
        path = f"{prefix}{each.pattern}"
        if isinstance(each, URLResolver):
            yield from names_below(each, start, path)
        elif isinstance(each, URLPattern) and each.name and path.startswith(start):
            yield each.name


def test_links_lead_to_every_page(admin_client: ConsoleClient, scene: Scene) -> None:
    def read(path: str) -> str | None:
        answer = admin_client.get(path, follow=True)
        is_page = answer.headers["Content-Type"].startswith(HTML)
        return answer.content.decode() if is_page else None

    paths = find_paths(read, "/admin/")
    pictured = {resolve(f"/admin/{path}").url_name for path in paths}
    dialogs = {
        page.url_name(action.name)
        for page in admin.site._registry.values()
        if isinstance(page, ConsoleAdmin)
        for action in page.console_actions
        if action.is_dialog
    }
    others = re.compile("|".join(x.pattern for x in (PIECES, FILES, BUTTONS)))

    missing = {
        name
        for name in names_below(get_resolver(), "admin/")
        if not others.search(name) and not ELSEWHERE.fullmatch(name)
    }
    assert len(paths) > 40
    assert missing - pictured - dialogs - LIKE_ANOTHER == set()
