"""Nobody changes whom a deployment to come reaches without being told."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from deployments.models import Deployment, Target
from deployments.services.operate import pause_deployment
from deployments.services.requests import Selection
from deployments.services.tick import tick
from devices.import_lines import LineReader
from devices.models import Device, DeviceGroup
from devices.rules import Rule
from devices.services.groups import (
    add_members,
    change_group,
    create_group,
    remove_members,
)
from devices.services.imports import run_imports
from hotswap.common.models import AuditEvent
from tests.api import pointers, problem_of
from tests.callers import PersonCaller
from tests.deployments.world import World
from tests.waiting import is_waited_for, wait_until

KNOWN = "?acknowledge=audience"
PLANT = {"tags": {"site": ["plant-7"]}}
BOTH = {"tags": {"site": ["plant-7", "plant-8"]}}


class Scene:
    """Four devices, two of plant 7, and a deployment to a group that comes later."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.old, self.new = world.image("1.0.0"), world.image("1.1.0")
        world.fleet(4, self.old)
        for name in ("d-000", "d-001"):
            Device.objects.filter(device_id=name).update(tags={"site": "plant-7"})
        Device.objects.filter(device_id="d-002").update(tags={"site": "plant-8"})
        self.plant = self.dynamic("plant", PLANT)

    def dynamic(self, name: str, rule: dict[str, Any]) -> DeviceGroup:
        return create_group(
            actor=self.world.admin,
            name=name,
            type="Dynamic",
            rule=Rule.from_json(rule),
        )

    def static(self, name: str, *device_ids: str) -> DeviceGroup:
        group = create_group(actor=self.world.admin, name=name)
        if device_ids:
            add_members(
                actor=self.world.admin, group_id=group.pk, device_ids=list(device_ids)
            )
        return group

    def schedule(self, *groups: DeviceGroup, **fields: Any) -> Deployment:
        selection = Selection(group_ids=tuple(group.pk for group in groups))
        given: dict[str, Any] = {"selection": selection, "name": "nightly"} | fields
        due = self.world.now + timedelta(hours=1)
        return self.world.launch(self.new, scheduled_at=due, **given)


@pytest.fixture
def scene(world: World) -> Scene:
    return Scene(world)


def counts(answer: Any) -> list[tuple[str, int, int, int, int]]:
    """Return name, before, after, added and removed of each affected deployment."""
    rows = answer.json().get("affectedDeployments", [])
    names = ("name", "before", "after", "added", "removed")
    return [tuple(row[name] for name in names) for row in rows]


def rule_change(group: DeviceGroup, rule: dict[str, Any] = BOTH) -> Any:
    return {"name": group.name, "rule": rule}


# --- Rules --------------------------------------------------------------------------


def test_a_rule_that_changes_an_audience_is_refused_until_it_is_acknowledged(
    scene: Scene, operator: PersonCaller
) -> None:
    deployment = scene.schedule(scene.plant)
    path = f"/device-groups/{scene.plant.pk}"

    refused = operator.put(path, rule_change(scene.plant))
    unchanged = operator.get(path).json()["rule"]
    agreed = operator.put(path + KNOWN, rule_change(scene.plant))

    document = problem_of(refused, 409, "audience_changes")
    [error] = document["errors"]
    assert "nightly" in error["detail"]
    assert "2 -> 3 devices (1 added, 0 removed)" in error["detail"]
    assert str(deployment.pk) in error["detail"]
    assert unchanged == PLANT
    assert agreed.status_code == 200
    assert counts(agreed) == [("nightly", 2, 3, 1, 0)]
    assert agreed.json()["affectedDeployments"][0]["id"] == str(deployment.pk)


def test_a_rule_that_swaps_devices_changes_an_audience_of_the_same_size(
    scene: Scene, operator: PersonCaller
) -> None:
    Device.objects.filter(device_id="d-001").update(tags={"site": "plant-8"})
    Device.objects.filter(device_id="d-002").update(tags={})
    scene.schedule(scene.plant)

    agreed = operator.put(
        f"/device-groups/{scene.plant.pk}{KNOWN}",
        rule_change(scene.plant, {"tags": {"site": ["plant-8"]}}),
    )

    assert counts(agreed) == [("nightly", 1, 1, 1, 1)]


def test_what_reaches_nobody_else_is_saved_without_a_question(
    scene: Scene, operator: PersonCaller
) -> None:
    scene.schedule(scene.plant)
    other = scene.dynamic("other", {"region": ["EU"]})
    path = f"/device-groups/{scene.plant.pk}"

    renamed = operator.put(path, {"name": "p", "rule": PLANT})
    same = operator.put(path, {"name": "p", "rule": PLANT | {"region": ["US-EAST"]}})
    elsewhere = operator.put(f"/device-groups/{other.pk}", rule_change(other))

    assert [x.status_code for x in (renamed, same, elsewhere)] == [200, 200, 200]
    assert [counts(x) for x in (renamed, same, elsewhere)] == [[], [], []]


def test_a_device_that_another_group_brings_in_anyway_does_not_count(
    scene: Scene, operator: PersonCaller
) -> None:
    scene.schedule(scene.plant, scene.static("lab", "d-002"))

    answer = operator.put(f"/device-groups/{scene.plant.pk}", rule_change(scene.plant))

    assert answer.status_code == 200
    assert counts(answer) == []


def test_devices_of_another_model_do_not_count(
    scene: Scene, operator: PersonCaller
) -> None:
    gateway = scene.world.image("1.0.0", model="gateway-v1")
    scene.world.fleet(1, gateway, prefix="gate")
    Device.objects.filter(device_id="d-002").update(tags={})
    Device.objects.filter(device_id="gate-000").update(tags={"site": "plant-8"})
    scene.schedule(scene.plant)

    answer = operator.put(f"/device-groups/{scene.plant.pk}", rule_change(scene.plant))

    assert answer.status_code == 200


def test_a_deployment_that_was_paused_before_its_time_still_counts(
    scene: Scene, operator: PersonCaller
) -> None:
    deployment = scene.schedule(scene.plant)
    pause_deployment(
        actor=scene.world.admin,
        deployment_id=deployment.pk,
        reason="holiday",
        now=scene.world.now,
    )

    answer = operator.put(f"/device-groups/{scene.plant.pk}", rule_change(scene.plant))

    problem_of(answer, 409, "audience_changes")


def test_a_deployment_that_has_started_keeps_its_targets_and_asks_nothing(
    scene: Scene, operator: PersonCaller
) -> None:
    deployment = scene.schedule(scene.plant)
    scene.world.tick(3601)

    answer = operator.put(f"/device-groups/{scene.plant.pk}", rule_change(scene.plant))
    scene.world.tick()

    assert answer.status_code == 200
    assert counts(answer) == []
    assert Target.objects.filter(deployment=deployment).count() == 2


def test_a_preview_says_what_a_rule_would_change_and_writes_nothing(
    scene: Scene, operator: PersonCaller
) -> None:
    deployment = scene.schedule(scene.plant)
    body = {"rule": {"tags": {"site": ["plant-8"]}}, "groupId": str(scene.plant.pk)}

    found = operator.post("/device-groups/preview", body).json()
    without = operator.post("/device-groups/preview", {"rule": BOTH}).json()

    assert (found["count"], found["added"], found["removed"]) == (1, 1, 2)
    assert found["affectsDeployments"] == [
        {
            "id": str(deployment.pk),
            "name": "nightly",
            "scheduledAt": "2026-03-02T13:00:00Z",
            "before": 2,
            "after": 1,
            "added": 1,
            "removed": 2,
        }
    ]
    assert "affectsDeployments" not in without
    scene.plant.refresh_from_db()
    assert scene.plant.rule == PLANT


def test_a_preview_for_an_unknown_group_is_404(
    scene: Scene, operator: PersonCaller
) -> None:
    body = {"rule": BOTH, "groupId": "00000000-0000-4000-8000-000000000000"}

    problem_of(operator.post("/device-groups/preview", body), 404, "group_not_found")


@pytest.mark.parametrize("value", ["", "yes", "Audience", "audience,all"])
def test_only_the_audience_is_acknowledged(
    scene: Scene, operator: PersonCaller, value: str
) -> None:
    response = operator.put(
        f"/device-groups/{scene.plant.pk}?acknowledge={value}",
        rule_change(scene.plant),
    )

    assert set(pointers(problem_of(response, 400))) == {"/acknowledge"}


def test_reading_and_deleting_take_no_acknowledgement(
    scene: Scene, operator: PersonCaller
) -> None:
    path = f"/device-groups/{scene.plant.pk}{KNOWN}"

    for response in (operator.get(path), operator.delete(path)):
        assert pointers(problem_of(response, 400)) == {"/acknowledge": "unknown"}


# --- Members ------------------------------------------------------------------------


def test_members_that_change_an_audience_are_refused_until_acknowledged(
    scene: Scene, operator: PersonCaller
) -> None:
    lab = scene.static("lab", "d-000")
    scene.schedule(lab)
    path = f"/device-groups/{lab.pk}/devices"
    key = {"Idempotency-Key": "one"}

    refused = operator.post(path, {"deviceIds": ["d-000", "d-001"]}, headers=key)
    members = lab.members.count()
    added = operator.post(path + KNOWN, {"deviceIds": ["d-000", "d-001"]}, headers=key)
    kept = operator.delete(path, {"deviceIds": ["d-000"]})
    removed = operator.delete(path + KNOWN, {"deviceIds": ["d-000"]})
    again = operator.delete(path, {"deviceIds": ["d-000"]})

    problem_of(refused, 409, "audience_changes")
    assert members == 1
    assert counts(added) == [("nightly", 1, 2, 1, 0)]
    problem_of(kept, 409, "audience_changes")
    assert counts(removed) == [("nightly", 2, 1, 0, 1)]
    assert again.status_code == 200


def test_a_group_that_a_deployment_to_come_names_is_not_deleted(
    scene: Scene, operator: PersonCaller
) -> None:
    empty = scene.static("empty")
    deployment = scene.schedule(scene.plant, empty)
    path = f"/device-groups/{empty.pk}"

    refused = operator.delete(path)
    scene.world.tick(3601)
    started = operator.delete(path)

    document = problem_of(refused, 409, "group_in_use")
    assert str(deployment.pk) in document["errors"][0]["detail"]
    assert started.status_code == 204


# --- Devices ------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_tag_that_brings_a_device_in_is_refused_until_acknowledged(
    scene: Scene, operator: PersonCaller, method: str
) -> None:
    scene.schedule(scene.plant)
    body = {"model": "sensor-v1", "tags": {"site": "plant-7"}}

    refused = operator.request(method, "/devices/d-003", body)
    unchanged = operator.get("/devices/d-003").json()["tags"]
    agreed = operator.request(method, f"/devices/d-003{KNOWN}", body)

    document = problem_of(refused, 409, "audience_changes")
    assert "2 -> 3 devices" in document["errors"][0]["detail"]
    assert unchanged == {}
    assert agreed.json()["tags"] == {"site": "plant-7"}
    assert counts(agreed) == [("nightly", 2, 3, 1, 0)]


@pytest.mark.parametrize(
    ("selection", "body"),
    [
        ({"everyone": True}, {"model": "gateway-v1"}),
        ({"regions": ("US-EAST",)}, {"region": "EU"}),
        ({"device_ids": ("d-000", "d-001")}, {"model": "gateway-v1"}),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_device_that_leaves_an_audience_is_noticed_however_it_was_chosen(
    scene: Scene, operator: PersonCaller, selection: Any, body: Any
) -> None:
    scene.world.image("1.0.0", model="gateway-v1")
    scene.schedule(selection=Selection(**selection))

    refused = operator.patch("/devices/d-000", body)
    agreed = operator.patch(f"/devices/d-000{KNOWN}", body)

    problem_of(refused, 409, "audience_changes")
    [(name, before, after, added, removed)] = counts(agreed)
    assert (name, before - after, added, removed) == ("nightly", 1, 0, 1)


def test_what_no_deployment_looks_at_is_changed_without_a_question(
    scene: Scene, operator: PersonCaller
) -> None:
    scene.schedule(scene.plant)

    answers = [
        operator.patch("/devices/d-000", {"metadata": {"a": 1}}),
        operator.patch("/devices/d-000", {"tags": {"site": "plant-7", "rack": "1"}}),
        operator.patch("/devices/d-000", {"enabled": False}),
        operator.patch("/devices/d-003", {"tags": {"site": "plant-9"}}),
    ]

    assert [answer.status_code for answer in answers] == [200] * 4
    assert [counts(answer) for answer in answers] == [[]] * 4


def test_without_deployments_to_come_a_change_asks_one_question_more(
    scene: Scene, operator: PersonCaller
) -> None:
    numbers = []

    for body in ({"metadata": {"a": 1}}, {"tags": {"site": "plant-7"}}):
        with CaptureQueriesContext(connection) as captured:
            assert operator.patch("/devices/d-003", body).status_code == 200
        numbers.append(len(captured))

    assert numbers[1] == numbers[0] + 1


def test_a_refused_change_leaves_no_trace(scene: Scene, operator: PersonCaller) -> None:
    scene.schedule(scene.plant)
    stamp = Device.objects.get(device_id="d-003").updated_at
    audited = AuditEvent.objects.count()

    operator.patch("/devices/d-003", {"tags": {"site": "plant-7"}})

    assert Device.objects.get(device_id="d-003").updated_at == stamp
    assert AuditEvent.objects.count() == audited


# --- Races --------------------------------------------------------------------------


def _in_thread(deed: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(deed())
        except Exception as error:  # noqa: BLE001 - it is the answer
            found.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


@pytest.mark.django_db(transaction=True)
def test_a_launch_waits_for_a_rule_that_is_being_changed_and_takes_the_new_one() -> (
    None
):
    scene = Scene(World())
    deployment = scene.schedule(scene.plant)

    with transaction.atomic():
        change_group(
            actor=scene.world.admin,
            group_id=scene.plant.pk,
            name="plant",
            description="",
            rule=Rule.from_json(BOTH),
            acknowledged=True,
        )
        due = scene.world.now + timedelta(hours=2)
        thread, _ = _in_thread(lambda: tick(now=due))
        wait_until(is_waited_for)
    thread.join()

    assert Target.objects.filter(deployment=deployment).count() == 3


@pytest.mark.django_db(transaction=True)
def test_a_rule_waits_for_a_launch_and_then_alters_nobody_s_audience() -> None:
    scene = Scene(World())
    deployment = scene.schedule(scene.plant)

    with transaction.atomic():
        tick(now=scene.world.now + timedelta(hours=2))
        thread, found = _in_thread(
            lambda: change_group(
                actor=scene.world.admin,
                group_id=scene.plant.pk,
                name="plant",
                description="",
                rule=Rule.from_json(BOTH),
            )
        )
        wait_until(is_waited_for)
    thread.join()

    assert found[0].affected == ()
    assert Target.objects.filter(deployment=deployment).count() == 2


def test_members_are_changed_by_the_services_with_the_same_question(
    scene: Scene,
) -> None:
    lab = scene.static("lab", "d-000")
    scene.schedule(lab)

    change = remove_members(
        actor=scene.world.admin,
        group_id=lab.pk,
        device_ids=["d-000"],
        acknowledged=True,
    )

    assert [x.removed for x in change.affected] == [1]


# --- Imports ------------------------------------------------------------------------


def test_a_file_moves_devices_into_no_audience_unless_it_is_acknowledged(
    scene: Scene, admin: PersonCaller
) -> None:
    scene.schedule(scene.plant)
    text = "deviceId,tag:site\nd-000,plant-8\nd-002,plant-7\nd-003,plant-9\n"

    def imported(query: str) -> list[str | None]:
        answer = admin.post(
            f"/devices/import?mode=upsert{query}",
            raw=text.encode(),
            content_type="text/csv",
        )
        run_imports(reader_of=LineReader)
        found = admin.get(answer["Location"]).json()["results"]
        return [row.get("code", row.get("outcome", row.get("action"))) for row in found]

    unawares = imported("")
    sites = dict(Device.objects.values_list("device_id", "tags__site"))
    shown = imported("&dryRun=true&acknowledge=audience")
    knowing = imported("&acknowledge=audience")

    assert unawares == ["audience_changes", "audience_changes", "updated"]
    assert (sites["d-000"], sites["d-002"], sites["d-003"]) == (
        "plant-7",
        "plant-8",
        "plant-9",
    )
    assert shown == ["update", "update", "unchanged"]
    assert knowing == ["updated", "updated", "unchanged"]
    changed = AuditEvent.objects.filter(verb="device.changed")
    assert changed.count() == 3
