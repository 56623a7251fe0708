"""What a list and a device tell beyond the row: groups, health, order, revocation."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devices.choices import DeviceHealth
from devices.models import Device
from health.choices import Verdict
from health.models import DeviceState
from health.services.heartbeats import latest_health, record_heartbeat
from hotswap.common.models import AuditEvent
from tests.api import pointers, problem_of
from tests.callers import PersonCaller
from tests.devices.factories import DeviceFactory, GroupFactory
from tests.firmware.factories import FirmwareFactory
from tests.health.factories import HeartbeatFactory


def ids(caller: PersonCaller, query: str) -> list[str]:
    return [row["deviceId"] for row in caller.get(f"/devices{query}").json()["results"]]


# --- Groups ------------------------------------------------------------------------


@pytest.fixture
def grouped(operator: PersonCaller) -> None:
    device = DeviceFactory.create(device_id="a", region="EU")
    DeviceFactory.create(device_id="b", region="US-EAST")
    GroupFactory.create(name="listed", members=[device])
    made = operator.post(
        "/device-groups",
        {"name": "europe", "type": "Dynamic", "rule": {"region": "EU"}},
    )
    assert made.status_code == 201, made.content


def test_a_device_names_its_groups_by_name(grouped: None, viewer: PersonCaller) -> None:
    found = viewer.get("/devices/a").json()["groups"]

    assert [(group["name"], group["type"]) for group in found] == [
        ("europe", "Dynamic"),
        ("listed", "Static"),
    ]
    path = f"/device-groups/{found[0]['id']}"
    assert viewer.get(path).json()["name"] == "europe"
    assert viewer.get("/devices/b").json()["groups"] == []


def test_a_list_names_groups_when_it_is_asked_to(
    grouped: None, viewer: PersonCaller
) -> None:
    plain = viewer.get("/devices").json()["results"]
    asked = viewer.get("/devices?include=groups").json()["results"]

    assert all("groups" not in row for row in plain)
    named = {
        row["deviceId"]: [group["name"] for group in row["groups"]] for row in asked
    }
    assert named == {"a": ["europe", "listed"], "b": []}


def test_naming_groups_costs_the_same_for_any_page(
    grouped: None, viewer: PersonCaller
) -> None:
    def count() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            viewer.get("/devices?include=groups")
        return len(captured)

    few = count()
    for number in range(20):
        DeviceFactory.create(device_id=f"more-{number}", region="EU")

    assert count() == few


def test_what_else_a_list_may_include_is_refused(viewer: PersonCaller) -> None:
    found = problem_of(viewer.get("/devices?include=secrets"), 400)

    assert set(pointers(found)) == {"/include"}


# --- Health ------------------------------------------------------------------------


def beat(device: Device, **changes: Any) -> None:
    fields: dict[str, Any] = {"application_metrics": {}} | changes
    beat = HeartbeatFactory.create(**fields)
    record_heartbeat(device=device, beat=beat, now=timezone.now())


@pytest.fixture
def fleet(db: None) -> None:
    for name in ("fine", "hot", "failing", "gone", "mute", "new"):
        DeviceFactory.create(device_id=name)
    device = {each.device_id: each for each in Device.objects.all()}
    beat(device["fine"])
    beat(device["hot"], cpu_usage=99.0)
    beat(device["failing"], application_metrics={"errorRate": 0.5})
    beat(device["gone"], application_metrics={"errorRate": 0.5})
    past = timezone.now() - timedelta(hours=1)
    DeviceState.objects.filter(device=device["gone"]).update(
        online_until=past, last_seen_at=past
    )
    # Heard by its polls alone.
    DeviceState.objects.create(
        device=device["mute"],
        last_seen_at=timezone.now(),
        online_until=timezone.now() + timedelta(minutes=5),
    )


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        ("healthy", ["fine"]),
        ("degraded", ["hot"]),
        ("unhealthy", ["failing"]),
        ("unknown", ["gone", "mute", "new"]),
    ],
)
def test_devices_are_found_by_how_they_fare(
    fleet: None, viewer: PersonCaller, health: str, expected: list[str]
) -> None:
    assert ids(viewer, f"?health={health}") == expected

    for name in expected:
        shown = viewer.get(f"/devices/{name}/health").json()
        assert shown["status"].lower() == health


def test_another_word_for_health_is_refused(viewer: PersonCaller) -> None:
    found = problem_of(viewer.get("/devices?health=ill"), 400)

    assert set(pointers(found)) == {"/health"}


def test_the_words_of_the_filter_are_those_of_the_verdicts() -> None:
    assert DeviceHealth.values == Verdict.values


@pytest.mark.parametrize(
    ("name", "connectivity"),
    [("fine", "online"), ("mute", "online"), ("gone", "offline"), ("new", "offline")],
)
def test_health_says_whether_the_device_is_heard(
    fleet: None, viewer: PersonCaller, name: str, connectivity: str
) -> None:
    shown = viewer.get(f"/devices/{name}/health").json()

    assert shown["connectivity"] == connectivity
    assert (shown["lastSeenAt"] is None) == (name == "new")
    assert shown["lastSeenAt"] == viewer.get(f"/devices/{name}").json()["lastSeenAt"]


def test_the_filter_and_the_page_agree(fleet: None) -> None:
    now = timezone.now()

    for health in DeviceHealth.values:
        for device in Device.objects.with_health(health, now):
            assert latest_health(device, now)["status"].lower() == health


# --- Order -------------------------------------------------------------------------


def test_a_list_runs_backwards_over_its_pages(viewer: PersonCaller) -> None:
    for name in ("a", "b", "c", "d", "e"):
        DeviceFactory.create(device_id=name)

    found, path = [], "/devices?sort=-deviceId&pageSize=2"
    while path:
        page = viewer.get(path.removeprefix("http://testserver/api/v1")).json()
        found += [row["deviceId"] for row in page["results"]]
        path = page["next"]

    assert found == ["e", "d", "c", "b", "a"]
    assert ids(viewer, "?sort=deviceId") == ["a", "b", "c", "d", "e"]


def test_a_sort_that_no_index_serves_is_refused(viewer: PersonCaller) -> None:
    found = problem_of(viewer.get("/devices?sort=lastSeenAt"), 400)

    assert set(pointers(found)) == {"/sort"}


# --- Revocation --------------------------------------------------------------------


def test_a_revocation_keeps_its_reason(operator: PersonCaller) -> None:
    DeviceFactory.create(device_id="d-1")

    answer = operator.post("/devices/d-1/revoke", {"reason": "stolen"})
    again = operator.post("/devices/d-1/revoke", {"reason": "found again"})

    assert answer.json()["revocation"]["reason"] == "stolen"
    assert again.json()["revocation"] == answer.json()["revocation"]
    event = AuditEvent.objects.get(verb="device.revoked")
    assert event.details["reason"] == "stolen"


@pytest.mark.parametrize("body", [None, {}, {"reason": ""}])
def test_a_revocation_needs_no_reason(operator: PersonCaller, body: Any) -> None:
    DeviceFactory.create(device_id="d-1")

    answer = operator.post("/devices/d-1/revoke", body)

    assert answer.status_code == 200
    assert answer.json()["revocation"]["reason"] == ""
    assert operator.get("/devices/d-1").json()["revocation"]["at"]


def test_a_device_that_is_let_in_has_no_revocation(viewer: PersonCaller) -> None:
    DeviceFactory.create(device_id="d-1")

    assert viewer.get("/devices/d-1").json()["revocation"] is None


def test_a_wrong_region_is_told_the_right_ones(operator: PersonCaller) -> None:
    DeviceFactory.create(device_id="d-1")

    found = problem_of(operator.patch("/devices/d-1", {"region": "MOON"}), 400)

    assert pointers(found) == {"/region": "invalid_choice"}
    assert "US-EAST" in found["detail"]
    assert "'MOON'" in found["detail"]


# --- Components --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("component", "found"),
    [
        ("openssl", ["runs"]),
        ("openssl@3.0.1", ["runs"]),
        ("openssl@3.0.2", []),
        ("zlib", []),
    ],
)
def test_devices_are_found_by_what_their_image_is_made_of(
    viewer: PersonCaller, admin: PersonCaller, component: str, found: list[str]
) -> None:
    made_of_it, other = FirmwareFactory.create(), FirmwareFactory.create()
    admin.post(
        f"/firmware/{made_of_it.pk}/sbom",
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "components": [{"name": "openssl", "version": "3.0.1"}],
        },
    )
    runs = {"runs": made_of_it.sha256, "other": other.sha256, "unknown": "0" * 64}
    for device_id, checksum in runs.items():
        DeviceFactory.create(device_id=device_id)
        Device.objects.filter(device_id=device_id).update(firmware_checksum=checksum)
    DeviceFactory.create(device_id="silent")

    assert ids(viewer, f"?component={component}") == found
    export = viewer.get(f"/devices/export?component={component}").content.decode()
    assert [line.split(",")[0] for line in export.splitlines()[1:]] == found
