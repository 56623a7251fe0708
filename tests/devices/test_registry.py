"""Registering and changing devices."""

import json
import string
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.conf import settings
from django.utils import timezone

from devices.models import Device, DeviceKey, FirmwareRun
from devices.services.registry import RUNS_KEPT, record_running_firmware
from hotswap.common.keyring import peppered_digest
from hotswap.common.models import AuditEvent
from tests.api import Caller, pointers, problem_of
from tests.callers import PersonCaller
from tests.devices.factories import DeviceFactory, GroupFactory
from tests.firmware.factories import DeviceModelFactory
from tests.words import says

FIELDS = {
    *("deviceId", "model", "region", "tags", "metadata", "firmwareVersion"),
    *("firmwareChecksum", "previousFirmwareVersion", "status", "enabled"),
    *("keyExpiresAt", "keyStatus", "alarm"),
    *("secureBoot", "lastSeenAt", "createdAt", "updatedAt"),
}


@pytest.fixture(autouse=True)
def models(db: None) -> None:
    for name in ("sensor-v1", "sensor-v2"):
        DeviceModelFactory.create(name=name)


def register(caller: Caller, device_id: object = "d-1", **fields: Any) -> Any:
    return caller.post(
        "/devices", {"deviceId": device_id, "model": "sensor-v1"} | fields
    )


def test_a_registration_answers_with_the_device_and_its_key(
    operator: PersonCaller,
) -> None:
    response = register(
        operator,
        tags={"site": "plant-7"},
        metadata={"rackPosition": {"row_number": 7}},
        firmwareVersion="1.0.0",
    )

    assert response.status_code == 201
    body = response.json()
    assert set(body) == FIELDS | {"apiKey", "groups", "revocation"}
    assert response["Location"] == "/api/v1/devices/d-1"
    assert response["Cache-Control"] == "no-store"
    assert body["region"] == "US-EAST"
    assert body["status"] == "never_seen"
    assert body["enabled"] is True
    assert body["firmwareVersion"] == "1.0.0"
    assert body["lastSeenAt"] is None
    assert body["tags"] == {"site": "plant-7"}
    assert body["metadata"] == {"rackPosition": {"row_number": 7}}


def test_the_key_is_shown_once_and_kept_as_a_digest_only(
    operator: PersonCaller,
) -> None:
    key = register(operator).json()["apiKey"]

    shown = operator.get("/devices/d-1").json()
    row = DeviceKey.objects.get()

    assert set(shown) == FIELDS | {"groups", "revocation"}
    assert key not in str(vars(row))
    assert row.digest == peppered_digest(key)
    assert len(key) > 40
    assert timedelta(days=89) < row.expires_at - timezone.now() <= timedelta(days=90)
    assert all(key not in str(event.details) for event in AuditEvent.objects.all())


def test_a_registration_is_audited_under_pseudonyms(operator: PersonCaller) -> None:
    register(operator)

    event = AuditEvent.objects.get(verb="device.registered")

    assert event.actor == operator.person.pseudonym
    assert event.object_id == str(Device.objects.get().pk)
    assert not says(json.dumps(event.details), "d-1")


def test_a_taken_name_is_409_and_changes_nothing(operator: PersonCaller) -> None:
    register(operator, tags={"a": "1"})

    response = register(operator, tags={"a": "2"})

    problem_of(response, 409, "device_exists")
    assert Device.objects.get().tags == {"a": "1"}
    assert DeviceKey.objects.count() == 1


def test_an_unknown_model_is_422(operator: PersonCaller) -> None:
    problem_of(register(operator, model="toaster"), 422, "unknown_model")

    assert not Device.objects.exists()


@pytest.mark.parametrize(
    "device_id",
    [
        "a",
        "0",
        "A.b_c:d-e",
        "9" * 128,
        string.ascii_letters + string.digits + "._:-",
        "a..b",
        "imports",
        "Import",
    ],
)
def test_every_allowed_character_works_in_body_and_address(
    operator: PersonCaller, device_id: str
) -> None:
    response = register(operator, device_id)

    assert response.status_code == 201
    assert operator.get(f"/devices/{device_id}").json()["deviceId"] == device_id


@pytest.mark.parametrize(
    ("device_id", "code"),
    [
        ("import", "reserved"),
        ("export", "reserved"),
        ("", None),
        (" a", "invalid"),
        ("a ", "invalid"),
        ("-a", "invalid"),
        (".a", "invalid"),
        ("a/b", "invalid"),
        ("a b", "invalid"),
        ("a\n", "invalid"),
        ("ä", "invalid"),
        ("a٣", "invalid"),
        ("a" * 129, None),
        (5, "invalid"),
        (True, "invalid"),
        (None, "null"),
        (["a"], "invalid"),
        ({"a": 1}, "invalid"),
    ],
)
def test_a_name_that_is_none_is_refused(
    operator: PersonCaller, device_id: object, code: str | None
) -> None:
    found = pointers(problem_of(register(operator, device_id), 400))

    assert set(found) == {"/deviceId"}
    assert code is None or found["/deviceId"] == code
    assert not Device.objects.exists()


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"model": 5}, "/model"),
        ({"model": ""}, "/model"),
        ({"model": None}, "/model"),
        ({"region": "MOON"}, "/region"),
        ({"region": 5}, "/region"),
        ({"region": ["EU"]}, "/region"),
        ({"region": None}, "/region"),
        ({"tags": []}, "/tags"),
        ({"tags": "a:b"}, "/tags"),
        ({"tags": {"a": 1}}, "/tags/a"),
        ({"tags": {"a": None}}, "/tags/a"),
        ({"tags": {"a": "x" * 257}}, "/tags/a"),
        ({"tags": {"": "x"}}, "/tags"),
        ({"tags": {"a:b": "x"}}, "/tags"),
        ({"tags": {" a": "x"}}, "/tags"),
        ({"tags": {"x" * 65: "x"}}, "/tags"),
        ({"tags": {str(n): "x" for n in range(51)}}, "/tags"),
        ({"tags": {"timezone": "Mars/Olympus"}}, "/tags/timezone"),
        ({"tags": {"timezone": ""}}, "/tags/timezone"),
        ({"tags": {"timezone": "localtime"}}, "/tags/timezone"),
        ({"metadata": []}, "/metadata"),
        ({"metadata": None}, "/metadata"),
        ({"metadata": {"a": "x" * 17_000}}, "/metadata"),
        ({"firmwareVersion": "v" * 65}, "/firmwareVersion"),
        ({"firmwareVersion": "1\t2"}, "/firmwareVersion"),
        ({"firmwareVersion": ""}, "/firmwareVersion"),
        ({"firmwareVersion": 1}, "/firmwareVersion"),
        ({"apiKey": "mine"}, "/apiKey"),
        ({"enabled": False}, "/enabled"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_field_of_the_wrong_kind_is_named(
    operator: PersonCaller, fields: dict[str, Any], pointer: str
) -> None:
    response = register(operator, **fields)

    assert set(pointers(problem_of(response, 400))) == {pointer}
    assert not Device.objects.exists()


@pytest.mark.parametrize("method", ["put", "patch"])
def test_a_time_zone_that_is_none_is_refused_where_a_device_is_changed(
    operator: PersonCaller, method: str
) -> None:
    register(operator, tags={"timezone": "Europe/Berlin"})
    body = {"model": "sensor-v1", "tags": {"timezone": "europe/berlin"}}

    response = getattr(operator, method)("/devices/d-1", body)

    document = problem_of(response, 400)
    assert pointers(document) == {"/tags/timezone": "unknown_timezone"}
    assert "perhaps 'Europe/Berlin' is meant" in document["detail"]
    assert Device.objects.get().tags == {"timezone": "Europe/Berlin"}


def test_fifty_tags_and_odd_metadata_come_back_as_they_were(
    operator: PersonCaller,
) -> None:
    tags = {f"tag {n}": "ä\u20ac\U0001f600" for n in range(50)} | {"tag 0": ""}
    metadata = {"": None, "a_b": [1, 2.5, True, {"cD": "e"}], "big": 10**30}

    register(operator, tags=tags, metadata=metadata)

    shown = operator.get("/devices/d-1").json()
    assert shown["tags"] == tags
    assert shown["metadata"] == metadata


def test_a_patch_changes_what_it_names(operator: PersonCaller) -> None:
    register(operator, tags={"a": "1"}, metadata={"m": 1})

    body = operator.patch("/devices/d-1", {"region": "EU", "tags": {"b": "2"}}).json()

    assert body["region"] == "EU"
    assert body["tags"] == {"b": "2"}
    assert body["metadata"] == {"m": 1}
    event = AuditEvent.objects.get(verb="device.changed")
    assert event.details == {
        "fields": ["region", "tags"],
        "changes": {
            "region": {"from": settings.DEFAULT_REGION, "to": "EU"},
            "tags": {"withheld": ["a", "b"]},
        },
    }


def test_a_put_replaces_all_that_its_owner_says(operator: PersonCaller) -> None:
    register(operator, region="EU", tags={"a": "1"}, metadata={"m": 1})
    operator.post("/devices/d-1/disable")

    body = operator.put("/devices/d-1", {"model": "sensor-v2"}).json()

    assert body["model"] == "sensor-v2"
    assert body["region"] == "US-EAST"
    assert body["tags"] == {}
    assert body["metadata"] == {}
    assert body["enabled"] is True


def test_a_put_needs_the_model(operator: PersonCaller) -> None:
    register(operator)

    response = operator.put("/devices/d-1", {"region": "EU"})

    assert pointers(problem_of(response, 400)) == {"/model": "required"}


@pytest.mark.parametrize("field", ["deviceId", "firmwareVersion", "status", "apiKey"])
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_what_the_owner_does_not_say_cannot_be_changed(
    operator: PersonCaller, method: str, field: str
) -> None:
    register(operator)

    response = operator.request(
        method, "/devices/d-1", {"model": "sensor-v1", field: "1.0.0"}
    )

    assert pointers(problem_of(response, 400)) == {f"/{field}": "unknown"}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_change_to_an_unknown_model_is_422(
    operator: PersonCaller, method: str
) -> None:
    register(operator)

    response = operator.request(method, "/devices/d-1", {"model": "toaster"})

    problem_of(response, 422, "unknown_model")


@pytest.mark.parametrize("enabled", ["true", 1, 0, "yes", None, []])
def test_enabled_is_true_or_false(operator: PersonCaller, enabled: object) -> None:
    register(operator)

    response = operator.patch("/devices/d-1", {"enabled": enabled})

    assert set(pointers(problem_of(response, 400))) == {"/enabled"}


def test_a_device_is_disabled_and_enabled_again(operator: PersonCaller) -> None:
    register(operator)

    disabled = operator.post("/devices/d-1/disable").json()
    again = operator.post("/devices/d-1/disable").json()
    enabled = operator.post("/devices/d-1/enable").json()

    assert [disabled["enabled"], again["enabled"], enabled["enabled"]] == [
        *(False, False, True),
    ]
    assert AuditEvent.objects.filter(verb="device.changed").count() == 2


@pytest.mark.parametrize("verb", ["enable", "disable", "revoke", "api-key"])
def test_a_verb_without_a_body_takes_no_field(
    operator: PersonCaller, verb: str
) -> None:
    register(operator)

    with_field = operator.post(f"/devices/d-1/{verb}", {"force": True})
    unknown = operator.post(f"/devices/nobody/{verb}", {})

    assert pointers(problem_of(with_field, 400)) == {"/force": "unknown"}
    problem_of(unknown, 404, "device_not_found")


def test_a_revoked_device_shows_it_and_stays_revoked(operator: PersonCaller) -> None:
    register(operator)

    answers = [operator.post("/devices/d-1/revoke").json() for _ in range(2)]

    assert [answer["status"] for answer in answers] == ["revoked", "revoked"]
    assert AuditEvent.objects.filter(verb="device.revoked").count() == 1
    assert Device.objects.updatable().count() == 0


@pytest.mark.parametrize("path", ["", "/health"])
def test_an_unknown_device_is_404(viewer: PersonCaller, path: str) -> None:
    problem_of(viewer.get(f"/devices/nobody{path}"), 404, "device_not_found")


def test_what_it_ran_before_is_remembered(device: Device) -> None:
    now = timezone.now()

    def runs(version: str, checksum: str) -> bool:
        return record_running_firmware(
            device=device, version=version, checksum=checksum * 64, now=now
        )

    changes = [runs("1.0.0", "a"), runs("1.0.0", "a"), runs("2.0.0", "b")]

    device.refresh_from_db()
    assert changes == [True, False, True]
    assert device.firmware_version == "2.0.0"
    assert device.previous_firmware_version == "1.0.0"


# --- The list --------------------------------------------------------------------


@pytest.fixture
def fleet() -> None:
    now = timezone.now()
    north = DeviceFactory.create(
        device_id="north-1", region="EU", tags={"site": "a:b", "line": "1"}
    )
    DeviceFactory.create(
        device_id="north-2", model_name="sensor-v2", tags={"site": "c"}, heard_at=now
    )
    DeviceFactory.create(
        device_id="south_1", disabled=True, heard_at=now - timedelta(days=1)
    )
    gone = DeviceFactory.create(device_id="gone", revoked=True, heard_at=now)
    GroupFactory.create(name="pilot", members=[north, gone])
    GroupFactory.create(name="all", members=[north])


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {"north-1", "north-2", "south_1", "gone"}),
        ("model=sensor-v2", {"north-2"}),
        ("region=EU", {"north-1"}),
        ("region=US-EAST", {"north-2", "south_1", "gone"}),
        ("status=never_seen", {"north-1"}),
        ("status=online", {"north-2"}),
        ("status=offline", {"south_1"}),
        ("status=revoked", {"gone"}),
        ("enabled=true", {"north-1", "north-2", "gone"}),
        ("enabled=false", {"south_1"}),
        ("firmwareVersion=1.0.0", {"north-2", "south_1", "gone"}),
        ("firmwareVersion=2.0.0", set()),
        ("group=pilot", {"north-1", "gone"}),
        ("tag=site:a:b&tag=line:1", {"north-1"}),
        ("tag=site:a:b&tag=line:2", set()),
        ("tag=site:c", {"north-2"}),
        ("tag=site:a:b", {"north-1"}),
        ("tag=site:a", set()),
        ("tag=line:1", {"north-1"}),
        ("tag=line:", set()),
        ("search=NORTH", {"north-1", "north-2"}),
        ("search=h_1", {"south_1"}),
        ("search=%25", set()),
        ("search=%5C", set()),
        ("search=north&model=sensor-v1", {"north-1"}),
        ("status=offline&enabled=false&region=US-EAST", {"south_1"}),
        ("group=pilot&status=revoked", {"gone"}),
    ],
)
def test_devices_are_filtered(
    viewer: PersonCaller, query: str, expected: set[str]
) -> None:
    page = viewer.get(f"/devices?count=true&{query}").json()

    assert {row["deviceId"] for row in page["results"]} == expected
    assert page["count"] == len(expected)


@pytest.mark.parametrize("said", ["1.7.1.10", "v2.3-14-gabcdef", "Sommer 2026 (ü)"])
def test_what_a_person_says_a_device_runs_may_be_any_text(
    operator: PersonCaller, viewer: PersonCaller, said: str
) -> None:
    DeviceModelFactory.create(name="sensor-v1")

    made = operator.post(
        "/devices",
        {"deviceId": "d-1", "model": "sensor-v1", "firmwareVersion": f" {said} "},
    )
    rows = viewer.get(f"/devices?firmwareVersion={quote(said)}").json()["results"]

    assert (made.status_code, made.json()["firmwareVersion"]) == (201, said)
    assert [row["firmwareVersion"] for row in rows] == [said]


def test_a_group_is_a_filter_by_its_id_too(viewer: PersonCaller) -> None:
    device = DeviceFactory.create()
    group = GroupFactory.create(members=[device])
    DeviceFactory.create()

    rows = viewer.get(f"/devices?group={group.pk}").json()["results"]

    assert [row["deviceId"] for row in rows] == [device.device_id]


@pytest.mark.parametrize(
    "query",
    [
        "status=alive",
        "status=ONLINE",
        "status=null",
        "enabled=maybe",
        "enabled=1",
        "enabled=TRUE",
        f"firmwareVersion={'v' * 65}",
        "firmwareVersion=1%092",
        "tag=site",
        "tag=:plant",
        "tag=a:b&tag=site",
        "tag=a:b" + "&tag=a:b" * 20,
        "model=none",
        "region=MOON",
        "group=nobody",
        "region=EU&region=EU",
    ],
)
def test_a_filter_of_no_sense_is_refused(viewer: PersonCaller, query: str) -> None:
    response = viewer.get(f"/devices?{query}")

    assert set(pointers(problem_of(response, 400))) == {f"/{query.partition('=')[0]}"}


def test_an_unknown_region_is_answered_with_the_known_ones(
    viewer: PersonCaller,
) -> None:
    document = problem_of(viewer.get("/devices?region=MOON"), 400)

    assert pointers(document) == {"/region": "unknown_region"}
    assert "US-EAST" in document["detail"]


def test_repeated_tags_hold_on_the_next_page_too(viewer: PersonCaller) -> None:
    for name in ("a", "b"):
        DeviceFactory.create(device_id=name, tags={"x": "1", "y": "2"})
    DeviceFactory.create(device_id="c", tags={"x": "1", "y": "3"})

    first = viewer.get("/devices?tag=x:1&tag=y:2&pageSize=1").json()
    second = viewer.get(first["next"].split("testserver")[1]).json()

    assert [row["deviceId"] for row in second["results"]] == ["b"]
    assert second["next"] is None


# --- Groups ----------------------------------------------------------------------


def test_a_group_is_made_read_changed_and_deleted(operator: PersonCaller) -> None:
    made = operator.post("/device-groups", {"name": "pilot", "description": "first"})
    path = f"/device-groups/{made.json()['id']}"

    read = operator.get(path)
    changed = operator.put(path, {"name": "pilots"})
    listed = operator.get("/device-groups").json()["results"]
    deleted = operator.delete(path)

    assert made.status_code == 201
    assert read.json() == made.json()
    assert made.json()["type"] == "Static"
    assert made.json()["deviceCount"] == 0
    assert changed.json()["name"] == "pilots"
    assert changed.json()["description"] == ""
    assert [group["name"] for group in listed] == ["pilots"]
    assert deleted.status_code == 204
    problem_of(operator.get(path), 404, "group_not_found")
    verbs = AuditEvent.objects.filter(object_kind="device-group").values_list(
        "verb", flat=True
    )
    assert list(verbs.order_by("id")) == [
        *("device-group.created", "device-group.changed", "device-group.deleted"),
    ]


def test_a_group_is_named_once(operator: PersonCaller) -> None:
    GroupFactory.create(name="pilot")
    other = GroupFactory.create(name="other")

    made = operator.post("/device-groups", {"name": "pilot"})
    renamed = operator.put(f"/device-groups/{other.pk}", {"name": "pilot"})

    problem_of(made, 409, "group_exists")
    problem_of(renamed, 409, "group_exists")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/name"),
        ({"name": ""}, "/name"),
        ({"name": " "}, "/name"),
        ({"name": 5}, "/name"),
        ({"name": "x" * 129}, "/name"),
        ({"name": "x", "type": "Loose"}, "/type"),
        ({"name": "x", "description": 5}, "/description"),
        ({"name": "x", "members": []}, "/members"),
    ],
)
def test_a_group_of_no_sense_is_refused(
    operator: PersonCaller, body: dict[str, Any], pointer: str
) -> None:
    response = operator.post("/device-groups", body)

    assert set(pointers(problem_of(response, 400))) == {pointer}


def test_a_stale_group_is_412(operator: PersonCaller) -> None:
    group = GroupFactory.create()

    response = operator.put(
        f"/device-groups/{group.pk}", {"name": "x"}, headers={"If-Match": '"stale"'}
    )

    problem_of(response, 412, "stale")


def test_members_are_added_listed_and_removed(operator: PersonCaller) -> None:
    names = [DeviceFactory.create(device_id=f"m-{n}").device_id for n in range(3)]
    path = f"/device-groups/{GroupFactory.create().pk}/devices"

    added = operator.post(path, {"deviceIds": names[:2]})
    again = operator.post(path, {"deviceIds": [names[1], names[2], names[2]]})
    listed = operator.get(path).json()["results"]
    removed = operator.delete(path, {"deviceIds": names[:1]})

    assert added.json()["deviceCount"] == 2
    assert again.json()["deviceCount"] == 3
    assert [row["deviceId"] for row in listed] == names
    assert removed.json()["deviceCount"] == 2


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_one_unknown_member_stops_them_all(operator: PersonCaller, method: str) -> None:
    member, other = DeviceFactory.create(), DeviceFactory.create()
    group = GroupFactory.create(members=[member])
    named = [member.device_id, "nobody", other.device_id, "no-one"]

    response = operator.request(
        method, f"/device-groups/{group.pk}/devices", {"deviceIds": named}
    )

    document = problem_of(response, 422, "unknown_devices")
    assert pointers(document) == {
        "/deviceIds/1": "unknown_device",
        "/deviceIds/3": "unknown_device",
    }
    assert list(group.members.all()) == [member]


@pytest.mark.parametrize("ids", [[], "m-1", None, [""], [5], [None], [["m-1"]], {}])
def test_members_that_are_no_list_of_names_are_refused(
    operator: PersonCaller, ids: object
) -> None:
    group = GroupFactory.create()

    response = operator.post(f"/device-groups/{group.pk}/devices", {"deviceIds": ids})

    problem_of(response, 400, "invalid")


def test_deleting_a_group_leaves_its_devices(operator: PersonCaller) -> None:
    device = DeviceFactory.create()
    group = GroupFactory.create(members=[device])

    operator.delete(f"/device-groups/{group.pk}")

    assert Device.objects.filter(pk=device.pk).exists()


# --- Firmware history -------------------------------------------------------------


def test_the_history_lists_what_a_device_ran_newest_first(
    viewer: PersonCaller,
) -> None:
    device = DeviceFactory.create()
    for minute, version in enumerate(("1.0.0", "1.1.0", "1.1.0", "1.0.0")):
        record_running_firmware(
            device=device,
            version=version,
            checksum=version[2] * 64,
            now=datetime(2026, 3, 2, 12, minute, tzinfo=UTC),
        )

    path = f"/devices/{device.device_id}/firmware-history"
    rows = viewer.get(path).json()["results"]
    page = viewer.get(f"{path}?pageSize=1").json()

    assert [(r["version"], r["since"][14:16], r["how"]) for r in rows] == [
        ("1.0.0", "03", "reported"),
        ("1.1.0", "01", "reported"),
        ("1.0.0", "00", "reported"),
    ]
    assert [row["until"] for row in rows] == [None, rows[0]["since"], rows[1]["since"]]
    assert len(page["results"]) == 1
    assert page["next"] is not None


def test_a_device_cannot_fill_the_history() -> None:
    device = DeviceFactory.create()
    for number in range(RUNS_KEPT + 5):
        record_running_firmware(
            device=device,
            version=f"1.0.{number}",
            checksum=f"{number:064}",
            now=datetime(2026, 3, 2, 12, 0, tzinfo=UTC),
        )

    versions = FirmwareRun.objects.filter(device=device).order_by("pk")

    assert versions.count() == RUNS_KEPT
    assert versions[0].version == "1.0.5"
    assert versions.filter(until__isnull=True).get().version == f"1.0.{RUNS_KEPT + 4}"
