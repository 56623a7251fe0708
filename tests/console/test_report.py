"""The health report of a deployment, and its devices as CSV."""

import csv
import io
from datetime import timedelta

import pytest
from django.utils import timezone

from deployments.models import Deployment, Target
from deployments.rules.codes import next_step
from deployments.services.operate import rollback_deployment
from devices.models import Device
from tests.console.conftest import ConsoleClient, Scene


def url_of(deployment: Deployment, page: str) -> str:
    return f"/admin/deployments/deployment/{deployment.pk}/{page}"


def content(client: ConsoleClient, deployment: Deployment) -> str:
    answer = client.get(url_of(deployment, "report/"))
    assert answer.status_code == 200
    return answer.content.decode()


def rolled_back(scene: Scene) -> Deployment:
    """Let the canary breach, and the deployment go back."""
    scene.world.tick()
    bad, *_ = scene.world.update_offered()
    bad.beat(application_metrics={"errorRate": 0.5})
    scene.world.tick()
    scene.world.update_offered()
    scene.world.tick()
    scene.deployment.refresh_from_db()
    return scene.deployment


def test_a_report_before_anything_happened_claims_no_numbers(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    text = content(viewer_client, scene.deployment)

    assert "none, as no device is exposed" in text
    assert "No device has failed" in text
    assert "As of <b>" in text
    assert f"GET /api/v1/deployments/{scene.deployment.pk}/health-report" in text


def test_the_report_of_one_that_is_scheduled_says_when_it_starts(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    scene.world.now = timezone.now()
    deployment = scene.world.launch(
        scene.world.image("2.0.0"),
        scheduled_at=scene.world.now + timedelta(hours=3, minutes=1),
    )

    text = content(viewer_client, deployment)

    assert "not yet; starts" in text
    assert ">in 3 h</time>" in text
    assert "set at the start" in text


def test_the_report_says_what_tripped_and_what_to_do(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    deployment = rolled_back(scene)

    text = content(viewer_client, deployment)

    assert deployment.status == "RolledBack"
    assert "by the gate of stage 1" in text
    assert "best rate still reachable 0.0 %, below 95 %" in text
    assert "<code>error_rate</code>" in text
    assert next_step("error_rate") in text


def test_the_report_says_which_devices_are_not_confirmed_and_what_to_do(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    world = scene.world
    (bad,) = world.update_offered()
    Device.objects.filter(pk=bad.pk).update(security_version=9)
    rollback_deployment(
        actor=world.admin,
        deployment_id=scene.deployment.pk,
        reason="no",
        now=world.now,
    )
    world.tick()

    text = content(viewer_client, scene.deployment)

    assert "Not confirmed on the former image" in text
    assert f"<b>{bad.name}</b>" in text
    assert "<code>rollback_forbidden</code>" in text
    assert next_step("rollback_forbidden") in text


def test_the_report_names_the_devices_that_tripped_it(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    deployment = rolled_back(scene)
    failed = Target.objects.get(deployment=deployment, error_code="error_rate")

    text = content(viewer_client, deployment)

    assert f"{failed.device.device_id} <code>error_rate</code>" in text
    assert "median time to restore" in text


def test_the_live_page_leads_to_the_report(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    part = viewer_client.get(url_of(scene.deployment, "live/"))

    assert url_of(scene.deployment, "report/") in part.content.decode()


def test_the_devices_are_given_as_csv(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    deployment = rolled_back(scene)

    answer = viewer_client.get(url_of(deployment, "report.csv"))

    rows = list(csv.DictReader(io.StringIO(answer.getvalue().decode())))
    assert "attachment" in answer["Content-Disposition"]
    assert [row["deviceId"] for row in rows] == list(
        Target.objects.filter(deployment=deployment)
        .order_by("rank")
        .values_list("device__device_id", flat=True)
    )
    assert rows[0]["status"] == "rolled_back"
    assert rows[0]["outcome"] == "restored"
    assert rows[0]["nextStep"] == next_step("error_rate")
    assert rows[1]["status"] == "cancelled"
    assert rows[1]["outcome"] == ""


def test_a_cell_is_never_a_formula(viewer_client: ConsoleClient, scene: Scene) -> None:
    Target.objects.filter(deployment=scene.deployment).update(message="=1+1")

    answer = viewer_client.get(url_of(scene.deployment, "report.csv"))

    rows = csv.DictReader(io.StringIO(answer.getvalue().decode()))
    assert {row["message"] for row in rows} == {"'=1+1"}


@pytest.mark.parametrize("page", ["report/", "report.csv"])
def test_both_are_only_read(
    viewer_client: ConsoleClient, scene: Scene, page: str
) -> None:
    answer = viewer_client.post(url_of(scene.deployment, page), {"any": "thing"})

    assert answer.status_code == 405
