"""The overview: what it counts, what needs attention, and how it moves."""

import json
import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from deployments.models import Deployment, Quarantine
from deployments.services import operate
from devices.models import Device
from firmware.models import DeviceModel
from health.choices import HealthEvent
from health.models import DeviceEvent
from hotswap.common.console.text import estimated, percent_in_words
from hotswap.console import figures
from hotswap.console.attention import is_unusual
from hotswap.monitoring.caching import cached
from tests.console.conftest import ConsoleClient, Scene
from tests.deployments.world import World

LIVE = reverse("overview-live")
CHARTS = reverse("overview-charts")


@pytest.fixture
def world(db: None) -> World:
    """A world whose clock is that of the pages."""
    return World(now=timezone.now() - timedelta(hours=3))


def shown_figures(client: ConsoleClient) -> dict[str, Any]:
    figures.forget()
    return {each.label: each for each in client.get("/admin/").context["figures"]}


def texts(client: ConsoleClient) -> list[str]:
    concerns = client.get("/admin/").context["concerns"]
    return [row["concern"].text for row in concerns]


def charts(client: ConsoleClient, query: str = "") -> list[dict[str, Any]]:
    figures.forget()
    page = client.get(CHARTS + query).content.decode()
    found = re.findall(r'data-hs-chart="([^"]*)"', page)
    return [json.loads(unescape(each)) for each in found]


# --- Figures ---------------------------------


def test_the_fleet_is_counted_with_its_share_online_and_on_the_newest(
    viewer_client: ConsoleClient, world: World
) -> None:
    world.now = timezone.now()
    old, new = world.image("1.0.0"), world.image("1.1.0")
    world.fleet(2, old)
    world.fleet(1, new, prefix="n", region="APAC")
    gone = world.fleet(1, old, prefix="g")[0]
    Device.objects.filter(pk=gone.pk).update(revoked_at=world.now)
    unheard = world.fleet(1, old, prefix="u")[0]
    unheard.device.state.delete()

    shown = shown_figures(viewer_client)
    page = viewer_client.get("/admin/").context

    assert shown["devices"].value == "4"
    assert shown["online"].value == "75 %"
    assert shown["online"].detail == "3; 1 are not, 1 of them never seen"
    assert shown["on the newest approved version"].value == "25 %"
    regions = {part.name: part for part, _, _ in page["regions"]}
    assert (regions["APAC"].devices, regions["APAC"].newest) == (1, 1)
    assert (regions["US-EAST"].devices, regions["US-EAST"].online) == (3, 2)
    assert [part.version for part, _, _ in page["models"]] == ["1.1.0"]


def test_success_is_what_orders_came_to_beside_its_target(
    viewer_client: ConsoleClient, world: World
) -> None:
    old, new = world.image("1.0.0"), world.image("1.1.0")
    good, bad = world.fleet(2, old)
    world.launch(new, max_attempts=1, health_threshold=1)
    good.poll()
    good.go_through()
    bad.poll()
    bad.report("failed", error_code="self_test_failed")
    world.live_on(20)

    shown = shown_figures(viewer_client)

    for span in ("24 hours", "30 days"):
        figure = shown[f"updates proved, {span}"]
        assert (figure.value, figure.tone) == ("50 %", "amber")
        assert figure.detail == "1 of 2 orders; target 99.9 %"
    nothing = shown["returns proved, 30 days"]
    assert (nothing.value, nothing.tone) == ("–", "grey")


def test_an_order_of_yesterday_counts_in_the_month_alone(
    viewer_client: ConsoleClient, world: World
) -> None:
    world.now -= timedelta(days=2)
    old, new = world.image("1.0.0"), world.image("1.1.0")
    world.fleet(1, old)
    world.launch(new)
    world.update_offered()

    shown = shown_figures(viewer_client)

    assert shown["updates proved, 24 hours"].value == "–"
    assert shown["updates proved, 30 days"].value == "100 %"
    assert shown["updates proved, 30 days"].tone == "green"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "–"),
        (0.0, "0 %"),
        (99.99, "99.99 %"),
        (99.996, "99.99 %"),
        (100, "100 %"),
    ],
)
def test_a_share_is_never_rounded_up(value: float | None, words: str) -> None:
    assert percent_in_words(value) == words


def test_what_is_late_by_its_estimate_is_expected_any_moment() -> None:
    now = timezone.now()

    assert ">in 5 min<" in estimated(now + timedelta(minutes=5), now)
    assert ">any moment<" in estimated(now - timedelta(seconds=5), now)


# --- In progress, and what needs attention ---------------------------------


def test_a_deployment_in_progress_says_how_far_it_is_and_why_it_waits(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    (unseen,) = viewer_client.get("/admin/").context["deployments"]
    for device in scene.world.devices.values():
        device.poll()
    (row,) = viewer_client.get("/admin/").context["deployments"]

    assert unseen["eta"] == ""
    assert (row["updated"], row["total"]) == (0, 4)
    assert row["stage"] == "stage 1 of 3: 10 %"
    assert row["eta"]
    assert row["waiting_for"]


def test_what_waits_for_a_person_is_listed_with_a_link(
    admin_client: ConsoleClient, scene: Scene
) -> None:
    operate.pause_deployment(
        actor=scene.world.admin, deployment_id=scene.deployment.pk, reason="lunch"
    )

    context = admin_client.get("/admin/").context

    found = {row["concern"].text: row for row in context["concerns"]}
    paused = found[f"{scene.deployment} is paused"]
    assert paused["url"].endswith(f"/{scene.deployment.pk}/change/")
    assert "lunch" in paused["concern"].detail
    assert "ago" in paused["since"]
    assert "1 image of firmware to be approved" in found
    assert "1 device keeps an image in quarantine" in found
    assert "1 enrolment pending" in found


def test_what_went_wrong_is_listed_for_a_day(
    viewer_client: ConsoleClient, world: World
) -> None:
    old, new = world.image("1.0.0"), world.image("1.1.0")
    device = world.fleet(1, old)[0]
    deployment = world.launch(new, max_attempts=1)
    device.poll()
    device.report("failed", error_code="self_test_failed")
    world.live_on(10)
    deployment.refresh_from_db()
    assert deployment.status == "Failed"
    lately = texts(viewer_client)
    Deployment.objects.filter(pk=deployment.pk).update(
        finished_at=timezone.now() - timedelta(hours=25)
    )

    assert f"{deployment} has failed" in lately
    assert f"{deployment} has failed" not in texts(viewer_client)


def test_more_silent_devices_than_usual_are_listed(
    viewer_client: ConsoleClient, world: World
) -> None:
    devices = world.fleet(8, world.image("1.0.0"))

    def fall_silent(count: int, hours_ago: float, *, times: int = 1) -> None:
        DeviceEvent.objects.bulk_create(
            DeviceEvent(
                device_id=device.pk,
                at=timezone.now() - timedelta(hours=hours_ago),
                level="WARNING",
                event=HealthEvent.OFFLINE,
                message="",
            )
            for device in devices[:count]
            for _ in range(times)
        )

    fall_silent(2, 0.5, times=3)
    two = texts(viewer_client)
    fall_silent(4, 0.25)
    four = texts(viewer_client)
    fall_silent(1, 30, times=400)
    one_comes_and_goes = texts(viewer_client)
    for hours_ago in range(30, 80):
        fall_silent(8, hours_ago)

    assert "4 devices fell silent in the last hour" in four
    assert not [text for text in two if "fell silent" in text]
    assert "4 devices fell silent in the last hour" in one_comes_and_goes
    assert not [text for text in texts(viewer_client) if "fell silent" in text]


def test_chance_alone_is_not_unusual() -> None:
    assert not is_unusual(2, 0.0)
    assert is_unusual(3, 0.0)
    assert not is_unusual(130, 100.0)
    assert is_unusual(131, 100.0)


def test_a_line_leads_nobody_to_where_they_may_not_go(
    admin_client: ConsoleClient, viewer_client: ConsoleClient, scene: Scene
) -> None:
    scene.delivery.status, scene.delivery.last_attempt_at = "failed", timezone.now()
    scene.delivery.save()
    said = "1 notification could not be delivered in 24 h"

    urls = [
        row["url"]
        for client in (admin_client, viewer_client)
        for row in client.get("/admin/").context["concerns"]
        if row["concern"].text == said
    ]

    assert urls == ["/admin/deployments/delivery/?status=failed", ""]


# --- First steps ---------------------------------


def steps(client: ConsoleClient) -> list[tuple[bool, str]]:
    return [(x.is_done, x.url) for x in client.get("/admin/").context["steps"]]


def test_the_first_steps_are_ticked_one_after_the_other(
    admin_client: ConsoleClient, operator_client: ConsoleClient, world: World
) -> None:
    empty = steps(admin_client)
    for_operator = operator_client.get("/admin/").content.decode()
    draft = world.image("1.0.0", approved=False)
    uploaded = steps(admin_client)
    old = world.image("1.1.0")
    approved = steps(operator_client)
    world.fleet(1, old)
    registered = steps(operator_client)
    world.launch(world.image("2.0.0"))

    models = reverse("admin:firmware_devicemodel_changelist")
    assert empty == [(False, models), *[(False, "")] * 4]
    assert "needs Admin" in for_operator
    assert [done for done, _ in uploaded] == [True, True, False, False, False]
    assert uploaded[2][1] == reverse("admin:firmware_approvalrequest_changelist")
    assert approved[3] == (False, reverse("admin:devices_device_register"))
    assert registered[4] == (False, reverse("admin:deployments_deployment_launch"))
    assert steps(operator_client) == []
    assert draft.pk


# --- It moves ---------------------------------


def test_it_asks_often_while_something_moves_and_rarely_otherwise(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    moving = viewer_client.get("/admin/").content.decode()
    operate.pause_deployment(
        actor=scene.world.admin, deployment_id=scene.deployment.pk, reason="lunch"
    )
    resting = viewer_client.get(LIVE).content.decode()

    assert "every 2s [document.visibilityState" in moving
    assert "every 15s [document.visibilityState" in resting


def test_what_is_known_is_not_sent_again(
    viewer_client: ConsoleClient, world: World
) -> None:
    world.fleet(1, world.image("1.0.0"))
    # The server's own state, which is shown too, may change in between.
    for _ in range(20):
        first = viewer_client.get(LIVE)
        same = viewer_client.get(LIVE, headers={"If-None-Match": first["ETag"]})
        if same.status_code == 304:
            break
    DeviceModel.objects.create(name="another")
    Quarantine.objects.create(
        device=Device.objects.get(),
        firmware=world.image("2.0.0"),
        updated_at=timezone.now(),
        quarantined_at=timezone.now(),
    )
    changed = viewer_client.get(LIVE, headers={"If-None-Match": first["ETag"]})

    assert first.status_code == 200
    assert (same.status_code, same.content) == (304, b"")
    assert same["HS-Counted-At"].endswith(" UTC")
    assert changed.status_code == 200
    assert changed["ETag"] != first["ETag"]


def test_the_overview_asks_few_questions_however_much_there_is(
    viewer_client: ConsoleClient, scene: Scene, django_assert_max_num_queries: Any
) -> None:
    for number in range(8):
        scene.world.launch(scene.approved, name=f"more {number}")
    for number in range(4):
        scene.world.image("1.0.0", model=f"other-{number}")
    figures.forget()
    cached.forget()

    with django_assert_max_num_queries(30):
        page = viewer_client.get("/admin/")
    with django_assert_max_num_queries(15):
        viewer_client.get(LIVE)

    assert len(page.context["deployments"]) == 6
    assert page.context["more_deployments"] == 3


# --- Charts ---------------------------------


def test_versions_over_time_are_what_devices_reported(
    viewer_client: ConsoleClient, world: World
) -> None:
    old, new = world.image("1.0.0"), world.image("1.1.0")
    world.fleet(3, old)
    world.live_on(3600, step=600)
    deployment = world.launch(new, max_attempts=1)
    world.update_offered()
    assert deployment.target_count == 3

    spread = charts(viewer_client)[0]

    numbers = {
        each["label"]: [count for _, count in each["points"]]
        for each in spread["series"]
    }
    assert max(numbers["1.0.0"]) == 3
    assert (numbers["1.0.0"][-1], numbers["1.1.0"][-1]) == (0, 3)
    at = [at for at, _ in spread["series"][0]["points"]]
    assert at == sorted(at)


def test_what_was_before_the_span_is_where_it_begins(
    viewer_client: ConsoleClient, world: World
) -> None:
    world.now -= timedelta(days=3)
    world.fleet(2, world.image("1.0.0"))

    spread = charts(viewer_client, "?span=1d")[0]

    assert [count for _, count in spread["series"][0]["points"]] == [2] * 61


def test_rare_versions_are_put_together(
    viewer_client: ConsoleClient, world: World
) -> None:
    for number in range(10):
        world.fleet(1, world.image(f"1.0.{number}"), prefix=f"p{number}")

    labels = [each["label"] for each in charts(viewer_client)[0]["series"]]

    assert len(labels) == 8
    assert labels[-1] == "others"


def test_updates_by_the_hour_are_counted_where_they_ended(
    viewer_client: ConsoleClient, world: World
) -> None:
    world.fleet(2, world.image("1.0.0"))
    world.launch(world.image("1.1.0"))
    world.update_offered()

    proved, failed = charts(viewer_client)[1]["series"]

    assert len(proved["points"]) == 24
    assert sum(count for _, count in proved["points"]) == 2
    assert sum(count for _, count in failed["points"]) == 0


def test_charts_of_nothing_say_so(viewer_client: ConsoleClient, db: None) -> None:
    page = viewer_client.get(f"{CHARTS}?model=none&span=9y").content.decode()

    assert "No device has reported what it runs." in page
    assert "No update has ended in the last 24 hours." in page
