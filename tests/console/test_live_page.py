"""The page of a deployment: what it asks again, its devices, its log, its charts."""

import json
import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.utils import timezone

from deployments.console import device_table, log_table
from deployments.console.drawings import DrawnStage, draw_plan
from deployments.models import Deployment, Event
from deployments.reads import changes
from deployments.reads.changes import current_version
from deployments.reads.history import progress_history
from deployments.services import operate
from deployments.services.requests import Selection
from tests.console.conftest import ConsoleClient, Scene
from tests.console.test_deployments import url_of
from tests.deployments.world import World


def live(client: ConsoleClient, deployment: Deployment, etag: str = "") -> Any:
    headers = {"If-None-Match": etag} if etag else {}
    return client.get(url_of(deployment, "live"), headers=headers)


def address(page: str) -> str:
    """Return where the moving part asks for itself."""
    found = re.search(r'id="hs-live"[^>]* hx-get="([^"]*)"', page)
    assert found
    return unescape(found[1])


# --- What is asked again ---------------------------------


def test_a_poll_of_what_is_known_is_answered_by_one_statement(
    viewer_client: ConsoleClient,
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    django_assert_max_num_queries: Any,
) -> None:
    # So long that the clock alone changes nothing meanwhile.
    monkeypatch.setattr(changes, "STEP_SECONDS", 10**9)
    etag = live(viewer_client, scene.deployment)["ETag"]

    # Beside who asks: the session, the person and the groups.
    with django_assert_max_num_queries(4):
        known = live(viewer_client, scene.deployment, etag)

    assert (known.status_code, known.content) == (304, b"")


def test_the_version_changes_with_whatever_happens(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    now = timezone.now()
    pk = scene.deployment.pk

    def version() -> str:
        found = current_version(pk, now)
        assert found
        return found.whole

    seen = [version()]
    (device,) = scene.world.update_offered()
    seen.append(version())
    Event.objects.create(
        deployment=scene.deployment, at=now, level="INFO", event="x", message=""
    )
    seen.append(version())
    operate.pause_deployment(actor=operator_client.person, deployment_id=pk, reason="x")
    seen.append(version())
    later = current_version(pk, now + timedelta(seconds=15))

    assert device.name
    assert len(set(seen)) == 4
    assert version() == seen[-1]
    assert later
    assert later.whole != seen[-1]


def test_devices_and_log_ask_for_themselves_when_they_have_changed(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    page = viewer_client.get(url_of(scene.deployment, "change")).content.decode()
    first = address(page)
    scene.world.update_offered()

    changed = viewer_client.get(first)
    again = viewer_client.get(address(changed.content.decode()))

    assert set(changed["HX-Trigger"].split(", ")) == {"hs-devices", "hs-log"}
    assert "hs-log" not in again.headers.get("HX-Trigger", "")
    assert b'id="hs-log"' not in changed.content
    assert b'id="hs-devices"' not in changed.content


def test_the_page_asks_rarely_while_it_waits(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    operate.pause_deployment(
        actor=operator_client.person, deployment_id=scene.deployment.pk, reason="lunch"
    )

    part = live(operator_client, scene.deployment).content.decode()

    assert "every 15s [document.visibilityState" in part


def test_a_page_of_no_deployment_is_404(viewer_client: ConsoleClient) -> None:
    for name in ("0a1b", "00000000-0000-4000-8000-000000000000"):
        for part in ("live", "devices", "log", "charts"):
            url = f"/admin/deployments/deployment/{name}/{part}/"
            assert viewer_client.get(url).status_code == 404, url


def test_parts_take_no_post(admin_client: ConsoleClient, scene: Scene) -> None:
    for part in ("live", "devices", "log", "charts"):
        assert admin_client.post(url_of(scene.deployment, part)).status_code == 405


# --- The trace ---------------------------------


def test_the_page_leads_to_the_trace_where_one_is_told_where(
    viewer_client: ConsoleClient, scene: Scene, settings: Any
) -> None:
    trace = scene.deployment.trace_id
    without = live(viewer_client, scene.deployment).content.decode()
    settings.TRACE_URL = "https://traces.example.com/trace/{trace_id}?x=1&y"
    there = live(viewer_client, scene.deployment).content.decode()

    assert f'data-hs-copy="{trace}"' in without
    assert f'href="https://traces.example.com/trace/{trace}?x=1&amp;y"' in there


# --- Devices ---------------------------------


@pytest.fixture
def mixed(scene: Scene) -> Scene:
    """Of four devices one has failed, one is updated and two have not started."""
    good, bad, *_ = scene.world.devices.values()
    Deployment.objects.filter(pk=scene.deployment.pk).update(open_rank=4)
    for device in (good, bad):
        device.poll()
    good.go_through()
    bad.report("failed", error_code="self_test_failed", message="it crashed")
    scene.deployment.targets.filter(device=bad.pk).update(status="failed")
    scene.deployment.targets.filter(device=good.pk).update(status="success")
    return scene


def names(answer: Any) -> list[str]:
    return [shown["row"].device_id for shown in answer.context["rows"]]


def test_devices_are_chosen_by_tabs_with_their_numbers(
    viewer_client: ConsoleClient, mixed: Scene
) -> None:
    url = url_of(mixed.deployment, "devices")

    tabs = {key: number for key, _, number, _ in viewer_client.get(url).context["tabs"]}
    shown = {key: len(names(viewer_client.get(f"{url}?tab={key}"))) for key in tabs}

    assert tabs == shown
    assert (tabs["all"], tabs["wrong"], tabs["updated"]) == (4, 1, 1)
    assert len(names(viewer_client.get(f"{url}?tab=nonsense"))) == 4


def test_devices_are_found_by_a_part_of_their_name(
    viewer_client: ConsoleClient, mixed: Scene
) -> None:
    url = url_of(mixed.deployment, "devices")

    assert names(viewer_client.get(f"{url}?device=D-003")) == ["d-003"]
    nothing = viewer_client.get(f"{url}?tab=updated&device=nobody").content.decode()
    assert "No device is so." in nothing


def test_every_device_is_on_exactly_one_page(
    viewer_client: ConsoleClient, mixed: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_table, "PAGE", 3)
    url = url_of(mixed.deployment, "devices")

    first, last, beyond = (
        viewer_client.get(f"{url}?page={page}") for page in ("1", "2", "9")
    )

    assert names(first)[0] == names(viewer_client.get(f"{url}?tab=wrong"))[0]
    assert sorted(names(first) + names(last)) == [f"d-00{n}" for n in range(4)]
    assert names(beyond) == names(last)
    assert first.context["pages"] == 2
    assert "Page 1 of 2, 4 devices" in first.content.decode()


def test_the_numbers_of_the_tabs_come_along_with_the_rows(
    viewer_client: ConsoleClient, mixed: Scene
) -> None:
    piece = viewer_client.get(url_of(mixed.deployment, "devices")).content.decode()
    page = viewer_client.get(url_of(mixed.deployment, "change")).content.decode()

    assert '<b id="hs-tab-wrong" hx-swap-oob="true">1</b>' in piece
    assert page.count('id="hs-tab-wrong"') == 1
    assert "hx-swap-oob" not in page


# --- Log ---------------------------------


def messages(answer: Any) -> list[str]:
    return [row["event"].event for row in answer.context["events"]]


def test_the_log_is_searched_and_cut_by_level(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    url = url_of(scene.deployment, "log")
    for level, event in (("ERROR", "a.bad"), ("WARNING", "a.warning")):
        Event.objects.create(
            deployment=scene.deployment,
            at=timezone.now(),
            level=level,
            event=event,
            device=scene.device if level == "ERROR" else None,
            message="the valve sticks",
        )

    assert messages(viewer_client.get(f"{url}?level=error")) == ["a.bad"]
    assert messages(viewer_client.get(f"{url}?level=warning")) == ["a.warning", "a.bad"]
    assert messages(viewer_client.get(f"{url}?text=VALVE")) == ["a.warning", "a.bad"]
    assert messages(viewer_client.get(f"{url}?text=d-000")) == ["a.bad"]
    assert "deployment.started" in messages(viewer_client.get(f"{url}?text=.started"))
    # By its words, too, as the page shows them; whatever is written is no pattern.
    assert "deployment.started" in messages(
        viewer_client.get(f"{url}?text=Deployment+st")
    )
    assert messages(viewer_client.get(f"{url}?text=.*(")) == []
    assert messages(viewer_client.get(f"{url}?text=nowhere")) == []


def test_older_lines_are_a_page_away_and_stay_while_they_are_read(
    viewer_client: ConsoleClient, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_table, "PAGE", 2)
    url = url_of(scene.deployment, "log")
    total = scene.deployment.events.count()
    assert total >= 3

    newest = viewer_client.get(url)
    older = viewer_client.get(f"{url}?before={newest.context['older']}")

    seen = messages(newest) + messages(older)
    everything = scene.deployment.events.order_by("-id").values_list("event", flat=True)
    assert seen == list(everything)[: len(seen)]
    assert 'hx-trigger="hs-log from:body"' in newest.content.decode()
    assert 'hx-trigger="none"' in older.content.decode()
    assert "Newest" in older.content.decode()


# --- Charts and drawings ---------------------------------


def test_progress_over_time_is_what_became_of_the_devices(db: None) -> None:
    world = World()
    old, new = world.image("1.0.0"), world.image("2.0.0")
    good, bad = world.fleet(2, old)
    deployment = world.launch(new, max_attempts=1, health_threshold=1)
    world.tick(60)
    for device in (good, bad):
        device.poll()
    good.go_through()
    bad.report("failed", error_code="self_test_failed", message="it crashed")
    world.live_on(60)
    deployment.refresh_from_db()

    moments = progress_history(deployment, world.now)

    assert len(moments) == 61
    assert moments[0].at == deployment.started_at
    assert (moments[0].offered, moments[0].success_rate) == (0, None)
    last = moments[-1]
    assert (last.offered, last.proved, last.failed) == (2, 1, 1)
    assert last.success_rate == 50
    offered = [each.offered for each in moments]
    assert offered == sorted(offered)


def test_charts_mark_where_stages_were_opened(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    before = viewer_client.get(url_of(scene.deployment, "charts")).content.decode()
    scene.world.update_offered()

    page = viewer_client.get(url_of(scene.deployment, "charts")).content.decode()

    assert "No device has been given the order yet." in before
    charts = [
        json.loads(unescape(each))
        for each in re.findall(r'data-hs-chart="([^"]*)"', page)
    ]
    assert [chart["unit"] for chart in charts] == ["devices", "%", "%"]
    assert charts[0]["marks"][0]["label"] == "10 %"
    assert charts[0]["series"][0]["points"][-1][1] == 1
    assert charts[1]["series"][1]["points"][0][1] == scene.deployment.health_threshold
    assert charts[2]["marks"] == charts[0]["marks"]
    measured = {each["label"]: each["points"] for each in charts[2]["series"]}
    assert {value for _, value in measured["mean CPU"]} == {5.0}
    assert {value for _, value in measured["mean error rate"]} == {0.0}
    assert "Measures are means of the device that was given the order." in page


def stages(*sizes: int, parts: Any = ()) -> list[DrawnStage]:
    boundary, found = 0, []
    for number, size in enumerate(sizes, start=1):
        boundary += size
        found.append(DrawnStage(number, f"s{number}", size, boundary, parts))
    return found


def test_a_canary_rises_and_regions_are_as_high_as_they_are_large() -> None:
    canary = draw_plan("Canary", stages(1, 2, 7))
    regional = draw_plan("Regional", stages(10, 5))

    assert canary
    assert regional
    assert [round(box.frame.height) for box in canary.boxes] == [12, 36, 120]
    assert [round(box.frame.height) for box in regional.boxes] == [120, 60]


def test_batches_lie_in_as_many_rows_as_may_be_in_flight() -> None:
    drawing = draw_plan("Rolling", stages(*[5] * 6), in_flight=3)

    assert drawing
    assert len({box.frame.y for box in drawing.boxes}) == 3
    assert len({box.frame.x for box in drawing.boxes}) == 2


def test_a_box_is_filled_with_its_devices() -> None:
    drawing = draw_plan("Direct", stages(10, parts=(("green", 5), ("red", 1))))

    assert drawing
    (box,) = drawing.boxes
    assert [(part.tone, round(part.height)) for part in box.fill] == [
        ("green", 60),
        ("red", 12),
    ]
    assert box.fill[0].y + box.fill[0].height == box.frame.y + box.frame.height


def test_what_cannot_be_told_apart_is_not_drawn() -> None:
    drawing = draw_plan("Rolling", stages(*[1] * 1000), in_flight=2)

    assert drawing
    assert drawing.left_out == 1000 - len(drawing.boxes) > 0
    assert draw_plan("Canary", []) is None


def test_the_halves_of_blue_green_stand_beside_the_switch(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    operate.cancel_deployment(
        actor=scene.world.admin, deployment_id=scene.deployment.pk, reason="enough"
    )
    scene.world.tick()
    deployment = scene.world.launch(
        scene.approved, "BlueGreen", parameters={"verification_duration": 30.0}
    )

    page = live(viewer_client, deployment).content.decode()

    assert page.count('class="hs-box"') == 2
    assert "Blue serves until the switch" in page


def test_regions_fill_on_a_map_as_long_as_each_of_them_has_a_place(
    viewer_client: ConsoleClient, scene: Scene, settings: Any
) -> None:
    operate.cancel_deployment(
        actor=scene.world.admin, deployment_id=scene.deployment.pk, reason="enough"
    )
    scene.world.tick()
    deployment = scene.world.launch(
        scene.approved,
        "Regional",
        selection=Selection(regions=("US-EAST",)),
        parameters={"regions": ["US-EAST"], "pause_duration": 30.0},
    )
    for device in scene.world.devices.values():
        device.poll()
    total = deployment.targets.count()

    page = live(viewer_client, deployment).content.decode()
    settings.REGION_PLACES = {}
    without = live(viewer_client, deployment).content.decode()

    assert page.count('class="hs-map"') == 1
    assert f"<title>US-EAST: 0 of {total} devices updated</title>" in page
    assert re.search(r'hs-map-blue"[^>]* stroke-dasharray="100.00 100"', page)
    assert 'class="hs-map"' not in without


def test_an_open_stage_says_when_it_is_expected_to_end(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    for device in scene.world.devices.values():
        device.poll()

    page = live(viewer_client, scene.deployment).content.decode()

    assert page.count('<span class="hs-hint">estimated end ') == 3
