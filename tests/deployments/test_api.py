"""The routes of deployments, and those of devices that need them."""

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from deployments.models import Deployment, Event, Report, Target, Update
from deployments.reads.status import deployment_status
from deployments.rules.events import EventName
from deployments.services.log import log
from deployments.services.requests import Selection
from devices.services.groups import add_members, create_group
from firmware.models import Firmware
from tests.api import Caller, pointers, problem_of
from tests.callers import PersonCaller
from tests.deployments.world import EVERY_WARNING, ScriptedDevice, World
from tests.devices.factories import device_token


@pytest.fixture
def old(world: World) -> Firmware:
    return world.image("2.4.0")


@pytest.fixture
def new(world: World, old: Firmware) -> Firmware:
    return world.image("2.5.0")


def launch_body(firmware: Firmware, **changes: Any) -> dict[str, Any]:
    """A canary over everyone; a change to None leaves the field out."""
    body = {
        "firmwareId": str(firmware.pk),
        "strategy": "Canary",
        "targetAll": True,
        "initialPercentage": 10,
        "increments": [30, 100],
        "waitDuration": "PT1M",
        "acknowledge": EVERY_WARNING,
    } | changes
    return {name: value for name, value in body.items() if value is not None}


OF_NO_CANARY = dict.fromkeys(("initialPercentage", "increments", "waitDuration"))


def as_device(device: ScriptedDevice) -> Caller:
    return Caller(token=device_token(device.device))


def test_a_launch_answers_with_its_targets_and_stages(
    world: World, old: Firmware, new: Firmware, operator: PersonCaller
) -> None:
    world.fleet(10, old)

    response = operator.post("/deployments", launch_body(new))

    assert response.status_code == 201, response.content
    body = response.json()
    assert body["firmware"] == {"id": str(new.pk), "version": "2.5.0"}
    assert body["targets"] == {"matched": 10, "eligible": 10, "excluded": []}
    assert [(s["number"], s["name"], s["size"]) for s in body["stages"]] == [
        (1, "10 %", 1),
        (2, "30 %", 2),
        (3, "100 %", 7),
    ]
    assert response["Location"] == f"/api/v1/deployments/{body['id']}"


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"firmwareId": "not-a-uuid"}, "/firmwareId", "invalid"),
        ({"firmwareId": None}, "/firmwareId", "required"),
        ({"firmwareId": 7}, "/firmwareId", "invalid"),
        ({"targetGroups": [7], "targetAll": None}, "/targetGroups/0", "invalid"),
        ({"strategy": "BigBang"}, "/strategy", "invalid_choice"),
        ({"targetAll": None}, "/targetDevices", "required"),
        ({"targetDevices": ["a"]}, "/targetDevices", "conflict"),
        ({"targetAll": "yes"}, "/targetAll", "invalid"),
        ({"increments": [30, 20]}, "/increments", "invalid"),
        ({"increments": [101]}, "/increments/0", "max_value"),
        ({"increments": ["30"]}, "/increments/0", "invalid"),
        ({"initialPercentage": 0}, "/initialPercentage", "min_value"),
        ({"initialPercentage": 10.5}, "/initialPercentage", "invalid"),
        ({"waitDuration": "1 hour"}, "/waitDuration", "invalid"),
        ({"waitDuration": "P1M"}, "/waitDuration", "invalid"),
        ({"waitDuration": "-PT1M"}, "/waitDuration", "invalid"),
        ({"healthThreshold": 101}, "/healthThreshold", "max_value"),
        ({"scheduledAt": "2020-01-01T00:00:00Z"}, "/scheduledAt", "invalid"),
        ({"scheduledAt": "2099-01-01T00:00:00"}, "/scheduledAt", "no_zone"),
        ({"scheduledAt": "2099-01-01"}, "/scheduledAt", "no_zone"),
        ({"scheduledAt": "soon"}, "/scheduledAt", "invalid"),
        ({"surprise": 1}, "/surprise", "unknown"),
        ({"strategy": 5}, "/strategy", "invalid_choice"),
        (
            {"healthCriteria": {"heartbeatsRequired": 62}},
            "/healthCriteria/heartbeatsRequired",
            "invalid",
        ),
        (
            {
                "healthCriteria": {
                    "heartbeatsRequired": 12,
                    "confirmationDuration": "PT10S",
                }
            },
            "/healthCriteria/heartbeatsRequired",
            "invalid",
        ),
        (
            {"healthCriteria": {"heartbeatsRequired": 0}},
            "/healthCriteria/heartbeatsRequired",
            "min_value",
        ),
        (
            {"rollbackThresholds": {"errorRate": 10}},
            "/rollbackThresholds/errorRate",
            "max_value",
        ),
        (
            {"rollbackThresholds": {"surprise": 10}},
            "/rollbackThresholds/surprise",
            "unknown",
        ),
        ({"maxAttempts": 0}, "/maxAttempts", "min_value"),
        ({"offlineDevices": "panic"}, "/offlineDevices", "invalid_choice"),
        ({"regions": ["ATLANTIS"], "targetAll": None}, "/regions/0", "invalid_choice"),
        ({"targetDevices": [], "targetAll": None}, "/targetDevices", "min_length"),
    ],
)
def test_a_bad_launch_names_the_field_and_writes_nothing(
    world: World,
    old: Firmware,
    new: Firmware,
    operator: PersonCaller,
    changes: dict[str, Any],
    pointer: str,
    code: str,
) -> None:
    world.fleet(2, old)

    response = operator.post("/deployments", launch_body(new, **changes))

    document = problem_of(response, 400)
    assert pointers(document).get(pointer) == code
    assert not Deployment.objects.exists()


def test_a_refused_choice_and_a_time_without_zone_say_what_is_right(
    new: Firmware, operator: PersonCaller
) -> None:
    body = launch_body(new, strategy="BigBang", scheduledAt="2099-01-01T00:00:00")

    document = problem_of(operator.post("/deployments", body), 400)

    said = {error["pointer"]: error["detail"] for error in document["errors"]}
    assert said["/strategy"] == (
        "must be one of Direct, Regional, Canary, BlueGreen, Rolling, not 'BigBang'"
    )
    assert "add Z for UTC" in said["/scheduledAt"]
    assert document["detail"].startswith("2 errors: strategy: must be one of")


@pytest.mark.parametrize("name", ["BlueGreen", "Blue-Green", "blue-green"])
def test_blue_green_may_be_spelled_as_the_specification_does(
    world: World, old: Firmware, new: Firmware, operator: PersonCaller, name: str
) -> None:
    world.fleet(2, old)
    body = launch_body(new, strategy=name, **OF_NO_CANARY)

    made = operator.post("/deployments", body).json()

    assert made["strategy"] == "BlueGreen"


@pytest.mark.parametrize(
    ("increments", "devices", "added"),
    [([30, 50], 10, 5), ([30, 100], 10, None), ([90], 5, None)],
)
def test_a_stage_that_is_added_to_a_canary_is_said(
    world: World,
    old: Firmware,
    new: Firmware,
    operator: PersonCaller,
    increments: list[int],
    devices: int,
    added: int | None,
) -> None:
    world.fleet(devices, old)

    body = launch_body(new, increments=increments)

    answers = [
        operator.post(path, body).json()
        for path in ("/deployments/preview", "/deployments")
    ]

    for answer in answers:
        found = [x["count"] for x in answer["warnings"] if x["code"] == "stage_added"]
        assert found == ([] if added is None else [added])


def test_firmware_and_groups_may_be_named(
    world: World, old: Firmware, new: Firmware, operator: PersonCaller
) -> None:
    world.fleet(3, old)
    lab = create_group(actor=world.admin, name="lab")
    field = create_group(actor=world.admin, name="field: north")
    add_members(actor=world.admin, group_id=lab.pk, device_ids=["d-000"])
    add_members(actor=world.admin, group_id=field.pk, device_ids=["d-001"])
    body = launch_body(
        new,
        firmwareId="sensor-v1:2.5.0",
        targetAll=None,
        targetGroups=["field: north", str(lab.pk), "lab"],
    )

    preview = operator.post("/deployments/preview", body).json()
    made = operator.post("/deployments", body)

    assert preview["firmware"]["id"] == str(new.pk)
    assert made.status_code == 201, made.content
    assert made.json()["firmware"]["id"] == str(new.pk)
    assert made.json()["targets"]["eligible"] == 2


@pytest.mark.parametrize(
    ("changes", "status", "pointer", "code"),
    [
        ({"firmwareId": "sensor-v1"}, 400, "/firmwareId", "invalid"),
        ({"firmwareId": "sensor-v1:"}, 400, "/firmwareId", "invalid"),
        ({"firmwareId": ":2.5.0"}, 400, "/firmwareId", "invalid"),
        ({"firmwareId": "sensor-v1:9.9.9"}, 422, "/firmwareId", "unknown_firmware"),
        ({"firmwareId": "gone-v1:2.5.0"}, 422, "/firmwareId", "unknown_firmware"),
        (
            {"targetAll": None, "targetGroups": ["lab", "nobody"]},
            422,
            "/targetGroups/1",
            "unknown_group",
        ),
        (
            {"targetAll": None, "targetGroups": [str(uuid4())]},
            422,
            "/targetGroups/0",
            "unknown_group",
        ),
    ],
)
def test_names_that_nothing_has_are_refused(
    world: World,
    old: Firmware,
    new: Firmware,
    operator: PersonCaller,
    changes: dict[str, Any],
    status: int,
    pointer: str,
    code: str,
) -> None:
    world.fleet(1, old)
    create_group(actor=world.admin, name="lab")

    for path in ("/deployments", "/deployments/preview"):
        answer = operator.post(path, launch_body(new, **changes))
        assert pointers(problem_of(answer, status)) == {pointer: code}


def test_fields_of_another_strategy_are_refused(
    new: Firmware, operator: PersonCaller
) -> None:
    response = operator.post("/deployments", launch_body(new, strategy="Direct"))

    document = problem_of(response, 400)
    assert set(pointers(document)) == {
        "/initialPercentage",
        "/increments",
        "/waitDuration",
    }


@pytest.mark.parametrize(
    ("body", "stages", "threshold"),
    [
        (
            {
                "strategy": "Regional",
                "regions": ["APAC", "US-EAST"],
                "pauseDuration": "PT30M",
                "healthCheckThreshold": 98.5,
            },
            [("APAC", 1, 1800), ("US-EAST", 3, 0)],
            98.5,
        ),
        (
            {"strategy": "Regional", "targetAll": True},
            [("US-EAST", 3, 1800), ("APAC", 1, 0)],
            99,
        ),
        (
            {
                "strategy": "BlueGreen",
                "targetAll": True,
                "verificationDuration": "PT1H",
            },
            [("green", 2, 3600), ("blue", 2, 3600)],
            99.5,
        ),
        (
            {
                "strategy": "Rolling",
                "targetAll": True,
                "batchSize": 3,
                "batchWaitDuration": "PT1M",
                "maxConcurrentBatches": 2,
            },
            [("batch 1", 3, 60), ("batch 2", 1, 60)],
            99,
        ),
    ],
)
def test_each_strategy_takes_the_fields_of_the_specification(
    world: World,
    old: Firmware,
    new: Firmware,
    operator: PersonCaller,
    body: dict[str, Any],
    stages: list[tuple[str, int, int]],
    threshold: float,
) -> None:
    world.fleet(3, old, region="US-EAST", prefix="east")
    world.fleet(1, old, region="APAC", prefix="apac")
    request = {"firmwareId": str(new.pk), "acknowledge": EVERY_WARNING, **body}

    preview = operator.post("/deployments/preview", request)
    made = operator.post("/deployments", request)

    assert made.status_code == 201, made.content
    deployment = Deployment.objects.get(pk=made.json()["id"])
    assert deployment.health_threshold == threshold
    assert [
        (stage["name"], stage["size"], stage["waitSeconds"])
        for stage in preview.json()["stages"]
    ] == stages
    assert [
        (stage.name, stage.size, stage.wait_seconds)
        for stage in deployment.stages.all()
    ] == stages


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"strategy": "Regional", "batchSize": 1}, "/batchSize", "foreign"),
        (
            {"strategy": "Canary", "healthCheckThreshold": 99},
            "/healthCheckThreshold",
            "foreign",
        ),
        (
            {
                "strategy": "Regional",
                "healthCheckThreshold": 99,
                "healthThreshold": 98,
            },
            "/healthCheckThreshold",
            "conflict",
        ),
        (
            {"strategy": "Regional", "regions": ["APAC", "APAC"], "targetAll": None},
            "/regions",
            "duplicate",
        ),
        ({"strategy": "Rolling", "batchSize": 0}, "/batchSize", "min_value"),
        (
            {"strategy": "Rolling", "maxConcurrentBatches": 0},
            "/maxConcurrentBatches",
            "min_value",
        ),
        ({"strategy": "Direct", "startSpread": "P1D"}, "/startSpread", "invalid"),
        (
            {"strategy": "BlueGreen", "verificationDuration": "2 hours"},
            "/verificationDuration",
            "invalid",
        ),
    ],
)
def test_a_field_that_does_not_fit_its_strategy_is_named(
    world: World,
    old: Firmware,
    new: Firmware,
    operator: PersonCaller,
    body: dict[str, Any],
    pointer: str,
    code: str,
) -> None:
    world.fleet(1, old)
    request = {"firmwareId": str(new.pk), "targetAll": True, **body}
    request = {name: value for name, value in request.items() if value is not None}

    response = operator.post("/deployments", request)

    assert pointers(problem_of(response, 400)).get(pointer) == code
    assert not Deployment.objects.exists()


def test_unapproved_firmware_and_a_wrong_model_are_impossible(
    world: World, old: Firmware, operator: PersonCaller
) -> None:
    world.fleet(1, old)
    draft = world.image("2.6.0", approved=False)
    foreign = world.image("1.0.0", model="gateway-v1")

    unapproved = operator.post("/deployments", launch_body(draft))
    mismatched = operator.post(
        "/deployments", launch_body(foreign, targetDevices=["d-000"], targetAll=None)
    )

    problem_of(unapproved, 422, "firmware_not_approved")
    document = problem_of(mismatched, 422, "ineligible_devices")
    assert pointers(document) == {"/targetDevices/0": "wrong_model"}
    assert not Deployment.objects.exists()


def test_a_preview_shows_the_plan_and_writes_nothing(
    world: World, old: Firmware, new: Firmware, operator: PersonCaller
) -> None:
    world.fleet(10, old)

    response = operator.post("/deployments/preview", launch_body(new))

    assert response.status_code == 200
    assert [s["exposedDevices"] for s in response.json()["stages"]] == [1, 3, 10]
    assert not Deployment.objects.exists()


def test_the_status_counts_exactly(
    world: World, old: Firmware, new: Firmware, viewer: PersonCaller
) -> None:
    world.fleet(10, old)
    deployment = world.launch(new, "Canary")
    world.update_offered()

    body = viewer.get(f"/deployments/{deployment.pk}/status").json()

    assert body["status"] == "Running"
    assert body["stage"]["number"] == 1
    assert body["stage"]["of"] == 3
    assert body["progress"]["total"] == 10
    assert body["progress"]["success"] == 1
    assert body["progress"]["pending"] == 9
    assert body["percentComplete"] == 10
    assert body["successRate"] == 100
    assert body["estimateBasis"] == "measured"
    assert set(body["progress"]) == {
        "total", "pending", "notified", "downloading", "verifying", "installing",
        "rebooting", "confirming", "success", "failed", "rollingBack", "rolledBack",
        "skipped", "cancelled",
    }  # fmt: skip


def test_without_evidence_there_is_no_rate_and_the_estimate_is_a_forecast(
    world: World, old: Firmware, new: Firmware, viewer: PersonCaller
) -> None:
    world.fleet(10, old)
    preview = world.preview(new, "Canary")
    deployment = world.launch(new, "Canary")

    before = deployment_status(deployment, world.now)
    world.update_offered()
    deployment.refresh_from_db()
    after = deployment_status(deployment, world.now)

    assert before.success_rate is None
    assert before.estimate_basis == "forecast"
    assert preview.forecast is not None
    assert before.estimated_completion_at == preview.forecast.finishes_at
    assert after.estimate_basis == "measured"
    assert after.estimated_completion_at is not None
    assert after.estimated_completion_at < before.estimated_completion_at


def test_a_forecast_that_time_has_overtaken_does_not_lie_in_the_past(
    world: World, old: Firmware, new: Firmware
) -> None:
    world.fleet(1, old)
    deployment = world.launch(new)
    late = world.now + timedelta(hours=1)

    status = deployment_status(deployment, late)

    assert status.estimated_completion_at == late


def test_what_does_not_run_has_no_estimate(
    world: World, old: Firmware, new: Firmware
) -> None:
    world.fleet(1, old)
    deployment = world.launch(new, scheduled_at=world.now + timedelta(hours=1))

    status = deployment_status(deployment, world.now)

    assert (status.estimated_completion_at, status.estimate_basis) == (None, None)


def test_the_preview_tells_the_blast_radius_and_when_it_would_be_over(
    world: World, old: Firmware, new: Firmware, operator: PersonCaller
) -> None:
    world.fleet(10, old)
    request = {
        "firmwareId": str(new.pk),
        "strategy": "Canary",
        "regions": ["US-EAST"],
        "waitDuration": "PT1H",
        "increments": [50, 100],
    }

    assumed = operator.post("/deployments/preview", request).json()
    world.launch(new)
    world.update_offered()
    other = world.image("3.0.0")
    measured = operator.post(
        "/deployments/preview", {**request, "firmwareId": str(other.pk)}
    ).json()

    assert assumed["blastRadius"] == {
        "devices": 10,
        "firstStage": 1,
        "online": 0,
        "fleet": 10,
        "percentOfFleet": 100.0,
    }
    assert assumed["expected"]["measuredUpdates"] == 0
    assert assumed["expected"]["deviceSeconds"] == 300
    starts, ends = (
        datetime.fromisoformat(assumed["expected"][name])
        for name in ("startsAt", "finishesAt")
    )
    assert ends - starts == timedelta(hours=2, minutes=15)
    assert measured["expected"]["measuredUpdates"] == 10
    assert measured["expected"]["deviceSeconds"] == 10


def test_each_waiting_device_says_what_for(
    world: World, old: Firmware, new: Firmware, viewer: PersonCaller
) -> None:
    world.fleet(10, old)
    deployment = world.launch(new, "Canary")

    rows = viewer.get(f"/deployments/{deployment.pk}/devices").json()["results"]

    assert len(rows) == 10
    assert [row["stage"] for row in rows] == [1] + [2] * 2 + [3] * 7
    assert all(row["waitingFor"] for row in rows)
    assert rows[1]["waitingFor"] == "stage 2 (30 %) to open"


def test_logs_are_filtered_and_searched(
    world: World, old: Firmware, new: Firmware, viewer: PersonCaller
) -> None:
    world.fleet(1, old)
    deployment = world.launch(new)
    world.update_offered()
    logs = f"/deployments/{deployment.pk}/logs"

    by_event = viewer.get(f"{logs}?event=stage.opened").json()["results"]
    by_device = viewer.get(f"{logs}?deviceId=d-000").json()["results"]
    by_text = viewer.get(f"{logs}?search=proved").json()["results"]
    unknown = viewer.get(f"{logs}?colour=red")

    assert [row["stage"] for row in by_event] == [1]
    assert {row["deviceId"] for row in by_device} == {"d-000"}
    assert "device.updated" in {row["event"] for row in by_text}
    assert "deviceId" in problem_of(unknown, 400)["detail"]


def test_logs_are_filtered_by_levels_beginnings_and_stages(
    world: World, old: Firmware, new: Firmware, viewer: PersonCaller
) -> None:
    world.fleet(3, old)
    deployment = world.launch(new, "Canary", parameters={"increments": [100]})
    world.update_offered()
    world.live_on(65)
    world.devices["d-000"].poll()
    failing = next(each for each in world.devices.values() if each.poll())
    failing.report("failed", error_code="unknown_key", message="not pinned")
    world.tick()
    logs = f"/deployments/{deployment.pk}/logs?pageSize=200"

    def found(parameters: str) -> list[dict[str, Any]]:
        return list(viewer.get(f"{logs}&{parameters}").json()["results"])

    everything = found("order=desc")
    levels = {row["level"] for row in everything}
    assert levels >= {"INFO", "ERROR"}
    assert found("order=asc") == everything[::-1]
    assert found("level=ERROR,WARNING") == found("level=WARNING&level=ERROR")
    assert found("level=ERROR,WARNING") == [
        row for row in everything if row["level"] != "INFO"
    ]
    assert found("event=device.*") == [
        row for row in everything if row["event"].startswith("device.")
    ]
    assert found("event=stage.opened,rollback.*") == [
        row
        for row in everything
        if row["event"] == "stage.opened" or row["event"].startswith("rollback.")
    ]
    assert found("stage=2") == [row for row in everything if row["stage"] == 2]
    assert {row["stage"] for row in everything if row["deviceId"]} == {1, 2}
    refused = problem_of(viewer.get(f"{logs}&level=LOUD"), 400)
    assert "INFO, WARNING, ERROR" in refused["detail"]
    assert pointers(problem_of(viewer.get(f"{logs}&order=up"), 400)) == {
        "/order": "invalid_choice"
    }


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_of_a_log_hold_each_line_once_whatever_their_times(
    world: World, old: Firmware, new: Firmware, viewer: PersonCaller, order: str
) -> None:
    world.fleet(1, old)
    deployment = world.launch(new)
    for minutes in (5, 3, 3, 4, 1, 3):
        log(
            deployment,
            EventName.STAGE_WARNING,
            f"{minutes}",
            now=world.now + timedelta(minutes=minutes),
        )
    page = f"/deployments/{deployment.pk}/logs?pageSize=2&order={order}"

    seen = []
    while page:
        answer = viewer.get(page).json()
        seen += [row["id"] for row in answer["results"]]
        page = (answer["next"] or "").removeprefix("http://testserver")

    written = list(Event.objects.order_by("pk").values_list("pk", flat=True))
    assert seen == (written if order == "asc" else written[::-1])


def test_devices_of_a_deployment_are_searched(
    world: World, old: Firmware, new: Firmware, viewer: PersonCaller
) -> None:
    world.fleet(3, old, prefix="East")
    world.fleet(2, old, prefix="west")
    deployment = world.launch(new)

    rows = viewer.get(f"/deployments/{deployment.pk}/devices?search=east-0").json()

    assert {row["deviceId"] for row in rows["results"]} == {
        *("East-000", "East-001", "East-002")
    }


def test_deployments_are_found_by_name_device_and_firmware(
    world: World, old: Firmware, new: Firmware, viewer: PersonCaller
) -> None:
    world.fleet(2, old)
    other = world.image("3.0.0")
    first = world.launch(
        new, name="Night run", selection=Selection(device_ids=("d-000",))
    )
    world.tick(1)
    second = world.launch(other, "Canary", name="day run")

    def found(parameters: str) -> list[str]:
        rows = viewer.get(f"/deployments?{parameters}").json()["results"]
        return [row["id"] for row in rows]

    assert found("search=RUN") == [str(second.pk), str(first.pk)]
    assert found("search=night") == [str(first.pk)]
    assert found("deviceId=d-000") == [str(second.pk), str(first.pk)]
    assert found("deviceId=d-001") == [str(second.pk)]
    assert found("deviceId=ghost") == []
    assert found("firmware=sensor-v1:2.5.0") == [str(first.pk)]
    assert found(f"firmware={other.pk}") == [str(second.pk)]
    assert found("firmware=nonsense") == []
    assert found("strategy=Canary&search=run") == [str(second.pk)]


def test_a_device_leads_to_its_deployments(
    world: World,
    old: Firmware,
    new: Firmware,
    viewer: PersonCaller,
    django_assert_max_num_queries: Any,
) -> None:
    device, _ = world.fleet(2, old)
    first = world.launch(new, name="first")
    world.update_offered()
    world.tick()
    second = world.launch(world.image("3.0.0"), "Canary", name="second")
    path = f"/devices/{device.name}/deployments"

    with django_assert_max_num_queries(6):
        rows = viewer.get(path).json()["results"]

    assert [row["deployment"]["name"] for row in rows] == ["second", "first"]
    assert [row["deployment"]["id"] for row in rows] == [
        str(second.pk),
        str(first.pk),
    ]
    assert rows[1]["status"] == "success"
    assert rows[1]["deployment"]["status"] == "Completed"
    assert rows[1]["deployment"]["firmware"]["version"] == "2.5.0"
    assert rows[0]["status"] == "pending"
    only = viewer.get(f"{path}?status=success").json()["results"]
    assert [row["deployment"]["name"] for row in only] == ["first"]
    problem_of(viewer.get("/devices/ghost/deployments"), 404, "device_not_found")


def test_what_has_not_asked_is_not_called_unseen(
    world: World, old: Firmware, new: Firmware, viewer: PersonCaller
) -> None:
    world.fleet(5, old)
    deployment = world.launch(new)

    body = viewer.get(f"/deployments/{deployment.pk}/status").json()

    assert body["waitingFor"] == "5 of 5 devices have not asked for it yet"


def test_a_verb_needs_a_reason_and_the_right_status(
    world: World, old: Firmware, new: Firmware, operator: PersonCaller
) -> None:
    world.fleet(1, old)
    deployment = world.launch(new)
    path = f"/deployments/{deployment.pk}"

    problem_of(operator.post(f"{path}/pause", {}), 400)
    assert operator.post(f"{path}/pause", {"reason": "lunch"}).status_code == 200
    problem_of(operator.post(f"{path}/pause", {"reason": "again"}), 409, "wrong_status")
    problem_of(
        operator.post(f"/deployments/{uuid4()}/pause", {"reason": "x"}),
        404,
        "deployment_not_found",
    )


def test_a_retried_launch_with_its_key_launches_once(
    world: World, old: Firmware, new: Firmware, operator: PersonCaller
) -> None:
    world.fleet(3, old)
    headers = {"Idempotency-Key": "launch-1"}

    first = operator.post("/deployments", launch_body(new), headers=headers)
    second = operator.post("/deployments", launch_body(new), headers=headers)

    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    assert Deployment.objects.count() == 1


def test_an_order_goes_to_its_own_device_only(
    world: World, old: Firmware, new: Firmware
) -> None:
    mine, other = world.fleet(2, old)
    world.launch(new)
    order = as_device(mine).get(f"/devices/{mine.name}/update").json()
    report = {"sequence": 1, "status": "downloading"}
    stranger = as_device(other)

    problem_of(stranger.get(f"/devices/{mine.name}/update"), 403, "foreign_device")
    problem_of(
        stranger.post(
            f"/devices/{mine.name}/updates/{order['updateId']}/reports", report
        ),
        403,
        "foreign_device",
    )
    problem_of(
        stranger.post(
            f"/devices/{other.name}/updates/{order['updateId']}/reports", report
        ),
        404,
        "update_not_found",
    )
    problem_of(stranger.get(f"/firmware/{new.pk}/download"), 403, "no_active_update")
    assert not Report.objects.exists()


def test_a_device_with_an_order_downloads_it_whole_and_in_ranges(
    world: World, old: Firmware, new: Firmware
) -> None:
    (device,) = world.fleet(1, old)
    world.launch(new)
    caller = as_device(device)
    order = caller.get(f"/devices/{device.name}/update").json()
    path = f"/firmware/{order['firmware']['id']}/download"

    whole = caller.get(path)
    part = caller.get(path, headers={"Range": "bytes=3-7"})
    beyond = caller.get(path, headers={"Range": "bytes=9999-"})

    content = b"".join(whole.streaming_content)
    assert content == b"image of sensor-v1 2.5.0"
    assert whole["ETag"] == f'"{new.sha256}"'
    assert part.status_code == 206
    assert b"".join(part.streaming_content) == content[3:8]
    assert part["Content-Range"] == f"bytes 3-7/{len(content)}"
    assert beyond.status_code == 416


def test_the_instruction_has_all_that_an_agent_needs(
    world: World, old: Firmware, new: Firmware, settings: Any
) -> None:
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)

    response = as_device(device).get(f"/devices/{device.name}/update")

    assert int(response["Poll-Interval"]) > 0
    body = response.json()
    assert body["deploymentId"] == str(deployment.pk)
    assert body["action"] == "install"
    assert set(body) == {
        "updateId", "deploymentId", "action", "firmware", "manifest",
        "manifestSignature", "rebootRequired", "deadline", "confirmationSeconds",
        "traceparent",
    }  # fmt: skip
    assert set(body["firmware"]) == {
        "id", "version", "model", "size", "checksum", "signature",
        "signatureAlgorithm", "keyId", "downloadUrl",
    }  # fmt: skip
    path = f"/api/v1/firmware/{new.pk}/download"
    assert body["firmware"]["downloadUrl"] == path

    settings.PUBLIC_URL = "https://images.example.com/"
    again = as_device(device).get(f"/devices/{device.name}/update").json()
    assert again["firmware"]["downloadUrl"] == f"https://images.example.com{path}"


@pytest.mark.parametrize(
    ("report", "pointer", "code"),
    [
        ({"status": "downloading"}, "/sequence", "required"),
        ({"sequence": 0, "status": "downloading"}, "/sequence", "min_value"),
        ({"sequence": True, "status": "downloading"}, "/sequence", "invalid"),
        ({"sequence": 1, "status": "success"}, "/status", "invalid_choice"),
    ],
)
def test_a_bad_report_names_the_field_and_changes_nothing(
    world: World,
    old: Firmware,
    new: Firmware,
    report: dict[str, Any],
    pointer: str,
    code: str,
) -> None:
    (device,) = world.fleet(1, old)
    world.launch(new)
    caller = as_device(device)
    order = caller.get(f"/devices/{device.name}/update").json()

    response = caller.post(
        f"/devices/{device.name}/updates/{order['updateId']}/reports", report
    )

    assert pointers(problem_of(response, 400)) == {pointer: code}
    assert Target.objects.get().status == "notified"
    assert not Report.objects.exists()


def test_a_repeated_report_is_acknowledged_and_a_closed_order_is_a_conflict(
    world: World, old: Firmware, new: Firmware, operator: PersonCaller
) -> None:
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    caller = as_device(device)
    order = caller.get(f"/devices/{device.name}/update").json()
    path = f"/devices/{device.name}/updates/{order['updateId']}/reports"
    first = {"sequence": 1, "status": "downloading"}

    assert caller.post(path, first).json() == {"applied": True}
    assert caller.post(path, first).json() == {"applied": False}
    operator.post(f"/deployments/{deployment.pk}/cancel", {"reason": "stop"})
    assert caller.post(path, first).json() == {"applied": False}
    closed = caller.post(path, {"sequence": 2, "status": "verifying"})

    problem_of(closed, 409, "update_closed")
    assert Update.objects.get().status == "cancelled"
    assert Report.objects.count() == 4
    assert json.dumps(Report.objects.order_by("pk")[0].body)


def test_lists_of_deployments_cost_the_same_however_long(
    world: World,
    old: Firmware,
    new: Firmware,
    viewer: PersonCaller,
    django_assert_max_num_queries: Any,
) -> None:
    world.fleet(4, old)
    for _ in range(6):
        deployment = world.launch(new, "Canary")

    with django_assert_max_num_queries(6):
        assert len(viewer.get("/deployments").json()["results"]) == 6
    with django_assert_max_num_queries(10):
        viewer.get(f"/deployments/{deployment.pk}/devices")
