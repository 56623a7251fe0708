"""Editing a deployment that waits for its time, and what it foresees of itself."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from deployments.models import Deployment, Event
from deployments.services.operate import cancel_deployment, pause_deployment
from deployments.services.requests import Selection
from devices.models import Device
from firmware.models import Firmware
from hotswap.common.models import AuditEvent
from tests.api import pointers, problem_of
from tests.callers import PersonCaller
from tests.deployments.world import World, statuses
from tests.words import says

# The API refuses what lies in the past, so these worlds live in the present.
LATER = timedelta(hours=2)


@pytest.fixture
def world(db: None) -> World:
    return World(now=timezone.now())


@pytest.fixture
def new(world: World) -> Firmware:
    world.fleet(10, world.image("1.0.0"))
    return world.image("1.1.0")


def schedule(world: World, firmware: Firmware, **fields: Any) -> Deployment:
    given: dict[str, Any] = {"scheduled_at": world.now + LATER} | fields
    return world.launch(firmware, "Canary", **given)


def body_of(caller: PersonCaller, deployment: Deployment, **changes: Any) -> Any:
    body = caller.get(f"/deployments/{deployment.pk}").json()["request"]
    return body | changes


def test_what_is_asked_for_is_replaced_and_written_down(
    world: World, new: Firmware, operator: PersonCaller
) -> None:
    deployment = schedule(world, new, name="nightly")
    path = f"/deployments/{deployment.pk}"
    at = (world.now + timedelta(days=1)).isoformat()
    body = body_of(operator, deployment, scheduledAt=at, maxAttempts=7)
    body["healthCriteria"]["heartbeatsRequired"] = 3
    del body["targetAll"]
    body["targetDevices"] = ["d-003"]

    answer = operator.put(path, body)

    assert answer.status_code == 200, answer.content
    found = answer.json()
    assert found["name"] == "nightly"
    assert found["status"] == "Scheduled"
    assert found["targets"] == {"matched": 1, "eligible": 1, "excluded": []}
    assert found["request"]["maxAttempts"] == 7
    event = Event.objects.get(event="deployment.edited")
    assert "maxAttempts 3 -> 7" in event.message
    assert "healthCriteria.heartbeatsRequired 2 -> 3" in event.message
    audit = AuditEvent.objects.get(verb="deployment.edited")
    assert audit.actor == operator.person.pseudonym
    assert set(audit.details["changes"]) == {
        *("scheduledAt", "maxAttempts", "targets"),
        "healthCriteria.heartbeatsRequired",
    }
    assert not says(str(audit.details), "d-003")
    assert not says(event.message, "d-003")


def test_an_edited_deployment_starts_as_it_was_edited(
    world: World, new: Firmware, operator: PersonCaller
) -> None:
    deployment = schedule(world, new)
    at = (world.now + timedelta(hours=4)).isoformat()
    body = body_of(operator, deployment, scheduledAt=at)
    del body["targetAll"]
    body |= {"targetDevices": ["d-003"], "offlineDevices": "wait"}

    assert operator.put(f"/deployments/{deployment.pk}", body).status_code == 200
    world.tick(3 * 3600)
    early = statuses(deployment)
    world.tick(3601)

    assert early == {}
    assert statuses(deployment) == {"pending": 1}


def test_the_body_that_it_shows_changes_nothing(
    world: World, new: Firmware, operator: PersonCaller
) -> None:
    deployment = schedule(world, new, name="nightly")
    path = f"/deployments/{deployment.pk}"
    before = operator.get(path)

    after = operator.put(path, before.json()["request"])

    assert after.status_code == 200
    assert after["ETag"] == before["ETag"]
    assert after.json()["request"] == before.json()["request"]
    assert not Event.objects.filter(event="deployment.edited").exists()
    assert not AuditEvent.objects.filter(verb="deployment.edited").exists()


def test_a_stale_edit_is_refused(
    world: World, new: Firmware, operator: PersonCaller
) -> None:
    deployment = schedule(world, new)
    path = f"/deployments/{deployment.pk}"
    etag = operator.get(path)["ETag"]
    headers = {"If-Match": etag}
    first = operator.put(
        path, body_of(operator, deployment, maxAttempts=5), headers=headers
    )

    second = operator.put(
        path, body_of(operator, deployment, maxAttempts=6), headers=headers
    )

    assert first.status_code == 200
    assert first["ETag"] != etag
    problem_of(second, 412, "stale")
    deployment.refresh_from_db()
    assert deployment.max_attempts == 5


def test_one_that_was_paused_before_its_start_is_edited_and_stays_paused(
    world: World, new: Firmware, operator: PersonCaller
) -> None:
    deployment = schedule(world, new)
    pause_deployment(actor=world.admin, deployment_id=deployment.pk, reason="holiday")

    answer = operator.put(
        f"/deployments/{deployment.pk}", body_of(operator, deployment, maxAttempts=9)
    )

    assert answer.status_code == 200, answer.content
    assert answer.json()["status"] == "Paused"
    deployment.refresh_from_db()
    assert deployment.max_attempts == 9


@pytest.mark.parametrize("way", ["running", "paused", "cancelled"])
def test_what_has_started_or_is_over_is_not_edited(
    world: World, new: Firmware, operator: PersonCaller, way: str
) -> None:
    waiting = schedule(world, new)
    body = body_of(operator, waiting)
    deployment = waiting if way == "cancelled" else world.launch(new, "Canary")
    act = {"paused": pause_deployment, "cancelled": cancel_deployment}.get(way)
    if act is not None:
        act(actor=world.admin, deployment_id=deployment.pk, reason="x")

    answer = operator.put(f"/deployments/{deployment.pk}", body | {"maxAttempts": 9})

    problem_of(answer, 409, "wrong_status")
    deployment.refresh_from_db()
    assert deployment.max_attempts == 3


@pytest.mark.parametrize(
    ("changes", "status", "pointer", "code"),
    [
        ({"scheduledAt": None}, 400, "/scheduledAt", "required"),
        ({"scheduledAt": "2020-01-01T00:00:00Z"}, 400, "/scheduledAt", "invalid"),
        ({"strategy": "Direct"}, 400, "/waitDuration", "foreign"),
        ({"firmwareId": str(uuid4())}, 422, "/firmwareId", "unknown_firmware"),
        (
            {"targetAll": None, "targetDevices": ["d-001", "ghost"]},
            422,
            "/targetDevices/1",
            "unknown_device",
        ),
    ],
)
def test_an_edit_is_checked_like_a_launch(
    world: World,
    new: Firmware,
    operator: PersonCaller,
    changes: dict[str, Any],
    status: int,
    pointer: str,
    code: str,
) -> None:
    deployment = schedule(world, new)
    before = Deployment.objects.filter(pk=deployment.pk).values().get()
    body = body_of(operator, deployment, maxAttempts=9) | changes
    body = {name: value for name, value in body.items() if value is not None}

    answer = operator.put(f"/deployments/{deployment.pk}", body)

    assert pointers(problem_of(answer, status)).get(pointer) == code
    assert Deployment.objects.filter(pk=deployment.pk).values().get() == before


def test_an_unknown_deployment_is_not_found(
    world: World, new: Firmware, operator: PersonCaller
) -> None:
    body = body_of(operator, schedule(world, new))

    problem_of(
        operator.put(f"/deployments/{uuid4()}", body), 404, "deployment_not_found"
    )


def test_a_waiting_deployment_foresees_its_devices_and_stages(
    world: World, new: Firmware, viewer: PersonCaller, operator: PersonCaller
) -> None:
    deployment = schedule(world, new)
    Device.objects.filter(device_id="d-001").update(enabled=False)
    path = f"/deployments/{deployment.pk}"

    waiting = viewer.get(path).json()
    (listed,) = viewer.get("/deployments").json()["results"]
    paused = operator.post(f"{path}/pause", {"reason": "x"}).json()
    operator.post(f"{path}/resume", {"reason": "x"})
    world.tick(2 * 3600 + 1)
    started = viewer.get(path).json()

    assert (waiting["isPredicted"], waiting["targetCount"]) == (True, 9)
    assert [
        (stage["number"], stage["size"], stage["status"]) for stage in waiting["stages"]
    ] == [(1, 1, "pending"), (2, 2, "pending"), (3, 6, "pending")]
    assert (paused["isPredicted"], paused["targetCount"]) == (True, 9)
    assert (listed["isPredicted"], listed["targetCount"]) == (True, None)
    assert listed["stages"] == []
    assert (started["isPredicted"], started["targetCount"]) == (False, 9)
    assert [stage["size"] for stage in started["stages"]] == [1, 2, 6]


def test_a_waiting_deployment_that_nobody_can_take_part_in_foresees_none(
    world: World, new: Firmware, viewer: PersonCaller
) -> None:
    deployment = schedule(world, new, selection=Selection(regions=("EU",)))

    found = viewer.get(f"/deployments/{deployment.pk}").json()

    assert (found["targetCount"], found["stages"]) == (0, [])


def test_a_waiting_deployment_whose_plan_does_not_fit_foresees_no_stages(
    world: World,
    new: Firmware,
    viewer: PersonCaller,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deployments.strategies.rolling.MAX_BATCHES", 9)
    deployment = world.launch(
        new,
        "Rolling",
        scheduled_at=world.now + LATER,
        parameters={
            "batch_size": 1,
            "batch_wait_duration": 0.0,
            "max_concurrent_batches": 3,
        },
    )

    answer = viewer.get(f"/deployments/{deployment.pk}")

    assert answer.status_code == 200
    assert (answer.json()["targetCount"], answer.json()["stages"]) == (10, [])
