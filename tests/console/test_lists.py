"""Lists: their filters, pages, rows that are selected, and what they weigh."""

import gzip
import re
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib import admin
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import Resolver404, resolve

from deployments.models import Target
from devices.console.pages.device import DeviceAdmin
from devices.models import Device, DeviceGroup, SavedFilter
from devices.services.registry import change_device
from devices.services.saved_filters import save_filter
from hotswap.common.console import paginator
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.models import AuditEvent
from tests.console.conftest import ConsoleClient, Scene
from tests.devices.factories import DeviceFactory, GroupFactory
from tests.live import PROJECT_DIR

if TYPE_CHECKING:
    from playwright.sync_api import Page

DEPLOYMENTS = "/admin/deployments/deployment/"
DEVICES = "/admin/devices/device/"
MAX_QUERIES = 30
MAX_BYTES = 150_000
MAX_PLAIN_BYTES = 120_000


def listed(client: ConsoleClient, query: str) -> list[str]:
    """Return the devices that the list shows."""
    rows = client.get(f"{DEVICES}?{query}").context["cl"].result_list
    return [row.device_id for row in rows]


@pytest.fixture
def fleet(scene: Scene) -> Scene:
    """Tag one of the four devices of the scene, and put it elsewhere."""
    change_device(
        actor=scene.world.admin,
        device_id="d-001",
        changes={"tags": {"site": "plant-7", "line": "a b"}, "region": "APAC"},
        acknowledged=True,
    )
    return scene


def test_devices_are_sorted_by_what_an_index_sorts(
    fleet: Scene, admin_client: ConsoleClient
) -> None:
    """By region, say, a page of a million devices would take them all."""
    by_id = ["d-000", "d-001", "d-002", "d-003"]
    region = DeviceAdmin.list_display.index("region")

    assert listed(admin_client, "o=0") == by_id
    assert listed(admin_client, "o=-0") == by_id[::-1]
    with CaptureQueriesContext(connection) as queries:
        assert sorted(listed(admin_client, f"o={region}")) == by_id
    assert not [
        each["sql"]
        for each in queries
        if re.search(r'ORDER BY[^)]*"region"', each["sql"])
    ]
    page = admin_client.get(DEVICES).content.decode()
    assert set(re.findall(r"[?&;]o=-?(\d+)", page)) == {"0"}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("tag=site:plant-7", ["d-001"]),
        ("tag=site: plant-7, line:a b", ["d-001"]),
        ("tag=site:plant-8", []),
        ("tag=plant-7", []),
        ("version=1.0.0", ["d-000", "d-001", "d-002", "d-003"]),
        ("version=1.0", []),
        ("region=APAC", ["d-001"]),
        ("group=nonsense", []),
        ("quarantined=yes", ["d-000"]),
        ("outcome=failed", []),
    ],
)
def test_devices_are_filtered(
    viewer_client: ConsoleClient, fleet: Scene, query: str, found: list[str]
) -> None:
    assert listed(viewer_client, query) == found


def test_devices_are_filtered_by_group(
    viewer_client: ConsoleClient, fleet: Scene
) -> None:
    assert listed(viewer_client, f"group={fleet.group.pk}") == ["d-000"]


def test_devices_are_filtered_by_how_their_newest_deployment_went(
    viewer_client: ConsoleClient, fleet: Scene
) -> None:
    status = Target.objects.get(device__device_id="d-002").status

    assert "d-002" in listed(viewer_client, f"outcome={status}")
    shown = viewer_client.get(DEVICES).content.decode()
    assert f">{fleet.deployment}</a>" in shown


def test_a_status_has_the_same_word_in_filters_lists_and_pages(
    viewer_client: ConsoleClient, fleet: Scene
) -> None:
    target = Target.objects.get(device__device_id="d-002")

    lists = viewer_client.get(DEVICES), viewer_client.get(DEPLOYMENTS)
    device = viewer_client.get(f"{DEVICES}{target.device_id}/change/")

    texts = [page.content.decode() for page in (*lists, device)]
    assert not [text for text in texts if "Rolled Back" in text]
    for text in texts[:2]:
        assert ">Rolled back</option>" in re.sub(r"\s*(</?option)", r"\1", text)
    assert '<span class="hs-hint">Not started</span>' in texts[0]
    assert ">Pending<" not in texts[2]
    assert "Not started" in texts[2]


def test_what_is_filtered_by_is_shown_and_can_be_taken_away(
    viewer_client: ConsoleClient, fleet: Scene
) -> None:
    shown = viewer_client.get(f"{DEVICES}?region=APAC&tag=site:plant-7").content
    chips = re.findall(r'class="hs-chip" href="([^"]+)"', shown.decode())

    assert chips == ["?tag=site%3Aplant-7", "?region=APAC"]
    assert 'class="hs-chip"' not in viewer_client.get(DEVICES).content.decode()


def test_a_list_says_how_many_rows_it_has(
    viewer_client: ConsoleClient, fleet: Scene
) -> None:
    assert "1–4 of 4 devices" in viewer_client.get(DEVICES).content.decode()


def test_where_counting_is_dear_the_number_is_an_estimate_and_every_page_can_be_read(
    viewer_client: ConsoleClient, fleet: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paginator, "CHEAP_COST", 0)

    monkeypatch.setattr(DeviceAdmin, "list_per_page", 2)

    first = viewer_client.get(DEVICES)
    second = viewer_client.get(f"{DEVICES}?p=2")
    far = viewer_client.get(f"{DEVICES}?p=1000")

    assert "about " in first.content.decode()
    assert len(first.context["cl"].result_list) == 2
    assert len(second.context["cl"].result_list) == 2
    assert (far.status_code, list(far.context["cl"].result_list)) == (200, [])
    assert "Nothing is on this page" in far.content.decode()


def test_where_the_last_page_is_shown_the_number_is_known(
    viewer_client: ConsoleClient, fleet: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paginator, "CHEAP_COST", 0)

    shown = viewer_client.get(DEVICES)

    assert "1–4 of 4 devices" in shown.content.decode()
    assert len(shown.context["cl"].result_list) == 4


def test_only_what_is_not_as_usual_is_marked(
    viewer_client: ConsoleClient, fleet: Scene
) -> None:
    change_device(
        actor=fleet.world.admin, device_id="d-003", changes={"enabled": False}
    )

    shown = viewer_client.get(DEVICES).content.decode()

    assert shown.count("updates disabled") == 1


# --- On a phone ---------------------------------


def test_every_column_that_has_a_place_on_a_phone_is_one_of_its_list(
    admin_client: ConsoleClient, scene: Scene
) -> None:
    for page in console_pages():
        row = page.narrow_row
        columns = admin_client.get(page.list_url()).context["cl"].list_display
        names = {each if isinstance(each, str) else each.__name__ for each in columns}
        placed = [*row.first, *row.left_out, *row.titled]

        assert set(placed) <= names, page
        assert len(placed) == len(set(placed)), page


@pytest.mark.browser
def test_a_device_takes_two_lines_of_a_phone(
    viewer_client: ConsoleClient, fleet: Scene, browser_page: "Page"
) -> None:
    """The first has its id and state, so that 50 of them are found by scrolling."""
    page = browser_page
    page.set_viewport_size({"width": 390, "height": 844})

    page.set_content(viewer_client.get(DEVICES).content.decode())
    page.add_style_tag(content=(PROJECT_DIR / "static/hotswap/console.css").read_text())
    row = page.locator("#result_list tbody tr").filter(has_text="d-001")
    whole, name, state = row.evaluate(
        "(row) => [row, row.querySelector('th a'), row.querySelector('.hs-badge')]"
        ".map((each) => each.getBoundingClientRect().toJSON())"
    )
    model = row.get_by_text(fleet.model.name, exact=True).evaluate(
        "(cell) => cell.getBoundingClientRect().toJSON()"
    )

    assert abs(state["top"] - name["top"]) < name["height"]
    assert state["left"] > name["right"]
    assert model["top"] >= name["bottom"] - 1
    assert whole["bottom"] - model["bottom"] < model["height"]


# --- Rows that are selected ---------------------------------


def test_selected_devices_are_put_into_a_group(
    operator_client: ConsoleClient, fleet: Scene
) -> None:
    group = GroupFactory.create(name="pilot")
    url = f"{DEVICES}add-to-group/"

    form = operator_client.get(f"{url}?deviceIds=d-001&deviceIds=d-002")
    answer = operator_client.post(
        url, {"group": str(group.pk), "device_ids": "d-001\nd-002"}
    )

    assert "d-001\nd-002" in form.content.decode()
    assert answer.status_code == 302
    members = group.members.values_list("device_id", flat=True)
    assert sorted(members) == ["d-001", "d-002"]


def test_selected_devices_are_tagged_and_keep_their_other_tags(
    operator_client: ConsoleClient, fleet: Scene
) -> None:
    given = {"device_ids": "d-001 d-002", "tags": "line: b\nring: pilot"}

    answer = operator_client.post(f"{DEVICES}tag/", given)

    assert answer.status_code == 302
    tags = dict(Device.objects.values_list("device_id", "tags"))
    assert tags["d-001"] == {"site": "plant-7", "line": "b", "ring": "pilot"}
    assert tags["d-002"] == {"line": "b", "ring": "pilot"}
    assert tags["d-000"] == {}


def test_of_unknown_devices_none_is_tagged(
    operator_client: ConsoleClient, fleet: Scene
) -> None:
    given = {"device_ids": "d-001 nosuch", "tags": "ring: pilot"}

    answer = operator_client.post(f"{DEVICES}tag/", given)

    assert "nosuch" in answer.content.decode()
    assert not Device.objects.filter(tags__has_key="ring").exists()


def test_selected_devices_are_exported_and_that_is_written_down(
    viewer_client: ConsoleClient, fleet: Scene
) -> None:
    answer = viewer_client.get(f"{DEVICES}export/?deviceIds=d-001&deviceIds=d-003")
    lines = b"".join(answer).decode().splitlines()

    assert [line.split(",")[0] for line in lines[1:]] == ["d-001", "d-003"]
    row = AuditEvent.objects.get(verb="devices.exported")
    assert row.actor == viewer_client.person.pseudonym
    assert row.details == {"devices": ["d-001", "d-003"]}


def test_selected_devices_stand_in_the_launch(
    operator_client: ConsoleClient, fleet: Scene
) -> None:
    page = operator_client.get(
        "/admin/deployments/deployment/launch/?deviceIds=d-001&deviceIds=d-002"
    )

    assert "d-001\nd-002" in page.content.decode()


def test_a_viewer_sees_what_selected_devices_could_be_used_for(
    viewer_client: ConsoleClient, fleet: Scene
) -> None:
    shown = viewer_client.get(DEVICES).content.decode()
    selection = shown[shown.index('id="hs-selection"') :].partition("</form>")[0]

    assert selection.count("needs Operator") == 3
    assert "Export CSV" in selection


# --- Filters that are kept ---------------------------------


def test_a_filter_is_kept_by_its_person_alone_and_forgotten(
    viewer_client: ConsoleClient, operator_client: ConsoleClient, fleet: Scene
) -> None:
    given = {"name": "far east", "query": "region=APAC&p=3"}

    form = viewer_client.get(f"{DEVICES}?region=APAC").context["save_filter_url"]
    shown = viewer_client.get(form).content.decode()
    viewer_client.post(f"{DEVICES}save-filter/", given)
    kept = viewer_client.get(DEVICES).context["saved_filters"]
    others = operator_client.get(DEVICES).context["saved_filters"]
    viewer_client.post(f"{DEVICES}remove-filter/", {"name": "far east"})

    assert 'value="region=APAC"' in shown
    assert [(each["name"], each["url"]) for each in kept] == [
        ("far east", "?region=APAC")
    ]
    assert others == []
    assert not SavedFilter.objects.exists()


def test_a_person_keeps_fifty_filters(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    for number in range(50):
        save_filter(user=viewer_client.person, name=str(number), query="region=EU")

    one_more = viewer_client.post(
        f"{DEVICES}save-filter/", {"name": "more", "query": "region=EU"}
    )
    again = viewer_client.post(
        f"{DEVICES}save-filter/", {"name": "7", "query": "region=APAC"}
    )

    assert "50 filters are saved" in one_more.content.decode()
    assert again.status_code == 302
    assert SavedFilter.objects.get(name="7").query == "region=APAC"


# --- What they weigh, and the same over the API ---------------------------------


def console_pages() -> list[ConsoleAdmin]:
    return [x for x in admin.site._registry.values() if isinstance(x, ConsoleAdmin)]


@pytest.fixture
def many(scene: Scene) -> Scene:
    """Fill a page of devices, and what hangs on them."""
    DeviceFactory.create_batch(60, model_name=scene.model.name)
    for number in range(30):
        GroupFactory.create(name=f"group-{number}")
    assert DeviceGroup.objects.count() > 30
    return scene


def test_every_list_and_every_page_is_light(
    admin_client: ConsoleClient, many: Scene
) -> None:
    paths = {page.list_url() for page in console_pages()}
    for page in console_pages():
        if page.page_template:
            first = page.model._default_manager.first()
            assert first is not None, page
            paths.add(page.page_url(first))
    paths |= {"/admin/", "/admin/system/", "/admin/system/retention/", "/admin/help/"}
    heavy: dict[str, Any] = {}

    for path in sorted(paths):
        admin_client.get(path)
        with CaptureQueriesContext(connection) as captured:
            answer = admin_client.get(path, headers={"Accept-Encoding": "gzip"})
        assert answer.status_code == 200, path
        packed = len(answer.content)
        plain = len(gzip.decompress(answer.content))
        if len(captured) > MAX_QUERIES or packed > MAX_BYTES or plain > MAX_PLAIN_BYTES:
            heavy[path] = (len(captured), packed, plain)

    assert heavy == {}


def test_the_call_that_a_page_gives_is_one_of_the_api(
    admin_client: ConsoleClient, scene: Scene
) -> None:
    for page in console_pages():
        if not page.api_path:
            continue
        calls = [admin_client.get(page.list_url()).context["api_call"]]
        if page.api_field:
            rows = page.model._default_manager.all()[:1]
            calls += [
                admin_client.get(page.page_url(row)).context["api_call"] for row in rows
            ]
        for call in calls:
            path = re.sub(r".*http://testserver", "", call).rstrip("'")
            try:
                resolve(path)
            except Resolver404:
                pytest.fail(f"{page}: {call}")


def test_the_call_of_a_list_has_its_filters(
    viewer_client: ConsoleClient, fleet: Scene
) -> None:
    page = viewer_client.get(f"{DEVICES}?region=APAC&version=1.0.0")

    assert page.context["api_call"].endswith(
        "/api/v1/devices?region=APAC&firmwareVersion=1.0.0'"
    )


def test_lists_of_people_and_receivers_give_their_call(
    admin_client: ConsoleClient,
) -> None:
    calls = {
        page.api_path: admin_client.get(page.list_url()).context["api_call"]
        for page in console_pages()
        if page.api_path in ("people", "webhooks", "mail-recipients", "gateways")
    }

    assert set(calls) == {"people", "webhooks", "mail-recipients", "gateways"}
    assert all(f"/api/v1/{path}" in call for path, call in calls.items())
