"""Erasing devices, also in the middle of an update, and what is held before."""

import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections, transaction

from deployments.exceptions import UpdateClosedError
from deployments.models import Deployment, Event, Report, Target, Update
from deployments.services.hooks import is_update_available
from deployments.services.operate import rollback_deployment
from deployments.services.requests import Selection
from devices.exceptions import DeviceNotFoundError
from devices.models import (
    Device,
    DeviceCertificate,
    DeviceImport,
    DeviceImportLine,
    DeviceKey,
    EnrolmentRequest,
    FirmwareRun,
    GroupMembership,
)
from devices.services.credentials import issue_device_token
from devices.services.erasure import Name, belongings, erase_device, tidy_erased
from devices.services.groups import add_members, create_group
from devices.services.registry import register_device
from health.models import DeviceState
from health.services.heartbeats import note_poll
from hotswap.common.models import AuditEvent, RememberedAnswer
from tests.api import Caller, problem_of
from tests.callers import PersonCaller
from tests.deployments.world import MODEL, ScriptedDevice, World, statuses
from tests.devices.factories import device_token
from tests.waiting import is_waited_for, wait_until

NAME = "anna-weber-pump.7"


def erase(world: World, device: ScriptedDevice) -> None:
    erase_device(actor=world.admin, device_id=device.name, now=world.now)
    world.devices.pop(device.name, None)


def dump() -> dict[str, str]:
    """Return every text and JSON value of every table of the database, by column."""
    found = {}
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT table_name, column_name, data_type FROM information_schema.columns
            WHERE table_schema = 'public' AND data_type IN
                ('text', 'character varying', 'json', 'jsonb', 'ARRAY', 'bytea')
            """
        )
        for table, column, kind in cursor.fetchall():
            text = (
                f"encode(\"{column}\", 'escape')"
                if kind == "bytea"
                else f'"{column}"::text'
            )
            cursor.execute(
                f"SELECT coalesce(string_agg({text}, ' '), '') FROM \"{table}\""
            )
            found[f"{table}.{column}"] = cursor.fetchone()[0]
    return found


def places_of(name: str) -> list[str]:
    return sorted(place for place, text in dump().items() if name in text)


@pytest.fixture
def rich(world: World, admin: PersonCaller) -> World:
    """A device of which everything is held: groups, history, an update at work."""
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(2, old)
    register_device(
        actor=world.admin,
        device_id=NAME,
        model_name=MODEL,
        tags={"owner": "Anna Weber"},
        metadata={"phone": "+49 30 1234"},
    )
    device = ScriptedDevice(world, Device.objects.get(device_id=NAME).pk, NAME, old)
    world.devices[NAME] = device
    device.beat()
    group = create_group(actor=world.admin, name="lab")
    add_members(actor=world.admin, group_id=group.pk, device_ids=[NAME])
    batch = DeviceImport.objects.create(format="csv")
    DeviceImportLine.objects.create(
        batch=batch, line=1, outcome="rejected", device_id=NAME, detail=f"no {NAME}"
    )
    DeviceCertificate.objects.create(
        device=device.device,
        fingerprint="c" * 64,
        subject=f"CN={NAME}",
        not_before=world.now,
        not_after=world.now,
    )
    world.launch(
        new,
        name=f"For {NAME}, at last",
        selection=Selection(device_ids=("d-000", "d-001", NAME)),
    )
    device.poll()
    device.report("downloading")
    assert device.order is not None
    Caller(token=device_token(device.device)).post(
        f"/devices/{NAME}/updates/{device.order['updateId']}/reports",
        {
            "sequence": 2,
            "status": "failed",
            "errorCode": "disk_full",
            "message": f"{NAME}: disk is full",
        },
    )
    admin.request(
        "POST",
        f"/devices/{NAME}/api-key",
        {},
        headers={"Idempotency-Key": "rotate-1"},
    )
    return world


# --- What is left ------------------------------------------------------------------


def test_the_name_is_nowhere_in_the_database_after_an_erasure(rich: World) -> None:
    before = places_of(NAME)

    erase(rich, rich.devices[NAME])

    assert {
        "common_rememberedanswer.route",
        "deployments_deployment.name",
        "devices_devicecertificate.subject",
        "devices_deviceimportline.detail",
        "devices_deviceimportline.device_id",
        "deployments_deployment.selection",
        "deployments_event.message",
        "deployments_report.body",
        "deployments_target.message",
        "deployments_update.message",
        "devices_device.device_id",
        "health_devicestate.boot_id",
    } <= set(before)
    assert places_of(NAME) == []
    assert places_of("Anna Weber") == []
    assert places_of("+49 30 1234") == []


def test_what_past_deployments_count_stays(rich: World) -> None:
    device = rich.devices[NAME]
    target = Target.objects.get(device_id=device.pk)

    erase(rich, device)

    assert Target.objects.get(pk=target.pk).status == "cancelled"
    assert Update.objects.filter(device_id=device.pk).count() == 1
    assert not Report.objects.filter(update__device_id=device.pk).exists()
    assert not DeviceState.objects.filter(device_id=device.pk).exists()
    assert not DeviceKey.objects.filter(device_id=device.pk).exists()
    assert not FirmwareRun.objects.filter(device_id=device.pk).exists()
    assert not RememberedAnswer.objects.exists()
    assert AuditEvent.objects.filter(
        verb="device.erased", object_id=str(device.pk)
    ).exists()


def test_answers_to_others_are_kept(rich: World, admin: PersonCaller) -> None:
    key = {"Idempotency-Key": "other"}
    first = admin.request("POST", "/devices/d-000/api-key", {}, headers=key).json()

    erase(rich, rich.devices[NAME])
    again = admin.request("POST", "/devices/d-000/api-key", {}, headers=key).json()

    assert again == first | {"apiKey": None}


def test_the_words_of_an_event_change_by_an_erasure_alone(rich: World) -> None:
    with pytest.raises(Exception, match="written once"):
        Event.objects.update(message="something else")


def test_the_name_can_be_given_anew(rich: World) -> None:
    former = rich.devices[NAME]
    token = device_token(former.device)
    erase(rich, former)

    device, key = register_device(actor=rich.admin, device_id=NAME, model_name=MODEL)

    assert device.pk != former.pk
    assert issue_device_token(device_id=NAME, api_key=key, now=rich.now)
    problem_of(Caller(token=token).get(f"/devices/{NAME}/update"), 401)


def test_an_erased_device_is_in_no_list(rich: World, viewer: PersonCaller) -> None:
    erase(rich, rich.devices[NAME])

    names = [row["deviceId"] for row in viewer.get("/devices").json()["results"]]

    assert names == ["d-000", "d-001"]
    problem_of(viewer.get(f"/devices/{NAME}"), 404, "device_not_found")


def test_what_was_written_at_the_moment_of_the_erasure_is_tidied(rich: World) -> None:
    device = rich.devices[NAME]
    group = create_group(actor=rich.admin, name="late")
    erase(rich, device)
    GroupMembership.objects.create(group=group, device_id=device.pk)

    tidy_erased()

    assert not GroupMembership.objects.filter(device_id=device.pk).exists()


def test_what_refers_to_a_device_goes_with_it() -> None:
    assert {each.related_model for each in belongings()} >= {
        *(DeviceKey, DeviceCertificate, EnrolmentRequest, GroupMembership, FirmwareRun)
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("d-1: it failed", "[erased]: it failed"),
        ("it was d-1.", "it was [erased]."),
        ("d-1.2 and d-1:2, d-10, x-d-1", "d-1.2 and d-1:2, d-10, x-d-1"),
        ('{"deviceId": "d-1"}', '{"deviceId": "[erased]"}'),
        ("POST /api/v1/devices/d-1/revoke", "POST /api/v1/devices/[erased]/revoke"),
    ],
)
def test_a_name_is_found_as_a_whole_word(text: str, expected: str) -> None:
    assert Name("d-1").removed_from(text) == expected


# --- During an update ---------------------------------------------------------------


def begun(device: ScriptedDevice, steps: str) -> None:
    """Take a device as far as the words say."""
    device.poll()
    for step in steps.split():
        device.report(step)


@pytest.mark.parametrize(
    "steps",
    [
        "",
        "downloading",
        "downloading verifying installing",
        "downloading verifying installing rebooting",
        "downloading verifying installing rebooting confirming",
    ],
)
def test_the_deployment_goes_on_without_it(world: World, steps: str) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    gone, *others = world.fleet(3, old)
    deployment = world.launch(new)
    begun(gone, steps)
    for device in others:
        device.poll()
        device.go_through()

    erase(world, gone)
    world.live_on(20)

    deployment.refresh_from_db()
    target = gone.target(deployment)
    assert (target.status, target.error_code) == ("cancelled", "erased")
    assert statuses(deployment) == {"success": 2, "cancelled": 1}
    assert deployment.status == "Completed"
    assert not Update.objects.filter(closed_at__isnull=True).exists()


def test_its_next_call_is_refused(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    world.launch(new)
    device.poll()
    assert device.order is not None
    caller = Caller(token=device_token(device.device))

    erase(world, device)

    report = f"/devices/{device.name}/updates/{device.order['updateId']}/reports"
    for answer in (
        caller.get(f"/devices/{device.name}/update"),
        caller.post(report, {"sequence": 1, "status": "downloading"}),
        caller.get(f"/firmware/{new.pk}/download"),
    ):
        problem_of(answer, 401, "token_revoked")


def test_success_stays_counted_also_when_all_the_others_go_back(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    gone, other = world.fleet(2, old)
    deployment = world.launch(new)
    world.update_offered()
    deployment.refresh_from_db()
    assert deployment.status == "Completed"

    erase(world, gone)
    rollback_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="lab", now=world.now
    )
    world.update_offered()

    deployment.refresh_from_db()
    assert gone.target(deployment).status == "success"
    assert other.target(deployment).status == "rolled_back"
    assert deployment.status == "RolledBack"


def test_a_failed_device_that_was_to_go_back_stays_failed(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    gone, *_ = world.fleet(20, old)
    deployment = world.launch(new)
    begun(gone, "downloading verifying installing rebooting")
    gone.reboot_into(new)
    gone.beat(application_metrics={"errorRate": 0.9})
    world.tick(1)
    assert gone.target(deployment).status == "rolling_back"

    erase(world, gone)

    target = gone.target(deployment)
    assert (target.status, target.error_code) == ("failed", "error_rate")


def test_a_deployment_of_the_erased_device_alone_ends(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (gone,) = world.fleet(1, old)
    deployment = world.launch(new)
    gone.poll()

    erase(world, gone)
    world.tick(1)

    deployment.refresh_from_db()
    assert deployment.status == "Completed"
    assert statuses(deployment) == {"cancelled": 1}


def test_a_target_written_at_the_same_moment_is_ended_by_the_tick(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    gone, _ = world.fleet(2, old)
    deployment = world.launch(new)
    target = gone.target(deployment)
    erase(world, gone)
    Target.objects.filter(pk=target.pk).delete()
    Target.objects.create(
        deployment=deployment, device_id=gone.pk, rank=target.rank, stage_number=1
    )

    world.tick(1)

    late = gone.target(deployment)
    assert (late.status, late.error_code) == ("cancelled", "erased")


@pytest.mark.django_db(transaction=True)
def test_of_two_erasures_one_wins(world: World) -> None:
    old = world.image("2.4.0")
    (device,) = world.fleet(1, old)
    outcomes: list[str] = []

    def run() -> None:
        try:
            erase_device(actor=world.admin, device_id=device.name)
            outcomes.append("erased")
        except DeviceNotFoundError:
            outcomes.append("gone")
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["erased", "gone"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("status", "sequence"), [("failed", None), ("verifying", 1)])
def test_a_report_that_crosses_the_erasure_leaves_nothing(
    world: World, status: str, sequence: int | None
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    world.launch(new)
    device.poll()
    device.report("downloading")

    def run() -> None:
        try:
            device.report(status, sequence=sequence)
        except UpdateClosedError:
            pass
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    with transaction.atomic():
        erase_device(actor=world.admin, device_id=device.name, now=world.now)
        thread.start()
        wait_until(is_waited_for, what="the report to wait for the erasure")
    thread.join()

    assert not Report.objects.exists()


def test_a_heartbeat_that_crosses_the_erasure_leaves_nothing(world: World) -> None:
    old = world.image("2.4.0")
    (device,) = world.fleet(1, old)
    stale = device.device
    erase(world, device)

    with pytest.raises(DeviceNotFoundError):
        note_poll(device_id=stale.pk, interval=timedelta(seconds=60), now=world.now)

    assert not DeviceState.objects.filter(device_id=stale.pk).exists()
    assert is_update_available(device=stale, now=world.now) == (False, False)


@pytest.mark.django_db(transaction=True)
def test_a_first_heartbeat_that_crosses_the_erasure_leaves_nothing(
    world: World,
) -> None:
    old = world.image("2.4.0")
    (device,) = world.fleet(1, old)
    DeviceState.objects.all().delete()
    outcomes: list[str] = []

    def run() -> None:
        try:
            device.beat()
            outcomes.append("stored")
        except DeviceNotFoundError:
            outcomes.append("gone")
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    with transaction.atomic():
        erase_device(actor=world.admin, device_id=device.name, now=world.now)
        thread.start()
        wait_until(is_waited_for, what="the heartbeat to wait for the erasure")
    thread.join()

    assert outcomes == ["gone"]
    assert not DeviceState.objects.exists()


# --- Over the API -------------------------------------------------------------------


def test_an_admin_erases_over_the_api(rich: World, admin: PersonCaller) -> None:
    answer = admin.delete(f"/devices/{NAME}")

    assert answer.status_code == 204
    problem_of(admin.delete(f"/devices/{NAME}"), 404, "device_not_found")


def exported(caller: PersonCaller, name: str) -> Any:
    answer = caller.get(f"/devices/{name}/export")
    assert answer.status_code == 200
    return json.loads(answer.content)


def test_an_export_holds_all_about_the_device_and_no_secret(
    rich: World, admin: PersonCaller
) -> None:
    document = exported(admin, NAME)

    assert document["device"]["tags"] == {"owner": "Anna Weber"}
    assert document["device"]["metadata"] == {"phone": "+49 30 1234"}
    assert [run["version"] for run in document["firmwareHistory"]] == ["2.4.0"]
    assert [group["name"] for group in document["groups"]] == ["lab"]
    assert len(document["keys"]) == 2
    assert document["health"][0]["cpuPercent"] == 5.0
    assert len(document["deploymentTargets"]) == 1
    assert [u["action"] for u in document["updates"]] == ["install"]
    assert [r["body"]["status"] for r in document["reports"]] == [
        "downloading",
        "failed",
    ]
    assert "device.notified" in [event["event"] for event in document["events"]]
    assert "device.registered" in [row["verb"] for row in document["auditEvents"]]
    digests = DeviceKey.objects.values_list("digest", flat=True)
    assert not [digest for digest in digests if digest in json.dumps(document)]


def test_an_export_holds_nothing_of_others(rich: World, admin: PersonCaller) -> None:
    assert NAME not in json.dumps(exported(admin, "d-000")["updates"])
    assert exported(admin, "d-000")["reports"] == []


def test_an_unknown_device_is_not_exported(admin: PersonCaller) -> None:
    problem_of(admin.get("/devices/ghost/export"), 404, "device_not_found")


def test_a_scheduled_list_goes_on_without_the_erased_device(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    gone, _ = world.fleet(2, old)
    deployment = world.launch(
        new,
        selection=Selection(device_ids=("d-000", "d-001")),
        scheduled_at=world.now + timedelta(minutes=1),
    )

    erase(world, gone)
    world.live_on(65)

    assert statuses(Deployment.objects.get(pk=deployment.pk)) == {"pending": 1}
