"""The frame of every page: landmarks, the way in the title, roles, the manual."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin

import pytest
from django.conf import settings
from django.urls import reverse

from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.roles import Role
from hotswap.console.manual import anchor_of, known_files
from tests.console.conftest import ConsoleClient, Scene

BLOCKED = re.compile(r"<span>([\w ]+)</span><small>needs (\w+)</small>")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def pages() -> list[ConsoleAdmin]:
    from django.contrib import admin

    return [x for x in admin.site._registry.values() if isinstance(x, ConsoleAdmin)]


def test_the_content_is_a_landmark_that_a_key_leads_to(
    viewer_client: ConsoleClient,
) -> None:
    shown = viewer_client.get("/admin/devices/device/").content.decode()

    assert shown.index('class="hs-skip" href="#hs-main"') < shown.index("<nav")
    assert shown.count("<main") == 1
    assert shown.count('<main id="hs-main"') == 1
    assert shown.count("<header>") == 1
    assert 'aria-label="Main"' in shown


def test_the_title_of_a_page_is_the_name_of_its_object(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    url = f"/admin/devices/device/{scene.device.pk}/change/"

    shown = viewer_client.get(url).content.decode()

    assert f'<h1 class="hs-page-title">{scene.device.device_id}</h1>' in shown
    crumbs = shown[shown.index('aria-label="Breadcrumb"') :].partition("</nav>")[0]
    assert re.findall(r">([\w ]+)</a>", crumbs) == ["Home", "Devices"]


def test_the_sidebar_shows_what_another_role_may_see_and_names_it(
    log_in: Callable[..., ConsoleClient],
) -> None:
    def blocked(role: Role) -> dict[str, str]:
        return dict(BLOCKED.findall(log_in(role).get("/admin/").content.decode()))

    assert blocked(Role.VIEWER)["Launch"] == "Operator"
    assert blocked(Role.VIEWER)["Audit"] == "Admin"
    assert "Launch" not in blocked(Role.OPERATOR)
    assert blocked(Role.OPERATOR)["Webhooks"] == "Admin"
    assert blocked(Role.ADMIN) == {}


@pytest.mark.parametrize("kind", ["list", "page", "action"])
def test_a_refusal_is_framed_and_names_the_role(
    operator_client: ConsoleClient, scene: Scene, kind: str
) -> None:
    paths = {
        "list": "common/auditevent/",
        "page": f"common/user/{scene.person.pk}/change/",
        "action": f"devices/device/{scene.device.pk}/erase/",
    }

    answer = operator_client.get(f"/admin/{paths[kind]}")

    assert answer.status_code == 403
    shown = answer.content.decode()
    assert "this needs the role Admin" in shown
    assert 'id="nav-sidebar"' in shown


def test_what_is_not_there_is_said_within_the_frame(
    viewer_client: ConsoleClient, client: ConsoleClient
) -> None:
    framed = viewer_client.get("/admin/nowhere/at/all/")
    bare = client.get("/nowhere/")

    assert (framed.status_code, bare.status_code) == (404, 404)
    assert 'id="nav-sidebar"' in framed.content.decode()
    assert "nav-sidebar" not in bare.content.decode()
    assert "There is no such page" in bare.content.decode()


def test_pages_travel_compressed_and_answers_to_programs_do_not(
    viewer_client: ConsoleClient,
) -> None:
    accepting = {"Accept-Encoding": "gzip, br"}

    plain = viewer_client.get("/admin/devices/device/")
    packed = viewer_client.get("/admin/devices/device/", headers=accepting)
    answer = viewer_client.get("/api/v1/devices", headers=accepting)

    assert "Content-Encoding" not in plain
    assert packed["Content-Encoding"] == "gzip"
    assert len(packed.content) < len(plain.content) / 3
    assert b"hs-page-title" in gzip.decompress(packed.content)
    assert "Content-Encoding" not in answer


def test_the_description_of_the_api_says_its_language(
    viewer_client: ConsoleClient,
) -> None:
    shown = viewer_client.get("/api/v1/docs").content.decode()

    assert '<html lang="en">' in shown
    assert "/api/v1/docs" in viewer_client.get("/admin/").content.decode()


# --- The manual ---------------------------------


def test_every_page_of_the_manual_is_shown(viewer_client: ConsoleClient) -> None:
    index = viewer_client.get("/admin/help/").content.decode()
    names = [name for name in known_files() if name.endswith(".md")]

    for name in names:
        answer = viewer_client.get(reverse("manual", args=[name]))
        assert answer.status_code == 200, name
        assert f'href="/admin/help/{name}"' in index
    assert len(names) > 20


def test_the_manual_gives_out_nothing_else(viewer_client: ConsoleClient) -> None:
    for name in (
        "../README.md",
        "..%2fpyproject.toml",
        "examples/nginx.conf",
        "/etc/passwd",
    ):
        assert viewer_client.get(f"/admin/help/{name}").status_code == 404, name


def test_links_of_the_manual_lead_to_its_pages_alone(
    viewer_client: ConsoleClient,
) -> None:
    for name in [name for name in known_files() if name.endswith(".md")]:
        url = reverse("manual", args=[name])
        shown = viewer_client.get(url).content.decode()
        article = shown[shown.index("hs-manual") :].partition("</article>")[0]
        for target in re.findall(r'href="([^"#]+)', article):
            found = viewer_client.get(urljoin(url, target))
            assert found.status_code == 200, (name, target)


def test_every_list_has_a_page_of_the_manual(viewer_client: ConsoleClient) -> None:
    folder = Path(settings.BASE_DIR) / "docs"

    for page in pages():
        name, _, anchor = page.help_page.partition("#")
        assert name in known_files(), page
        headings = HEADING.findall((folder / name).read_text())
        assert not anchor or anchor in map(anchor_of, headings), page.help_page
    shown = viewer_client.get("/admin/devices/devicegroup/").content.decode()
    assert 'href="/admin/help/devices.md#groups"' in shown
