"""The live page and the launch form."""

import html
import re
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from deployments.choices import DeploymentStatus
from deployments.models import Deployment, Quarantine
from deployments.rules.codes import next_step
from deployments.services import operate
from devices.models import Device
from devices.services import registry
from health.models import DeviceState
from hotswap.common.models import AuditEvent
from tests.console.conftest import ConsoleClient, Scene
from tests.deployments.world import World, statuses

LAUNCH = "/admin/deployments/deployment/launch/"


def url_of(deployment: Deployment, verb: str) -> str:
    return f"/admin/deployments/deployment/{deployment.pk}/{verb}/"


# --- The live page ---------------------------------


def test_the_live_part_goes_on_while_it_runs(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    page = viewer_client.get(url_of(scene.deployment, "change"))
    part = viewer_client.get(url_of(scene.deployment, "live"))

    assert b'hx-trigger="every 2s' in page.content
    assert part.status_code == 200
    text = part.content.decode()
    assert 'role="progressbar"' in text
    assert "<b>0 of 4</b><span>updated · 0 % finished</span>" in text
    assert "gate <b>99 %</b>" in text
    shown = page.content.decode()
    assert "the device to poll" in shown or "which is offline" in shown
    assert "deployment.started" in shown


def test_the_live_part_marks_an_estimated_end_that_is_a_forecast(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    for device in scene.world.devices.values():
        device.poll()

    part = viewer_client.get(url_of(scene.deployment, "live")).content.decode()

    assert "</time></b><span>estimated end (forecast)</span>" in part


def test_the_live_part_ends_with_286(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    operate.cancel_deployment(
        actor=operator_client.person, deployment_id=scene.deployment.pk, reason="enough"
    )
    scene.world.tick()
    scene.deployment.refresh_from_db()
    assert scene.deployment.status == DeploymentStatus.CANCELLED

    part = operator_client.get(url_of(scene.deployment, "live"))
    page = operator_client.get(url_of(scene.deployment, "change"))

    assert part.status_code == 286
    assert b"every 2s" not in page.content
    assert b">Ended</span>" in page.content
    assert b">Open</span>" not in page.content


def test_the_health_is_asked_for_by_its_own_poll(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    page = viewer_client.get(url_of(scene.deployment, "change")).content.decode()
    part = viewer_client.get(url_of(scene.deployment, "health"))

    assert f'hx-get="{url_of(scene.deployment, "health")}"' in page
    assert "load, every 4s" in page
    assert part.status_code == 200
    text = part.content.decode()
    assert "none, as no device is exposed" in text
    assert "Counted at" in text


def test_the_health_of_a_big_fleet_is_asked_for_less_often(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    Deployment.objects.filter(pk=scene.deployment.pk).update(target_count=1001)

    page = viewer_client.get(url_of(scene.deployment, "change")).content.decode()

    assert "load, every 10s" in page


def test_the_health_shows_its_score_with_the_parts(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    # The panel is of this moment; so is this world.
    scene.world.now = timezone.now()
    scene.world.tick()
    for device in scene.world.devices.values():
        device.beat()
    scene.world.update_offered()

    text = viewer_client.get(url_of(scene.deployment, "health")).content.decode()

    assert "(1 + 0.5 × 0) / 1 = <b>100.0 %</b>" in text


def test_the_live_part_groups_failures_and_says_what_to_do(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    (bad,) = scene.world.update_offered()
    bad.beat(application_metrics={"errorRate": 0.5})
    scene.world.tick()

    text = viewer_client.get(url_of(scene.deployment, "change")).content.decode()

    assert "Why devices failed" in text
    assert f"Next: {next_step('error_rate')}" in text


def test_a_pause_says_why_and_what_to_do(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    refused = operator_client.post(url_of(scene.deployment, "pause"), {"reason": ""})
    operator_client.post(url_of(scene.deployment, "pause"), {"reason": "lunch"})
    part = operator_client.get(url_of(scene.deployment, "live")).content.decode()
    operator_client.post(url_of(scene.deployment, "resume"), {"reason": "back"})

    scene.deployment.refresh_from_db()
    assert refused.status_code == 200
    assert "waits for a person" in part
    assert "lunch" in part
    assert "Resume to go on" in part
    assert scene.deployment.status == DeploymentStatus.RUNNING
    acts = AuditEvent.objects.filter(actor=operator_client.person.pseudonym)
    verbs = acts.exclude(object_kind="person")
    assert list(verbs.order_by("id").values_list("verb", flat=True)) == [
        "deployment.paused",
        "deployment.resumed",
    ]


def test_the_cancel_dialog_is_honest(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    dialog = operator_client.get(url_of(scene.deployment, "cancel")).content.decode()

    assert "4 devices are not started and never will be." in dialog
    assert "0 have been told or are downloading, and stop." in dialog
    assert "0 are installing or later, and will finish." in dialog


def test_many_devices_are_typed_out(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    Deployment.objects.filter(pk=scene.deployment.pk).update(target_count=101)
    url = url_of(scene.deployment, "cancel")

    refused = operator_client.post(url, {"reason": "enough", "typed": "100"})
    scene.deployment.refresh_from_db()
    untouched = scene.deployment.cancel_requested_at
    operator_client.post(url, {"reason": "enough", "typed": "101"})
    scene.deployment.refresh_from_db()

    assert b"101 devices are concerned" in refused.content
    assert untouched is None
    assert scene.deployment.cancel_requested_at is not None


def test_rolling_back_says_its_reason(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    operator_client.post(url_of(scene.deployment, "rollback"), {"reason": "too warm"})

    part = operator_client.get(url_of(scene.deployment, "live")).content.decode()

    assert "too warm" in part


def test_rolling_back_points_at_failed_devices_only_where_there_are_any(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    scene.world.update_offered()
    operator_client.post(url_of(scene.deployment, "rollback"), {"reason": "too warm"})

    part = operator_client.get(url_of(scene.deployment, "live")).content.decode()

    assert "Nothing needs to be done while they report." in part


def test_one_device_is_rolled_back_from_its_row(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    (device,) = scene.world.update_offered()
    name = device.name
    url = url_of(scene.deployment, "rollback-part")

    page = operator_client.get(url_of(scene.deployment, "change")).content.decode()
    dialog = operator_client.get(f"{url}?deviceIds={name}").content.decode()
    operator_client.post(url, {"deviceIds": name, "reason": "too warm"})

    assert f"{url}?deviceIds={name}" in page
    assert f"{url}?stage=1" in page
    assert f">\n{name}</textarea>" in dialog
    gone = scene.deployment.targets.get(device__device_id=name)
    assert (gone.status, gone.is_withdrawn) == ("rolling_back", True)


def test_a_part_is_one_thing(operator_client: ConsoleClient, scene: Scene) -> None:
    scene.world.update_offered()
    url = url_of(scene.deployment, "rollback-part")

    neither = operator_client.post(url, {"reason": "too warm"})
    both = operator_client.post(
        url, {"stage": "1", "region": "EU", "reason": "too warm"}
    )

    for answer in (neither, both):
        assert b"Choose exactly one" in answer.content
    assert not scene.deployment.rollbacks.exists()


def test_a_verb_that_came_too_late_says_so(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    answer = operator_client.post(
        url_of(scene.deployment, "resume"), {"reason": "go on"}
    )

    assert b"cannot be resumed" in answer.content


# --- The launch form ---------------------------------


def form_for(scene: Scene, **changes: Any) -> dict[str, Any]:
    return {
        "firmwareId": str(scene.approved.pk),
        "target": "all",
        "strategy": "Canary",
        "initialPercentage": "25",
        "increments": "50, 100",
        "waitDuration": "30",
        "healthThreshold": "99",
        "onWarning": "pause",
        "rollbackThresholds_successRate": "90",
        "healthCriteria_confirmationDuration": "PT10S",
        "healthCriteria_heartbeatsRequired": "2",
        "offlineDevices": "wait",
        "busyDevices": "wait",
        "maxAttempts": "2",
    } | changes


@pytest.fixture
def free(scene: Scene) -> Scene:
    """The scene without a deployment that holds its devices."""
    operate.cancel_deployment(
        actor=scene.world.admin, deployment_id=scene.deployment.pk, reason="enough"
    )
    scene.world.tick()
    return scene


def preview(client: ConsoleClient, form: dict[str, Any]) -> Any:
    return client.post(LAUNCH, {**form, "preview": "1"})


def launch_after(client: ConsoleClient, form: dict[str, Any], **more: Any) -> Any:
    confirmed = confirmed_after(preview(client, form))
    return client.post(LAUNCH, {**form, **confirmed, **more, "launch": "1"})


def confirmed_after(shown: Any) -> dict[str, Any]:
    """Return what a person sends who confirms all that a preview asks for."""
    context = shown.context
    asked = [confirm for _, confirm in context["warnings"] if confirm]
    if context["number"] is not None:
        asked.append(context["number"])
    return {
        "fingerprint": context["fingerprint"],
        "eligible": context["preview"].targets.eligible,
        "acknowledge": [each.expected for each in asked if each.is_tick],
        **{each.field: each.expected for each in asked if not each.is_tick},
    }


def test_preview_shows_who_takes_part_and_writes_nothing(
    operator_client: ConsoleClient, free: Scene
) -> None:
    registry.change_device(
        actor=free.world.admin, device_id="d-003", changes={"enabled": False}
    )
    before = Deployment.objects.count()

    answer = preview(operator_client, form_for(free))

    text = answer.content.decode()
    assert "Launch canary on 3 devices" in text
    assert "disabled for updates" in text
    assert [row["stage"].size for row in answer.context["stages"]] == [1, 1, 1]
    assert Deployment.objects.count() == before


def test_launch_writes_what_the_form_says(
    operator_client: ConsoleClient, free: Scene
) -> None:
    answer = launch_after(operator_client, form_for(free, name="spring"))

    deployment = Deployment.objects.get(name="spring")
    assert answer["Location"] == url_of(deployment, "change")
    assert deployment.created_by == operator_client.person
    assert deployment.parameters == {
        "initial_percentage": 25,
        "increments": [50, 100],
        "wait_duration": 30.0,
    }
    assert deployment.on_warning == "pause"
    assert deployment.max_attempts == 2
    assert deployment.thresholds.success_rate == 90
    assert deployment.criteria.confirmation_duration.total_seconds() == 10


def test_a_copy_begins_with_the_settings_of_the_original_and_asks_why(
    operator_client: ConsoleClient, free: Scene
) -> None:
    launch_after(
        operator_client,
        form_for(
            free,
            name="spring",
            target="devices",
            targetDevices="d-000 d-001",
            rollbackThresholds_cpuUsage="70",
            startSpread="PT1M",
        ),
    )
    spring = Deployment.objects.get(name="spring")
    operate.cancel_deployment(
        actor=free.world.admin, deployment_id=spring.pk, reason="again"
    )
    url = url_of(spring, "copy")

    filled = operator_client.get(url).context["form"]
    again = {
        name: value
        for name in filled.fields
        if (value := filled[name].value()) not in (None, "", False)
    }
    refused = operator_client.post(url, {**again, "preview": "1"})
    shown = operator_client.post(url, {**again, "reason": "once more", "preview": "1"})
    launched = operator_client.post(
        url,
        {
            **again,
            "reason": "once more",
            **confirmed_after(shown),
            "launch": "1",
        },
    )

    assert again["targetDevices"] == "d-000\nd-001"
    assert again["increments"] == "50, 100"
    assert "This field is required." in refused.content.decode()
    copy = Deployment.objects.get(copied_from=spring)
    assert launched["Location"] == url_of(copy, "change")
    for name in ("parameters", "selection", "rollback_thresholds", "start_spread"):
        assert getattr(copy, name) == getattr(spring, name)


def test_every_way_of_naming_devices_launches(
    operator_client: ConsoleClient, free: Scene
) -> None:
    ways: list[tuple[dict[str, Any], int]] = [
        ({"target": "devices", "targetDevices": "d-000\nd-001, d-002"}, 3),
        ({"target": "regions", "regions": ["US-EAST"]}, 4),
        ({"target": "groups", "targetGroups": [str(free.group.pk)]}, 1),
        ({"strategy": "Direct"}, 4),
    ]

    for number, (changes, count) in enumerate(ways):
        name = f"way {number}"
        launch_after(operator_client, form_for(free, name=name, **changes))
        assert Deployment.objects.get(name=name).target_count == count


def test_each_strategy_is_launched_with_its_own_fields(
    operator_client: ConsoleClient, free: Scene
) -> None:
    fields = {
        "regionOrder": "APAC, US-EAST",
        "pauseDuration": "60",
        "verificationDuration": "120",
        "batchSize": "3",
        "batchWaitDuration": "30",
        "maxConcurrentBatches": "2",
    }
    ways = {
        "Regional": {
            "pause_duration": 60.0,
            "rollback_scope": "deployment",
            "regions": ["APAC", "US-EAST", "US-WEST", "EU-CENTRAL", "EU"],
        },
        "BlueGreen": {
            "verification_duration": 120.0,
            "green_fleet": None,
            "switch_hold": 0.0,
            "hold_until_acknowledged": False,
            "on_blue_failure": "keep-green",
        },
        "Rolling": {
            "batch_size": 3,
            "batch_wait_duration": 30.0,
            "max_concurrent_batches": 2,
        },
    }

    for strategy, parameters in ways.items():
        form = form_for(free, name=strategy, strategy=strategy, **fields)
        launch_after(operator_client, form)
        deployment = Deployment.objects.get(name=strategy)
        page = operator_client.get(url_of(deployment, "live")).content.decode()
        assert deployment.parameters == parameters
        assert ("<b>blue</b> serves" in page) == (strategy == "BlueGreen")


def test_ticked_regions_are_taken_in_the_order_named(
    operator_client: ConsoleClient, free: Scene
) -> None:
    form = form_for(
        free,
        name="two",
        strategy="Regional",
        target="regions",
        regions=["US-EAST", "APAC"],
        regionOrder="APAC US-EAST",
    )

    launch_after(operator_client, form)

    parameters = Deployment.objects.get(name="two").parameters
    assert parameters["regions"] == ["APAC", "US-EAST"]


def test_a_window_a_pace_and_approvals_are_launched(
    operator_client: ConsoleClient, admin_client: ConsoleClient, free: Scene
) -> None:
    form = form_for(
        free,
        name="careful",
        maxDevicesPerMinute="5",
        requireApprovalPerStage="on",
        maintenanceWindow_days=["MO", "TU"],
        maintenanceWindow_start="22:00",
        maintenanceWindow_end="04:00",
        maintenanceWindow_timezone="Europe/Berlin",
    )

    wrong = preview(operator_client, form | {"maintenanceWindow_timezone": "Mars"})
    launch_after(operator_client, form)

    deployment = Deployment.objects.get(name="careful")
    assert "is not a time zone" in wrong.content.decode()
    assert deployment.max_devices_per_minute == 5
    assert deployment.require_approval_per_stage
    assert deployment.maintenance_window == {
        "days": ["MO", "TU"],
        "start": "22:00",
        "end": "04:00",
        "timezone": "Europe/Berlin",
    }


def test_a_stage_is_approved_in_its_dialog(
    operator_client: ConsoleClient, admin_client: ConsoleClient, free: Scene
) -> None:
    launch_after(
        operator_client,
        form_for(free, name="asked", requireApprovalPerStage="on", waitDuration="0"),
    )
    deployment = Deployment.objects.get(name="asked")
    free.world.now = timezone.now()
    free.world.tick()
    free.world.update_offered()
    page = operator_client.get(url_of(deployment, "change")).content.decode()
    by_operator = operator_client.post(
        url_of(deployment, "approve-stage"), {"comment": "fine"}
    )
    admin_client.post(url_of(deployment, "approve-stage"), {"comment": "fine"})

    deployment.refresh_from_db()
    assert "a stage waits for its approval" in page
    assert by_operator.status_code == 403
    assert deployment.status == DeploymentStatus.RUNNING
    assert deployment.stages.get(number=2).approved_by == admin_client.person


def test_launching_asks_for_a_preview_of_the_same_form(
    operator_client: ConsoleClient, free: Scene
) -> None:
    shown = preview(operator_client, form_for(free)).context
    changed = form_for(free, strategy="Direct", name="other")
    agreed = {"fingerprint": shown["fingerprint"], "eligible": 4, "launch": "1"}

    without = operator_client.post(LAUNCH, {**form_for(free), "launch": "1"})
    other = operator_client.post(LAUNCH, {**changed, **agreed})

    assert b"has changed since its preview" in without.content
    assert b"has changed since its preview" in other.content
    assert Deployment.objects.count() == 1


def test_launching_asks_again_when_the_devices_have_changed(
    operator_client: ConsoleClient, free: Scene
) -> None:
    answer = launch_after(operator_client, form_for(free), eligible=3)

    assert b"has changed to 4" in answer.content
    assert Deployment.objects.count() == 1


def test_the_form_says_what_the_api_says_and_keeps_the_input(
    operator_client: ConsoleClient, free: Scene
) -> None:
    wrong = [
        ({"target": "devices", "targetDevices": ""}, "Name at least one"),
        ({"target": "devices", "targetDevices": "nobody"}, "1 unknown_device"),
        ({"target": "groups"}, "Choose at least one"),
        ({"waitDuration": "soon"}, "is no duration"),
        ({"increments": "50, 20"}, "higher than the one before"),
        ({"increments": "50, 3O, 100"}, "&#x27;3O&#x27; is no whole number."),
        ({"healthThreshold": "101"}, "less than or equal to 100"),
        ({"rollbackThresholds_successRate": "-1"}, "greater than or equal to 0"),
        ({"healthCriteria_watchDuration": "P1Y"}, "no fixed length"),
        ({"scheduledAt": "2001-01-01T00:00"}, "Lies in the past"),
        ({"strategy": "Sideways"}, "Select a valid choice"),
        ({"strategy": "Regional", "regionOrder": "ATLANTIS"}, "is no region"),
        ({"strategy": "Rolling", "batchSize": "0"}, "greater than or equal to 1"),
    ]

    for changes, said in wrong:
        form = form_for(free, name="keep me", **changes)
        answer = preview(operator_client, form)
        text = answer.content.decode()
        assert said in text, changes
        assert "keep me" in text
        assert "preview" not in answer.context


@pytest.mark.parametrize(
    ("typed", "seconds"), [("90 s", 90.0), ("10 minutes", 600.0), ("1h", 3600.0)]
)
def test_durations_are_typed_as_people_write_them(
    operator_client: ConsoleClient, free: Scene, typed: str, seconds: float
) -> None:
    launch_after(operator_client, form_for(free, name="typed", waitDuration=typed))

    launched = Deployment.objects.get(name="typed")
    assert launched.parameters["wait_duration"] == seconds


def test_a_duration_that_nobody_understands_is_refused_with_an_example(
    operator_client: ConsoleClient, free: Scene
) -> None:
    shown = preview(operator_client, form_for(free, waitDuration="a while"))

    text = html.unescape(shown.content.decode())
    assert "'a while' is no duration. As in 90 s, 30 min or 1 h 30 min." in text
    assert 'value="a while"' in text


def test_the_launch_form_shows_durations_in_words(
    operator_client: ConsoleClient, scene: Scene, settings: Any
) -> None:
    settings.DEMO_CLOCK = ""

    page = operator_client.get(LAUNCH).content.decode()

    assert re.search(r'name="waitDuration" value="1 h"', page)
    assert re.search(r'name="offlineDeadline" value="1 d"', page)
    assert "PT1H" not in page


def test_a_preview_shows_waits_in_full_and_leads_to_itself(
    operator_client: ConsoleClient, free: Scene
) -> None:
    before = operator_client.get(LAUNCH).content.decode()
    page = preview(operator_client, form_for(free, waitDuration="90")).content.decode()

    assert "then a wait of 1 min 30 s" in page
    assert f'formaction="{LAUNCH}#hs-result"' in before
    assert before.count('id="hs-result"') == page.count('id="hs-result"') == 1


def test_a_preview_counts_the_devices_that_are_not_online(
    operator_client: ConsoleClient, free: Scene
) -> None:
    DeviceState.objects.filter(device=free.device).delete()

    shown = preview(operator_client, form_for(free))

    radius = shown.context["preview"].blast_radius
    absent = shown.context["preview"].targets.eligible - radius.online
    assert shown.context["absent"] == absent > 0
    assert f"<dt>Offline or never seen</dt><dd>{absent}" in shown.content.decode()


def live_preview(client: ConsoleClient, form: dict[str, Any]) -> Any:
    return client.post(LAUNCH, form, headers={"HX-Request": "true"})


def test_the_preview_follows_the_form_while_it_is_filled_in(
    operator_client: ConsoleClient, free: Scene
) -> None:
    before = Deployment.objects.count()
    page = operator_client.get(LAUNCH).content.decode()

    piece = live_preview(operator_client, form_for(free)).content.decode()
    launching = live_preview(operator_client, {**form_for(free), "launch": "1"})

    assert f'hx-post="{LAUNCH}"' in page
    assert "<html" not in piece
    assert 'id="hs-launch-bar" hx-swap-oob="true"' in piece
    assert "Launch canary on 4 devices" in piece
    assert "4 devices</b>, 100.0 % of the model; the first stage reaches 1." in piece
    assert launching.status_code == 200
    assert Deployment.objects.count() == before


def test_a_form_that_is_not_complete_says_what_is_missing(
    operator_client: ConsoleClient, free: Scene
) -> None:
    form = form_for(free, firmwareId="", waitDuration="a while")

    piece = html.unescape(live_preview(operator_client, form).content.decode())

    assert "<b>Firmware:</b> This field is required." in piece
    assert "<b>Wait between stages:</b> 'a while' is no duration." in piece
    assert "preview first" in piece


def test_what_was_confirmed_counts_for_the_same_preview_alone(
    operator_client: ConsoleClient, free: Scene
) -> None:
    shown = live_preview(operator_client, form_for(free))
    ticked = confirmed_after(shown)
    assert ticked["acknowledge"] or "typed" in ticked

    same = live_preview(operator_client, {**form_for(free), **ticked})
    other = live_preview(operator_client, {**form_for(free, name="x"), **ticked})

    assert same.context["to_confirm"] == 0
    assert other.context["to_confirm"] == shown.context["to_confirm"] > 0


@pytest.mark.parametrize(
    ("changes", "boxes"),
    [
        ({"strategy": "Direct"}, 1),
        ({}, 3),
        ({"strategy": "BlueGreen", "verificationDuration": "60"}, 2),
        ({"strategy": "Rolling", "batchSize": "1", "maxConcurrentBatches": "2"}, 4),
    ],
)
def test_the_stages_are_drawn_as_they_would_be(
    operator_client: ConsoleClient, free: Scene, changes: Any, boxes: int
) -> None:
    shown = live_preview(operator_client, form_for(free, **changes))

    drawing = shown.context["drawing"]
    assert len(drawing.boxes) == boxes
    assert shown.content.decode().count('class="hs-box"') == boxes
    assert (drawing.switch is not None) is (changes.get("strategy") == "BlueGreen")


def test_a_start_is_in_the_zone_of_whoever_launches(
    operator_client: ConsoleClient, free: Scene
) -> None:
    year = timezone.now().year + 1
    form = form_for(
        free,
        name="morning",
        scheduledAt=f"{year}-07-01T22:00",
        scheduledZone="Europe/Berlin",
    )

    shown = preview(operator_client, form).content.decode()
    launch_after(operator_client, form)

    assert f"01 July {year}, 22:00 Europe/Berlin, that is {year}-07-01 20:00" in shown
    at = Deployment.objects.get(name="morning").scheduled_at
    assert at is not None
    assert f"{at:%Y-%m-%d %H:%M}" == f"{year}-07-01 20:00"


@pytest.mark.parametrize(
    ("at", "zone", "said"),
    [
        ("2035-03-25T02:30", "Europe/Berlin", "No clock of this zone shows that time"),
        ("2035-03-25T02:30", "Mars/Base", "Mars/Base is not a time zone"),
    ],
)
def test_a_start_that_no_clock_shows_is_refused(
    operator_client: ConsoleClient, free: Scene, at: str, zone: str, said: str
) -> None:
    form = form_for(free, scheduledAt=at, scheduledZone=zone)

    assert said in preview(operator_client, form).content.decode()


def test_a_time_makes_it_scheduled(operator_client: ConsoleClient, free: Scene) -> None:
    later = timezone.now().replace(year=timezone.now().year + 1, day=1)
    form = form_for(free, name="later", scheduledAt=f"{later:%Y-%m-%dT%H:%M}")

    launch_after(operator_client, form)

    deployment = Deployment.objects.get(name="later")
    assert deployment.status == DeploymentStatus.SCHEDULED
    page = operator_client.get(url_of(deployment, "change"))
    assert b"Waiting: its time to start" in page.content


def test_a_scheduled_deployment_is_edited_by_the_form_of_its_launch(
    operator_client: ConsoleClient, free: Scene
) -> None:
    later = timezone.now().replace(year=timezone.now().year + 1, day=1)
    at = f"{later:%Y-%m-%dT%H:%M}"
    launch_after(operator_client, form_for(free, name="later", scheduledAt=at))
    deployment = Deployment.objects.get(name="later")
    page = operator_client.get(url_of(deployment, "change")).content.decode()
    edit = url_of(deployment, "edit")

    opened = operator_client.get(edit)
    form = form_for(free, name="sooner", scheduledAt=at, maxAttempts="7")
    form["version"] = opened.context["version"]
    shown = operator_client.post(edit, {**form, "preview": "1"})
    agreed = {**confirmed_after(shown), "launch": "1"}
    saved = operator_client.post(edit, {**form, **agreed})
    stale = operator_client.post(edit, {**form, **agreed, "name": "sooner"})

    assert edit in page
    assert "If it started now: " in page
    assert opened.context["form"].initial["scheduledAt"] == at
    assert opened.context["form"].initial["maxAttempts"] == 2
    assert saved.status_code == 302
    deployment.refresh_from_db()
    assert (deployment.name, deployment.max_attempts) == ("sooner", 7)
    assert deployment.status == DeploymentStatus.SCHEDULED
    assert "has changed since you read it" in stale.content.decode()


def test_a_deployment_that_has_started_is_not_edited(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    page = operator_client.get(url_of(scene.deployment, "change")).content.decode()

    opened = operator_client.get(url_of(scene.deployment, "edit"))

    assert url_of(scene.deployment, "edit") not in page
    assert opened.status_code == 200


def test_only_approved_firmware_is_offered(
    operator_client: ConsoleClient, free: Scene
) -> None:
    answer = operator_client.get(LAUNCH)

    offered = dict(answer.context["form"].fields["firmwareId"].choices)
    assert str(free.approved.pk) in offered
    assert str(free.draft.pk) not in offered


# --- Fleets of a blue-green deployment ---------------------------------


def test_a_blue_green_launch_takes_its_fields(
    operator_client: ConsoleClient, free: Scene
) -> None:
    Device.objects.filter(device_id="d-001").update(tags={"rack": "b"})
    given = form_for(
        free,
        strategy="BlueGreen",
        verificationDuration="60",
        greenFleet_tag="rack: b",
        switchHold="30",
        onBlueFailure="both",
    )

    launch_after(operator_client, given)
    deployment = Deployment.objects.get(strategy="BlueGreen")

    assert deployment.parameters == {
        "verification_duration": 60.0,
        "green_fleet": {"tag": {"rack": "b"}},
        "switch_hold": 30.0,
        "hold_until_acknowledged": False,
        "on_blue_failure": "both",
    }
    copied = operator_client.get(url_of(deployment, "copy")).content.decode()
    assert 'value="rack:b"' in copied


def test_a_hold_is_shown_and_acknowledged(
    operator_client: ConsoleClient, free: Scene
) -> None:
    deployment = free.world.launch(
        free.approved,
        "BlueGreen",
        parameters={"verification_duration": 30.0, "hold_until_acknowledged": True},
    )

    page = operator_client.get(url_of(deployment, "live")).content.decode()
    operator_client.post(url_of(deployment, "acknowledge-hold"), {"comment": "off"})
    after = operator_client.get(url_of(deployment, "change")).content.decode()

    assert "The green fleet is to drain before it is updated" in page
    assert url_of(deployment, "acknowledge-hold") in page
    assert "is to drain before" not in after
    assert "fleet.drained" in after


def test_who_completed_with_failures_is_not_shown_as_completed(
    operator_client: ConsoleClient, db: None
) -> None:
    world = World()
    old, new = world.image("1.0.0"), world.image("2.0.0")
    bad, *good = world.fleet(3, old)
    deployment = world.launch(new, health_threshold=1, max_attempts=1)
    for device in good:
        device.poll()
        device.go_through()
    bad.poll()
    bad.report("failed", error_code="self_test_failed", message="it crashed")
    world.live_on(20)
    deployment.refresh_from_db()
    assert deployment.status == DeploymentStatus.COMPLETED

    page = operator_client.get(url_of(deployment, "live")).content.decode()
    listed = operator_client.get(reverse("admin:deployments_deployment_changelist"))
    report = operator_client.get(url_of(deployment, "report")).content.decode()
    health = operator_client.get(url_of(deployment, "health")).content.decode()

    for text in (page, listed.content.decode(), report):
        assert "Completed, 1 failed" in text
        assert "2 of 3" in text
    assert "<h3>Health now" in health
    assert "They run now: <b>2.0.0</b> (2), <b>1.0.0</b> (1)." in health


def test_a_retry_says_whom_a_quarantine_leaves_out(
    operator_client: ConsoleClient, db: None
) -> None:
    world = World()
    old, new = world.image("1.0.0"), world.image("2.0.0")
    fleet = world.fleet(3, old)
    deployment = world.launch(new, health_threshold=1, max_attempts=1)
    good, *bad = fleet
    good.poll()
    good.go_through()
    for device in bad:
        device.poll()
        device.report("failed", error_code="self_test_failed", message="it crashed")
    world.live_on(20)
    Quarantine.objects.update_or_create(
        device_id=bad[0].pk,
        firmware=new,
        defaults={"quarantined_at": world.now, "updated_at": world.now},
    )

    dialog = operator_client.get(url_of(deployment, "retry-failed")).content.decode()
    operator_client.post(url_of(deployment, "retry-failed"), {"reason": "mended"})

    assert "1 device that failed, or went back alone, will get the order" in dialog
    assert "1 more device is quarantined and left alone" in dialog
    assert statuses(deployment) == {"success": 1, "failed": 1, "pending": 1}
