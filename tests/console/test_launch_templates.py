"""Launch templates: kept from the form, and started from."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from deployments.console.actions.launch import form_values
from deployments.console.actions.launch_form import LaunchForm
from deployments.models import Deployment, LaunchTemplate
from deployments.services import launch_templates
from hotswap.common.models import AuditEvent
from tests.console.conftest import ConsoleClient, Scene
from tests.console.test_deployments import LAUNCH, form_for, url_of
from tests.devices.factories import GroupFactory

FORMS: dict[str, dict[str, Any]] = {
    "canary": {},
    "direct": {"strategy": "Direct"},
    "rolling, own device ids": {
        "strategy": "Rolling",
        "target": "devices",
        "targetDevices": "d-001, d-002",
        "batchSize": "2",
    },
    "blue-green by tag": {"strategy": "BlueGreen", "greenFleet_tag": "rack:b"},
    "regional, own order": {
        "strategy": "Regional",
        "regionOrder": "EU, US-EAST, APAC",
    },
    "some regions, window": {
        "target": "regions",
        "regions": ["EU", "US-EAST"],
        "maintenanceWindow_days": ["SA", "SU"],
        "maintenanceWindow_start": "01:00",
        "maintenanceWindow_end": "05:00",
        "maintenanceWindow_timezone": "Europe/Berlin",
        "requireApprovalPerStage": "on",
        "startSpread": "5 min",
    },
}


def save(client: ConsoleClient, form: dict[str, Any], name: str, **more: Any) -> Any:
    sent = {**form, "templateName": name, "saveTemplate": "1", **more}
    return client.post(LAUNCH, sent, headers={"HX-Request": "true"})


@pytest.mark.parametrize("changes", FORMS.values(), ids=FORMS)
def test_a_launch_from_a_template_has_its_settings(
    operator_client: ConsoleClient, scene: Scene, changes: dict[str, Any]
) -> None:
    tomorrow = timezone.now() + timedelta(days=1)
    start = {"name": "once", "scheduledAt": f"{tomorrow:%Y-%m-%dT%H:%M}"}
    form = form_for(scene, **start, **changes)

    answer = save(operator_client, form, "nightly")

    assert "The template nightly is saved." in answer.content.decode()
    template = LaunchTemplate.objects.get()
    opened = operator_client.get(LAUNCH, {"template": str(template.pk)}).context["form"]
    sent = {
        each.html_name: value
        for each in opened
        if (value := each.initial) not in (None, "", False)
    }
    again = LaunchForm(sent | {"firmwareId": str(scene.approved.pk)})
    assert again.is_valid(), again.errors
    launched = form_values(again.body)
    kept = form_values(template.body)
    # What was left empty stands there with its usual value now.
    assert launched | kept == launched
    assert not {"firmwareId", "name", "scheduledAt"} & set(template.body)
    assert Deployment.objects.filter(name="once").count() == 0


def test_the_launch_page_names_the_templates_and_which_it_began_with(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    save(operator_client, form_for(scene), "nightly")
    save(operator_client, form_for(scene, strategy="Direct"), "at once")
    wanted = LaunchTemplate.objects.get(name="at once")

    page = operator_client.get(
        LAUNCH, {"template": str(wanted.pk), "firmwareId": str(scene.approved.pk)}
    )
    copy = operator_client.get(url_of(scene.deployment, "copy"))

    shown = {each["name"]: each["is_shown"] for each in page.context["templates"]}
    assert shown == {"at once": True, "nightly": False}
    assert page.context["form"].initial["strategy"] == "Direct"
    assert page.context["form"].initial["firmwareId"] == str(scene.approved.pk)
    # What is launched again begins with what it was.
    assert copy.context["templates"] == []


def test_a_deployment_that_went_well_becomes_a_template(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    answer = operator_client.post(
        url_of(scene.deployment, "copy"),
        {**form_for(scene), "templateName": "proven", "saveTemplate": "1"},
        headers={"HX-Request": "true"},
    )

    # Nothing is launched, so that no reason is asked for.
    assert "The template proven is saved." in answer.content.decode()
    assert LaunchTemplate.objects.get().body["maxAttempts"] == 2


@pytest.mark.parametrize(
    ("changes", "name", "said"),
    [
        ({}, "", "This field is required."),
        ({}, "n" * 65, "at most 64 characters"),
        ({"firmwareId": ""}, "nightly", "Firmware: This field is required."),
        ({"waitDuration": "soon"}, "nightly", "is no duration"),
        ({"initialPercentage": "400"}, "nightly", "less than or equal to 100"),
    ],
)
def test_what_cannot_be_kept_is_said(
    operator_client: ConsoleClient,
    scene: Scene,
    changes: dict[str, Any],
    name: str,
    said: str,
) -> None:
    answer = save(operator_client, form_for(scene, **changes), name)

    assert said in answer.content.decode()
    assert not LaunchTemplate.objects.exists()


def test_a_template_is_replaced_and_removed_and_the_trail_says_so(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    save(operator_client, form_for(scene), "nightly")
    save(operator_client, form_for(scene, maxAttempts="5"), "nightly")
    template = LaunchTemplate.objects.get()
    removal = operator_client.get(LAUNCH).context["templates"][0]["removal"]

    asked = operator_client.get(removal)
    gone = operator_client.post(removal, {"name": "nightly"})

    assert template.body["maxAttempts"] == 5
    assert b"Nobody can start from it any more" in asked.content
    assert (gone.status_code, gone.headers["Location"]) == (302, LAUNCH)
    assert not LaunchTemplate.objects.exists()
    events = AuditEvent.objects.filter(object_kind="launch-template").order_by("id")
    assert [each.verb for each in events] == [
        *("launch-template.created", "launch-template.changed"),
        "launch-template.deleted",
    ]
    assert events[1].details["changes"]["body.maxAttempts"] == {"from": 2, "to": 5}


def test_there_are_at_most_a_hundred(
    operator_client: ConsoleClient, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_templates, "KEPT_AT_MOST", 1)
    save(operator_client, form_for(scene), "nightly")

    refused = save(operator_client, form_for(scene), "weekly")
    replaced = save(operator_client, form_for(scene), "nightly")

    assert "1 templates are kept" in refused.content.decode()
    assert "The template nightly is saved." in replaced.content.decode()
    assert LaunchTemplate.objects.count() == 1


def test_a_viewer_neither_saves_nor_removes(
    viewer_client: ConsoleClient, operator_client: ConsoleClient, scene: Scene
) -> None:
    save(operator_client, form_for(scene), "nightly")
    removal = operator_client.get(LAUNCH).context["templates"][0]["removal"]

    saved = save(viewer_client, form_for(scene), "weekly")
    removed = viewer_client.post(removal, {"name": "nightly"})

    assert (saved.status_code, removed.status_code) == (403, 403)
    assert LaunchTemplate.objects.get().name == "nightly"


def test_a_template_outlives_what_it_names(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    group = GroupFactory.create()
    group_id = str(group.pk)
    form = form_for(scene, target="groups", targetGroups=[group_id])
    save(operator_client, form, "of a group")
    group.delete()
    template = LaunchTemplate.objects.get()

    page = operator_client.get(LAUNCH, {"template": str(template.pk)})
    unknown = operator_client.get(LAUNCH, {"template": "no-such"})

    assert page.status_code == unknown.status_code == 200
    assert group_id not in page.content.decode()
    sent = form_for(scene, target="groups", targetGroups=[group_id])
    assert (
        b"is not one of the available choices"
        in save(operator_client, sent, "again").content
    )
